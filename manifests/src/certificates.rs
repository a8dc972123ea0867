//! What a CertificateSigningRequest may ask for, and what became of one, as Kubernetes words it.

use serde_json::Value;

/// The one signer that there is: of certificates that clients show to the API.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// The shortest that may be asked for, as in Kubernetes.
pub const MIN_EXPIRATION_SECONDS: i64 = 600;

/// What a certificate is to be used for; the others make no sense at the API.
pub const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

pub const APPROVED: &str = "Approved";
pub const DENIED: &str = "Denied";
pub const FAILED: &str = "Failed";

/// Whether a request has a condition of this type that holds.
pub fn is(request: &Value, condition: &str) -> bool {
    let conditions = request["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|found| {
        found["type"] == condition && found["status"].as_str().is_none_or(|is| is == "True")
    })
}
