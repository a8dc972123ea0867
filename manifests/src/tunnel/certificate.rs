//! What a tunnel's status says of the certificate that is ordered for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A certificate that is ordered by ACME, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// The Secret that holds it, once it is there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret_name: String,
    /// The hosts that it is wanted for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub names: Vec<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// From when on it is renewed: when a third of its life is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,
    /// The last try, if it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedOrder>,
}

/// A certificate that was not had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedOrder {
    /// When that was.
    pub time: Time,
    /// The metadata.generation for which it was tried.
    pub generation: i64,
    /// The directory of the authority that was asked.
    pub directory: String,
    /// Tries in a row that failed, with this one.
    pub count: u32,
    /// Before then it is not tried again, unless the tunnel or the authority becomes another.
    pub next_time: Time,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// The same for people.
    pub message: String,
}
