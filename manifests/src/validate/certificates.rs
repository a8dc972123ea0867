//! Rules about CertificateSigningRequest: what is signed here. Whether the request itself is one, the
//! controllers see, who can read it.

use serde_json::Value;

use super::Reason;
use super::findings::{Findings, quoted};
use crate::FieldPath;
use crate::certificates::{CLIENT_SIGNER, MIN_EXPIRATION_SECONDS, USAGES};

pub(super) fn check(value: &Value, findings: &mut Findings) {
    let path = FieldPath::of(["spec"]);
    let spec = &value["spec"];
    if let Some(signer) = spec["signerName"].as_str()
        && signer != CLIENT_SIGNER
    {
        findings.invalid(
            &path.field("signerName"),
            format!(
                "{} signs nothing here; the one signer is {CLIENT_SIGNER}",
                quoted(signer)
            ),
        );
    }
    if let Some(seconds) = spec["expirationSeconds"].as_i64()
        && seconds < MIN_EXPIRATION_SECONDS
    {
        findings.invalid(
            &path.field("expirationSeconds"),
            format!("may not specify a duration less than {MIN_EXPIRATION_SECONDS} seconds"),
        );
    }
    let usages = path.field("usages");
    let wanted: Vec<&str> = spec["usages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (index, usage) in wanted.iter().enumerate() {
        if !USAGES.contains(usage) {
            let message = format!(
                "{} is no usage of a client's certificate; those are {}",
                quoted(usage),
                USAGES.join(", ")
            );
            findings.invalid(&usages.index(index), message);
        }
    }
    if !wanted.contains(&"client auth") {
        findings.push(
            &usages,
            Reason::Required,
            "\"client auth\" is required: that is what the certificate is for",
        );
    }
}
