//! Tokens, policies, backups and names from outside, damaged in every way.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hive_fuzz::{Target, text};
use hive_identity::{CertificateAuthority, JoinToken};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::access::jwt::Unverified;
use crate::access::service_accounts::{Grant, Issuer};
use crate::access::tokens::Token;
use crate::artifacts::Digest;
use crate::audit::{Asked, Policy, Subject};
use crate::backup::{self, SwarmIdentity};
use crate::ingress::routes::Routes;
use crate::state::{Key, Object, State};

#[test]
fn web_tokens_are_read_or_refused() {
    let authority = CertificateAuthority::create("home").unwrap();
    let issuer = Issuer::new(&authority);
    let account = Object::new(
        Key::new(Resource::ServiceAccount, "default", "robot"),
        json!({ "metadata": { "name": "robot", "namespace": "default", "uid": "u" } }),
        1,
    );
    let grant = Grant {
        audiences: vec!["a".to_owned()],
        lifetime: Duration::from_secs(600),
        bound_to: None,
    };
    let (good, _) = issuer.issue(&account, grant, SystemTime::now());
    let state = State::default();
    Target::new("jwt", |input: &[u8]| {
        let token = text(input)?;
        let unverified = Unverified::parse(token).map_err(|error| error.to_string())?;
        issuer.issued(&unverified);
        let _ = unverified.unverified_claims::<Value>();
        let claims = issuer.verify(token).map_err(|error| error.to_string())?;
        // Base64 has one form, so only this very token is signed.
        assert_eq!(token, good);
        assert!(claims.check(&state, &["a"], SystemTime::now()).is_err());
        claims.expiry();
        Ok::<_, String>(())
    })
    .seeds([&good])
    .words([
        ".",
        "eyJhbGciOiJub25lIn0",
        "\"alg\":\"none\"",
        "\"crit\":[]",
        "=",
    ])
    // Parts that are no base64 become it.
    .repaired(|input| {
        if input.is_ascii() && input.contains(&b'{') {
            let text = String::from_utf8_lossy(input).into_owned();
            let parts: Vec<String> = text.split('.').map(|part| BASE64.encode(part)).collect();
            *input = parts.join(".").into_bytes();
        }
    })
    .at_most(20 * 1024)
    .hold();
}

/// Secrets that stand for tokens can be written by whoever may write secrets.
#[test]
fn stored_tokens_are_read_or_refused() {
    let key = Key::new(Resource::Secret, "hive-system", "token-a");
    let good = json!({
        "type": "hive.dev/token",
        "data": { "kind": "am9pbg==", "role": "YWRtaW4=", "expiry": "MjAyNi0wMS0wMVQwMDowMDowMFo=", "usesLeft": "Mw==" },
    });
    Target::new("stored_token", |input: &[u8]| {
        let body: Value = serde_json::from_slice(input).map_err(|error| error.to_string())?;
        let object = Object::new(key.clone(), &body, 1);
        Token::read(&object);
        let mut changed = body.clone();
        if body["data"].is_object() {
            crate::access::tokens::count_use(&mut changed, "key");
        }
        Ok::<_, String>(())
    })
    .seeds([good.to_string()])
    .words([
        "\"data\":",
        "\"usesLeft\":\"MA==\"",
        "\"expiry\":",
        "null",
        "\"-1\"",
        "LTE=",
        "{}",
    ])
    .at_most(4 * 1024)
    .hold();
}

#[test]
fn join_tokens_and_digests_are_read_or_refused() {
    let token = JoinToken::generate("ab".repeat(32).parse().unwrap()).to_string();
    Target::new("names", |input: &[u8]| {
        let text = text(input)?;
        if let Ok(digest) = text.parse::<Digest>() {
            // The name of a file, so there is one for each.
            assert_eq!(digest.hex().parse::<Digest>().unwrap(), digest);
            assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
            return Ok(());
        }
        text.parse::<JoinToken>()
            .map(|_| ())
            .map_err(|error| error.to_string())
    })
    .seeds([
        token,
        format!("sha256:{}", "ab".repeat(32)),
        "AB".repeat(32),
    ])
    .words(["sha256:", "../", "hive1."])
    .at_most(512)
    .hold();
}

#[test]
fn audit_policies_are_read_or_refused() {
    let policy = "\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{group: '', resources: [secrets, pods/log], resourceNames: [a]}]
- level: Metadata
  nonResourceURLs: ['/api*', /version]
- level: Request
  userGroups: [system:authenticated]
  namespaces: [kube-system, '']
";
    let groups = ["system:authenticated".to_owned()];
    Target::new("audit_policy", |input: &[u8]| {
        let policy = Policy::parse(text(input)?).map_err(|error| error.to_string())?;
        for subject in [
            Subject::Path("/api/v1"),
            Subject::Resource {
                group: "",
                resource: "secrets",
                subresource: Some("log"),
                namespace: None,
                name: Some("a"),
            },
        ] {
            policy.level(&Asked {
                user: "me",
                groups: &groups,
                verb: "watch",
                subject,
            });
        }
        Ok::<_, String>(())
    })
    .seeds([policy])
    .words([
        "- level: ",
        "omitStages: []",
        "resources: ",
        "nonResourceURLs: ",
        "&a ",
        "*a",
        "<<: *a",
        "{}",
        "null",
    ])
    .at_most(8 * 1024)
    .hold();
}

/// The content inside an envelope that is whole.
#[test]
fn backups_are_read_or_refused() {
    let authority = CertificateAuthority::create("home").unwrap();
    let mut state = State::default();
    let name = Key::new(Resource::ConfigMap, "default", "a");
    let body = json!({ "metadata": { "name": "a" } }).into();
    state
        .apply(crate::state::Command::Create { key: name, body })
        .unwrap();
    let header = backup::header(&state, "home", "2026-01-01T00:00:00Z".to_owned(), 1);
    let identity = SwarmIdentity::of(&authority);
    let good = {
        let mut sections =
            backup::Sections::begin(Vec::new(), header.clone(), &identity, &state).unwrap();
        sections.artifact(&Digest::of(b"bytes")).unwrap();
        sections.chunk(b"bytes").unwrap();
        sections.chunk(b"").unwrap();
        sections.finish().unwrap()
    };
    let read = |file: &[u8]| {
        let mut artifacts = 0;
        let content = backup::read(file, None, |_, bytes| {
            artifacts += std::io::copy(bytes, &mut std::io::sink())?;
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        content.state.image();
        Ok::<_, String>(())
    };
    // The body as it is before it is compressed and put into the envelope.
    let mut envelope = hive_identity::BackupReader::new(&good[..], None).unwrap();
    let inside = zstd::decode_all(&mut envelope).unwrap();
    Target::new("backup_content", |input: &[u8]| {
        let mut out = hive_identity::BackupWriter::new(Vec::new(), header.clone(), None).unwrap();
        std::io::Write::write_all(&mut out, &zstd::encode_all(input, 1).unwrap()).unwrap();
        read(&out.finish().unwrap())
    })
    .seeds([inside])
    .words(["\0\0\0\0", "\x01\0\0", "\x02\0\0", "\x03\0\0", "null", "{}"])
    .at_most(8 * 1024)
    .hold();
}

/// What a node says of itself and of its functions, before it is written down.
#[test]
fn reports_are_bounded() {
    use hive_proto::v1::{
        AgentEvent, AgentMessage, AssignmentStatus, Hello, Holdings, MeterEntry, Metering,
        NodeInfo, Report,
    };
    use prost::Message;

    use crate::gateway::{bounds, report};
    use hive_proto::v1::agent_message::Kind;

    let message = |kind| AgentMessage { kind: Some(kind) }.encode_to_vec();
    let info = NodeInfo {
        os: "linux".into(),
        memory_bytes: 1 << 30,
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..NodeInfo::default()
    };
    let hello = Hello {
        info: Some(info),
        ..Hello::default()
    };
    let said = Report {
        assignments: vec![AssignmentStatus {
            namespace: "default".into(),
            name: "a".into(),
            reason: "Trapped".into(),
            message: "why".into(),
            ..AssignmentStatus::default()
        }],
        events: vec![AgentEvent::default()],
        ..Report::default()
    };
    let told = Metering {
        origin: vec![1; 16],
        sequence: 1,
        entries: vec![MeterEntry {
            namespace: "default".into(),
            function: "f".into(),
            requests: 1,
            ..MeterEntry::default()
        }],
    };
    let state = State::default();
    Target::new("reports", |input: &[u8]| {
        let message = AgentMessage::decode(input).map_err(|error| error.to_string())?;
        match message.kind {
            Some(Kind::Hello(hello)) => {
                let info = bounds::info(hello.info.ok_or("nothing said")?);
                let mut node = json!({ "metadata": {}, "status": {} });
                report::merge_labels(&mut node, &info.labels);
                report::merge_status(&mut node["status"], &report::node_status(&info));
                // Names, words and labels are bounded, and so is what is kept of them.
                assert!(node.to_string().len() < 64 * 1024);
                let object = json!({
                    "apiVersion": "hive.dev/v1", "kind": "Node", "spec": {},
                    "metadata": { "name": "a", "labels": node["metadata"]["labels"] },
                });
                let mut errors = hive_manifests::validate(Resource::Node, &object);
                errors.retain(|error| error.to_string().starts_with("metadata"));
                assert!(errors.is_empty(), "{errors:?}");
            }
            Some(Kind::Report(said)) => {
                let said = bounds::report(said);
                assert!(report::status_writes(&state, "a", Some(&said), &[]).is_empty());
                for status in &said.assignments {
                    assert!(status.message.len() <= 1024 && status.reason.len() <= 64);
                }
            }
            Some(Kind::Metering(told)) => {
                for entry in bounds::used(told.entries, 60) {
                    assert!(entry.namespace.len() + entry.function.len() <= 316);
                }
            }
            Some(Kind::Holdings(told)) => {
                let told = bounds::holdings(told);
                assert!(told.len() <= 512 && told.is_sorted());
            }
            Some(Kind::Usage(_)) | None => return Err("nothing to keep".to_owned()),
        }
        Ok(())
    })
    .seeds([
        message(Kind::Hello(hello)),
        message(Kind::Report(said)),
        message(Kind::Metering(told)),
        message(Kind::Holdings(Holdings {
            artifacts: vec![2, 1],
        })),
    ])
    .words(["hive.dev/x", "\x0a\x02", "é"])
    .at_most(8 * 1024)
    .hold();
}

/// Hosts and paths of requests from anywhere.
#[test]
fn requests_find_a_route_or_none() {
    let routes = Routes::of(&State::default());
    Target::new("ingress_route", |input: &[u8]| {
        let text = text(input)?;
        let (host, path) = text.split_once(' ').ok_or("one word")?;
        let chosen = routes.find(host, &http::Method::GET, path);
        assert_eq!(chosen, hive_proto::routes::Chosen::Nobody);
        assert!(!routes.is_unclear(host, &http::Method::GET, path));
        Ok::<_, String>(())
    })
    .seeds(["a.example:80 /x", "[::1]:80 /", "A. /"])
    .words([":", "[", "]", ".", "/"])
    .at_most(1024)
    .hold();
}
