//! What tunnels of UDP may say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::read;
use crate::FieldPath;
use crate::duration::GoDuration;
use crate::tunnel::{MAX_PAYLOAD_BYTES, Protocol, ProxyProtocol};
use crate::validate::fields::text;
use crate::validate::findings::Findings;

pub(super) fn check(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if read(spec, "proxyProtocol").is_some_and(|said: ProxyProtocol| !said.is_none()) {
        findings.forbidden(
            &path.field("proxyProtocol"),
            "only with protocol TCP or TLS: a datagram has no begin that tells who sends it; leave it out",
        );
    }
    let idle = text(spec, "idleTimeout").and_then(|said| said.parse::<GoDuration>().ok());
    if idle.is_some_and(|idle| idle.0.is_zero()) {
        findings.forbidden(
            &path.field("idleTimeout"),
            "\"0s\" is not for UDP, where nobody ends a flow: say how long it may be silent, such as \"1m\"",
        );
    }
}

/// What the targets of UDP are asked with.
pub(super) fn check_payload(
    payload: &str,
    protocol: Option<Protocol>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    if protocol != Some(Protocol::Udp) {
        findings.forbidden(
            path,
            "only with protocol UDP: leave it out; with HTTP healthCheck.path says what is asked",
        );
        return;
    }
    match STANDARD.decode(payload) {
        Err(_) => findings.invalid(
            path,
            "is not base64: `printf ping | base64` writes the four letters of ping",
        ),
        Ok(bytes) if !(1..=MAX_PAYLOAD_BYTES).contains(&bytes.len()) => {
            let message = format!(
                "{} bytes; write 1 to {MAX_PAYLOAD_BYTES}, which fit into one packet",
                bytes.len()
            );
            findings.invalid(path, message);
        }
        Ok(_) => {}
    }
}
