//! A swarm named by environment variables: what CI has are secrets, and files are one more place
//! where they could be left.
//!
//! `HIVE_SERVER`, `HIVE_TOKEN` and `HIVE_CA` flow in; out flows the kubeconfig that says the same.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::config::Kubeconfig;
use serde_json::json;

use super::{KubeconfigError, servers_extension};
use crate::world::Environment;

const SERVER: &str = "HIVE_SERVER";
const TOKEN: &str = "HIVE_TOKEN";
const CA: &str = "HIVE_CA";

/// Its name, wherever a name is shown.
const NAME: &str = "environment";

/// How PEM begins. Anything else is the name of a file.
const PEM: &str = "-----BEGIN";

/// `None` where no server is named.
pub fn read(environment: &Environment) -> Result<Option<Kubeconfig>, KubeconfigError> {
    let Some(servers) = environment.text(SERVER) else {
        return Ok(None);
    };
    let unusable = |variable, message: String| KubeconfigError::Environment { variable, message };
    let servers: Vec<String> = servers
        .split(',')
        .map(|server| server.trim().to_owned())
        .filter(|server| !server.is_empty())
        .collect();
    if let Some(other) = servers
        .iter()
        .find(|server| !server.starts_with("https://"))
    {
        let message = format!("{other:?} is no https:// address; several are separated by commas");
        return Err(unusable(SERVER, message));
    }
    let Some(first) = servers.first() else {
        return Err(unusable(SERVER, "it names no server".to_owned()));
    };
    let token = environment.text(TOKEN);
    let token =
        token.ok_or_else(|| unusable(TOKEN, format!("it is empty, and {SERVER} is set")))?;
    let mut cluster = json!({ "server": first, "extensions": [servers_extension(&servers)] });
    if let Some(named) = environment.text(CA) {
        let pem = match named.trim_start().starts_with(PEM) {
            true => named,
            false => fs::read_to_string(&named).map_err(|error| {
                let message = format!("it is no certificate in PEM, and as a file: {error}");
                unusable(CA, message)
            })?,
        };
        cluster["certificate-authority-data"] = BASE64.encode(pem).into();
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{ "name": NAME, "cluster": cluster }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME } }],
        "users": [{ "name": NAME, "user": { "token": token.trim() } }],
    });
    let config = serde_json::from_value(config).expect("it has a kubeconfig's form");
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kubeconfig;

    #[test]
    fn variables_say_what_a_file_would() {
        assert!(read(&Environment::default()).unwrap().is_none());
        let pem = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n";
        let environment = Environment::default()
            .with(SERVER, "https://a:6443, https://b:6443")
            .with(TOKEN, "secret\n")
            .with(CA, pem);
        let config = read(&environment).unwrap().unwrap();
        let cluster = kubeconfig::cluster(&config, NAME).unwrap();
        assert_eq!(
            kubeconfig::servers(cluster),
            ["https://a:6443", "https://b:6443"]
        );
        assert_eq!(cluster.certificate_authority_data, Some(BASE64.encode(pem)));
        let shown = kubeconfig::redact(&config).unwrap().to_string();
        assert!(!shown.contains("secret"), "{shown}");
        let context = kubeconfig::context(&config, None).unwrap();
        assert_eq!(context.name, NAME);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_without_its_value() {
        let with = |server: &str, token: &str, ca: &str| {
            let environment = Environment::default();
            let environment = environment
                .with(SERVER, server)
                .with(TOKEN, token)
                .with(CA, ca);
            read(&environment).unwrap_err().to_string()
        };
        assert_eq!(
            with("https://a", "", ""),
            "HIVE_TOKEN: it is empty, and HIVE_SERVER is set"
        );
        assert!(
            with("http://a", "t", "")
                .starts_with("HIVE_SERVER: \"http://a\" is no https:// address")
        );
        assert_eq!(with(",", "t", ""), "HIVE_SERVER: it names no server");
        assert!(with("https://a", "t", "/no/such").starts_with("HIVE_CA: it is no certificate"));
    }
}
