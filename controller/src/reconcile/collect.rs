//! Removing what nobody needs any more: old events, expired tokens, artifacts without a function.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::TryStreamExt;
use hive_identity::client_certificate_end;
use hive_manifests::Resource;
use hive_manifests::certificates::{self, DENIED, FAILED};

use crate::access::tokens::Token;
use crate::artifacts::{Artifacts, usage};
use crate::deletion;
use crate::objects::Writer;
use crate::state::{Command, Key, Object, Rejection, State};
use crate::store::ProposeError;
use crate::together::{self, Together};

/// As long as Kubernetes keeps them.
const EVENT_AGE: Duration = Duration::from_secs(3600);

/// Events kept at most, the newest: each is about 1 KB in every controller's memory.
const MAX_EVENTS: usize = 2000;

/// An expired token stays visible for a day, so that one can see why it opens nothing.
const EXPIRED_TOKEN_AGE: Duration = Duration::from_secs(24 * 3600);

/// As long as Kubernetes keeps requests for certificates that nobody decided about, and refused ones.
const PENDING_REQUEST_AGE: Duration = Duration::from_secs(24 * 3600);
const REFUSED_REQUEST_AGE: Duration = Duration::from_secs(3600);

/// An artifact is uploaded before the manifest that names it; this is the time in between.
const UNUSED_ARTIFACT_AGE: Duration = Duration::from_secs(3600);

/// Objects that are to be deleted. Pure.
pub fn plan(state: &State, now: SystemTime) -> Vec<Key> {
    let mut steps = Vec::new();
    let mut events: Vec<_> = state
        .list(Resource::Event, None)
        .map(|event| (last_time(&event.to_value()), event))
        .collect();
    events.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (index, (at, event)) in events.into_iter().enumerate() {
        let old = at.is_none_or(|at| now.duration_since(at).is_ok_and(|age| age > EVENT_AGE));
        if old || index >= MAX_EVENTS {
            steps.push(event.key().clone());
        }
    }
    for secret in state.list(Resource::Secret, None) {
        let expiry = Token::read(secret).and_then(|token| token.expiry);
        if expiry.is_some_and(|at| {
            now.duration_since(at)
                .is_ok_and(|age| age > EXPIRED_TOKEN_AGE)
        }) {
            steps.push(secret.key().clone());
        }
    }
    for request in state.list(Resource::CertificateSigningRequest, None) {
        if ended(request, now).is_none_or(|end| end <= now) {
            steps.push(request.key().clone());
        }
    }
    steps
}

/// When a request for a certificate has done its work: when the certificate is good no more, or nobody
/// decided. `None` when it says nothing that can be read.
fn ended(request: &Object, now: SystemTime) -> Option<SystemTime> {
    let body = request.body();
    if let Some(certificate) = body["status"]["certificate"].as_str() {
        return client_certificate_end(&BASE64.decode(certificate).ok()?);
    }
    let created = body["metadata"]["creationTimestamp"].as_str()?;
    let created: SystemTime = created.parse::<jiff::Timestamp>().ok()?.into();
    let age = match certificates::is(body, DENIED) || certificates::is(body, FAILED) {
        true => REFUSED_REQUEST_AGE,
        false => PENDING_REQUEST_AGE,
    };
    // A clock that ran ahead does not make it stay for longer.
    Some(created.min(now) + age)
}

fn last_time(event: &serde_json::Value) -> Option<SystemTime> {
    let text = event["lastTimestamp"].as_str()?;
    Some(text.parse::<jiff::Timestamp>().ok()?.into())
}

/// The leader's memory of since when artifacts are unused; a new leader counts anew.
#[derive(Default)]
pub struct Unused {
    /// With the revision of the registration that was seen then.
    since: HashMap<String, (u64, Instant)>,
}

impl Unused {
    /// Artifacts that nobody named for long enough, with the revision of their registration.
    pub fn due(&mut self, state: &State, now: Instant) -> Vec<(String, u64)> {
        let used = usage::used(state);
        let unused: HashMap<String, u64> = state
            .artifacts()
            .filter(|(sha256, _)| !used.contains(*sha256))
            .map(|(sha256, record)| (sha256.clone(), record.revision))
            .collect();
        // One registered anew is about to be named: its time starts again.
        self.since
            .retain(|sha256, (registered, _)| unused.get(sha256) == Some(registered));
        unused
            .into_iter()
            .filter(|(sha256, registered)| {
                let first = self.since.entry(sha256.clone());
                let (_, since) = *first.or_insert((*registered, now));
                now.duration_since(since) >= UNUSED_ARTIFACT_AGE
            })
            .collect()
    }
}

/// One look of the leader.
pub async fn pass(together: &Together, state: &State, unused: &mut Unused) {
    let now = SystemTime::now();
    // What has finalizers is marked, and goes when they are done.
    let deletions = plan(state, now)
        .into_iter()
        .filter_map(|key| deletion::command(state.get(&key)?, None, now));
    let forgotten = unused
        .due(state, Instant::now())
        .into_iter()
        .map(|(sha256, registered)| Command::ForgetArtifact { sha256, registered });
    let collected = futures::stream::iter(deletions.chain(forgotten).map(Ok))
        .try_for_each_concurrent(together::MOST, async |command| {
            match together.write(command).await {
                Ok(())
                | Err(ProposeError::Rejected(Rejection::Conflict { .. } | Rejection::NotFound)) => {
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
        .await;
    if let Err(error) = collected {
        tracing::warn!(%error, "cannot collect what is unused");
    }
}

/// One look of any controller: fetches registered artifacts that are missing here, removes files
/// that are registered no more.
pub async fn sync_files(artifacts: &Artifacts, state: &State) {
    for (sha256, _) in state.artifacts() {
        let Ok(digest) = sha256.parse() else {
            continue;
        };
        if let Err(error) = artifacts.ensure(&digest).await {
            tracing::debug!(%error, "artifact is still missing here");
        }
    }
    let before = SystemTime::now() - UNUSED_ARTIFACT_AGE;
    let files = artifacts.files().clone();
    let state = state.clone();
    let swept = tokio::task::spawn_blocking(move || {
        files.sweep(before, |digest| state.artifact(&digest.hex()).is_some())
    })
    .await;
    match swept {
        Ok(Ok(0)) => {}
        Ok(Ok(removed)) => tracing::info!(removed, "removed unused artifacts"),
        Ok(Err(error)) => tracing::warn!(%error, "cannot remove unused artifacts"),
        Err(error) => tracing::error!(%error, "sweeping artifacts failed"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::declare;
    use crate::objects;
    use hive_identity::{
        CertificateAuthority, ClientAuthority, ClientRequest, DeviceKey, Registration, TokenSecret,
    };
    use serde_json::json;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn event(state: &mut State, name: &str, time: SystemTime) {
        let key = Key::new(Resource::Event, "default", name);
        let body = objects::fresh(
            &key,
            json!({}),
            json!({ "lastTimestamp": objects::timestamp(time) }),
        );
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }

    #[test]
    fn old_events_and_long_expired_tokens_go() {
        let mut state = State::default();
        event(&mut state, "old", at(0));
        event(&mut state, "new", at(3000));
        let kind = crate::access::tokens::TokenKind::Join;
        let (key, body) = crate::access::tokens::token_object(
            &TokenSecret::generate(),
            kind,
            None,
            Some(at(0)),
            None,
        );
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
        let names = |now| {
            plan(&state, now)
                .into_iter()
                .map(|key| key.resource)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(at(3600)), []);
        assert_eq!(names(at(3601)), [Resource::Event]);
        assert_eq!(
            names(at(24 * 3600 + 1)),
            [Resource::Event, Resource::Event, Resource::Secret]
        );
    }

    #[test]
    fn requests_for_certificates_go_when_they_have_done_their_work() {
        let authority = CertificateAuthority::create("test").unwrap();
        let clients = ClientAuthority::new(&authority).unwrap();
        let now = SystemTime::now();
        let pem = ClientRequest::make(&DeviceKey::generate(), "ada", &[]).unwrap();
        let asked = ClientRequest::parse(pem.as_bytes()).unwrap();
        let registration = Registration {
            name: "issued".into(),
            uid: "1".into(),
        };
        let hour = Duration::from_secs(3600);
        let issued = clients
            .issue(&asked, &registration, now, 40 * hour)
            .unwrap();
        let conditions = |kind: &str| json!([{ "type": kind, "status": "True" }]);
        let mut state = State::default();
        for (name, status) in [
            ("pending", json!({})),
            ("denied", json!({ "conditions": conditions("Denied") })),
            (
                "issued",
                json!({
                    "conditions": conditions("Approved"),
                    "certificate": BASE64.encode(issued.pem),
                }),
            ),
        ] {
            let key = Key::new(Resource::CertificateSigningRequest, "", name);
            declare(&mut state, key, json!({ "status": status }));
        }
        let gone = |hours: u32| {
            let steps = plan(&state, now + hour * hours);
            let names: Vec<String> = steps.into_iter().map(|key| key.name).collect();
            names.join(" ")
        };
        assert_eq!(gone(0), "");
        assert_eq!(gone(2), "denied");
        assert_eq!(gone(25), "denied pending");
        assert_eq!(gone(41), "denied issued pending");
    }

    #[test]
    fn of_too_many_events_the_newest_stay() {
        let mut state = State::default();
        for n in 0..MAX_EVENTS as u64 + 1 {
            event(
                &mut state,
                &format!("e{n}"),
                at(n % 3000 + u64::from(n > 0)),
            );
        }
        let gone = plan(&state, at(3000));
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].name, "e0");
    }

    #[test]
    fn an_artifact_is_forgotten_after_it_was_unused_for_a_while() {
        let mut state = State::default();
        let command = Command::RegisterArtifact {
            sha256: "00".into(),
            size: 1,
        };
        state.apply(command).unwrap();
        let mut unused = Unused::default();
        let start = Instant::now();
        assert_eq!(unused.due(&state, start), []);
        let due = start + UNUSED_ARTIFACT_AGE;
        assert_eq!(unused.due(&state, due), [("00".to_owned(), 1)]);
    }

    #[test]
    fn one_that_is_registered_again_gets_its_full_time_again() {
        let mut state = State::default();
        let register = || Command::RegisterArtifact {
            sha256: "00".into(),
            size: 1,
        };
        state.apply(register()).unwrap();
        let mut unused = Unused::default();
        let start = Instant::now();
        assert_eq!(unused.due(&state, start), []);
        let due = start + UNUSED_ARTIFACT_AGE;
        let before = unused.due(&state, due);
        state.apply(register()).unwrap();
        assert_eq!(unused.due(&state, due), []);
        // What was decided before comes too late.
        for (sha256, registered) in before {
            let forget = Command::ForgetArtifact { sha256, registered };
            assert!(matches!(
                state.apply(forget),
                Err(Rejection::Conflict { .. })
            ));
        }
        let due = due + UNUSED_ARTIFACT_AGE;
        assert_eq!(unused.due(&state, due), [("00".to_owned(), 2)]);
    }
}
