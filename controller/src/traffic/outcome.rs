//! What an answer says about the version that gave it.

use hive_proto::invoke::REASON;
use http::{HeaderMap, StatusCode};

/// Failures of what a function itself is or does. The other reasons are of the swarm: that no copy was
/// ready, was reached or had room, and say nothing about a version.
const OWN_FAILURES: [&str; 8] = [
    "Timeout",
    "CpuTimeout",
    "MemoryLimit",
    "HandleLimit",
    "ResponseTooLarge",
    "Trap",
    "NoResponse",
    "ErrorCode",
];

/// What an answer says about the version that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Failed,
    /// Nothing: it is not the version's own.
    NotItsOwn,
}

impl Outcome {
    /// Functions cannot write the header with the reason: there is one only where Hive answers.
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        match headers.get(REASON) {
            None if status.is_server_error() => Self::Failed,
            None => Self::Good,
            Some(reason) if OWN_FAILURES.iter().any(|own| reason == own) => Self::Failed,
            Some(_) => Self::NotItsOwn,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_version_answers_for_what_it_does_itself() {
        let cases = [
            (200, None, Outcome::Good),
            (404, None, Outcome::Good),
            (500, None, Outcome::Failed),
            (503, None, Outcome::Failed),
            (502, Some("Trap"), Outcome::Failed),
            (504, Some("Timeout"), Outcome::Failed),
            (504, Some("CpuTimeout"), Outcome::Failed),
            (502, Some("NoResponse"), Outcome::Failed),
            (503, Some("NotReady"), Outcome::NotItsOwn),
            (503, Some("Overloaded"), Outcome::NotItsOwn),
            (503, Some("QueueTimeout"), Outcome::NotItsOwn),
            (503, Some("NodeMemory"), Outcome::NotItsOwn),
            (413, Some("BodyTooLarge"), Outcome::NotItsOwn),
            (500, Some("HostError"), Outcome::NotItsOwn),
        ];
        for (status, reason, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let reasons = reason.map(|reason| (REASON, HeaderValue::from_static(reason)));
            let found = Outcome::of(status, &HeaderMap::from_iter(reasons));
            assert_eq!(found, expected, "{status} {reason:?}");
        }
    }
}
