//! token create, list, revoke.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_identity::{ApiToken, JoinToken, TokenHash, TokenSecret};
use serde_json::json;

use crate::harness::Swarm;

#[tokio::test]
async fn a_join_token_pins_the_ca_and_only_its_hash_is_sent() {
    let swarm = Swarm::start().await;
    let run = swarm
        .run(&["token", "create", "--uses", "3", "--ttl", "1h"])
        .await;
    assert_eq!(run.code, 0, "{}", run.err);
    let token: JoinToken = run.out.trim_end().parse().unwrap();
    assert_eq!(token.ca, swarm.ca.certificate().fingerprint());
    let sent = swarm.fake.bodies().remove(0);
    assert_eq!(
        sent["metadata"]["name"],
        format!("token-{}", token.secret.id())
    );
    assert_eq!(sent["metadata"]["namespace"], "hive-system");
    assert_eq!(sent["type"], "hive.dev/token");
    let data = &sent["stringData"];
    assert_eq!(
        (&data["kind"], &data["usesLeft"]),
        (&json!("join"), &json!("3"))
    );
    assert!(
        data["expiry"].is_string() && data.get("role").is_none(),
        "{data}"
    );
    let hash: TokenHash = data["hash"].as_str().unwrap().parse().unwrap();
    assert!(hash.verify(&token.secret));
    let secret = token.secret.to_string();
    assert!(!sent.to_string().contains(&secret));
    assert!(!run.err.contains(&secret));
}

#[tokio::test]
async fn an_api_token_is_a_bearer_secret_that_may_only_look_unless_said() {
    let swarm = Swarm::start().await;
    let run = swarm.run(&["token", "create", "--kind=api"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    let ApiToken { secret } = run.out.parse().unwrap();
    let sent = swarm.fake.bodies().remove(0);
    assert_eq!(sent["stringData"]["role"], "view");
    assert_eq!(sent["stringData"].get("expiry"), None);
    assert!(run.err.contains(secret.id()), "{}", run.err);
    let run = swarm
        .run(&["token", "create", "--kind=join", "--role=admin"])
        .await;
    assert_eq!(run.code, 2);
    let run = swarm
        .run(&["token", "create", "--kind=api", "--uses=1"])
        .await;
    assert_eq!(run.code, 2);
}

#[tokio::test]
async fn tokens_are_listed_and_revoked() {
    let swarm = Swarm::start().await;
    let secret = TokenSecret::generate();
    let path = format!(
        "/api/v1/namespaces/hive-system/secrets/token-{}",
        secret.id()
    );
    swarm.fake.put(
        &path,
        json!({"apiVersion": "v1", "kind": "Secret", "type": "hive.dev/token",
               "metadata": {"name": format!("token-{}", secret.id()), "namespace": "hive-system"},
               "data": {"kind": BASE64.encode("join"), "usesLeft": BASE64.encode("2"),
                        "hash": BASE64.encode(secret.hash().to_string())}}),
    );
    let run = swarm.run(&["token", "list", "--no-headers"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out.split_whitespace().collect::<Vec<_>>(),
        [secret.id(), "join", "<none>", "2", "never"]
    );
    // Pasting a whole token revokes it, and doesn't put it into a URL.
    let stored = swarm.fake.object(&path).unwrap();
    let api = ApiToken {
        secret: secret.clone(),
    };
    let join = JoinToken {
        ca: swarm.ca.certificate().fingerprint(),
        secret: secret.clone(),
    };
    let whole = [secret.to_string(), api.to_string(), join.to_string()];
    for given in &whole {
        swarm.fake.put(&path, stored.clone());
        let run = swarm.run(&["token", "revoke", given]).await;
        run.expect(0, &format!("token {} revoked\n", secret.id()), "");
        assert!(swarm.fake.object(&path).is_none());
    }
    let damaged = api.to_string().replace('-', "");
    let run = swarm.run(&["token", "revoke", &damaged]).await;
    assert!(run.err.contains("this token is damaged"), "{}", run.err);
    let sent = swarm.fake.requests().concat();
    assert!(!sent.contains(&secret.to_string()));
    assert!(!sent.contains("hivetok"));
    let run = swarm.run(&["token", "revoke", secret.id()]).await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains("not found"), "{}", run.err);
    assert!(run.err.contains("`hivectl token list`"), "{}", run.err);
}

#[tokio::test]
async fn a_service_account_and_what_it_may_are_made_from_flags() {
    let swarm = Swarm::start().await;
    let run = swarm.run(&["create", "serviceaccount", "robot"]).await;
    run.expect(0, "serviceaccount/robot created\n", "");
    let run = swarm
        .run(&[
            "create",
            "token",
            "robot",
            "--duration=10m",
            "--audience=vault",
        ])
        .await;
    run.expect(0, "a.b.c\n", "it is good until 2026-01-31T12:00:00Z\n");
    let run = swarm
        .run(&[
            "create",
            "rolebinding",
            "robots",
            "--clusterrole=edit",
            "--serviceaccount=default:robot",
            "--dry-run=client",
            "--output=json",
        ])
        .await;
    assert_eq!(run.code, 0, "{}", run.err);
    let binding: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let bodies = swarm.fake.bodies();
    assert_eq!(
        bodies[1]["spec"],
        json!({ "audiences": ["vault"], "expirationSeconds": 600 })
    );
    assert_eq!(binding["roleRef"]["kind"], "ClusterRole");
    assert_eq!(
        binding["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "robot", "namespace": "default" }])
    );
    for wrong in [
        ["create", "role", "r", "--verb=get"].as_slice(),
        &["create", "rolebinding", "b", "--role=a", "--clusterrole=b"],
        &["create", "clusterrole", "r", "--verb=get"],
        &["get", "functions", "--as-group=team"],
    ] {
        assert_eq!(swarm.run(wrong).await.code, 2, "{wrong:?}");
    }
}
