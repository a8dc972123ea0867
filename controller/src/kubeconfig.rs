//! The kubeconfig that `init` leaves for its user: kubectl and hivectl read the same file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_identity::CaCertificate;
use serde_json::{Value, json};

/// Access to the APIs of a swarm's controllers. The first server is the one that every client
/// uses; hivectl goes on to the next where one does not answer.
pub fn kubeconfig(ca: &CaCertificate, servers: &[String], user: &str, token: &str) -> Value {
    let cluster = ca.cluster();
    let context = format!("{user}@{cluster}");
    let urls: Vec<String> = servers
        .iter()
        .map(|server| format!("https://{server}"))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": {
                "server": urls.first(),
                "certificate-authority-data": BASE64.encode(ca.to_pem()),
                "extensions": [{ "name": "hive.dev/servers", "extension": { "servers": urls } }],
            },
        }],
        "users": [{ "name": context, "user": { "token": token } }],
        "contexts": [{ "name": context, "context": { "cluster": cluster, "user": context } }],
        "current-context": context,
    })
}
