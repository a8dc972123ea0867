//! `hivectl create user`: a certificate for a person, and the kubeconfig that holds it.
//!
//! The key is made here and leaves in the kubeconfig only; the swarm sees a signing request, as
//! `kubectl` users know it. Who may not approve it themselves waits until somebody does.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use hive_identity::{CaCertificate, ClientRequest, DeviceKey};
use hive_manifests::Resource;
use hive_manifests::certificates::{APPROVED, CLIENT_SIGNER, DENIED, FAILED, is};
use hive_manifests::duration::GoDuration;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::RequestError;
use crate::commands::certificate::{self, Decision};
use crate::commands::token::Ttl;
use crate::failure::{Failure, chain};
use crate::kubeconfig;
use crate::object;
use crate::session::Session;

/// Between two looks at whether somebody has approved.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Letters of the user's name in the request's: there must be room for what the server appends.
const MAX_PREFIX: usize = 40;

#[derive(Debug, Args)]
pub struct User {
    /// The name that the swarm is to know them by, as roles are bound to it
    name: String,

    /// A group that they are in, such as hive:edit; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    group: Vec<String>,

    /// How long the certificate is good for, from 10m to 30d
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    duration: Ttl,

    /// Write the kubeconfig there, readable by you only, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// How long to wait for somebody to approve it, where you may not
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    wait: GoDuration,
}

pub async fn run(user: User, session: &mut Session<'_>) -> Result<(), Failure> {
    if let Some(out) = &user.out
        && out.exists()
    {
        return Err(Failure::usage(format_args!(
            "--out {}: it exists already",
            out.display()
        )));
    }
    let key = DeviceKey::generate();
    let request = ClientRequest::make(&key, &user.name, &user.group)
        .map_err(|error| Failure::new(chain(&error)))?;
    let wanted = json!({
        "apiVersion": Resource::CertificateSigningRequest.api_version(),
        "kind": Resource::CertificateSigningRequest.kind(),
        "metadata": { "generateName": prefix(&user.name) },
        "spec": {
            "request": BASE64.encode(request),
            "signerName": CLIENT_SIGNER,
            "usages": ["digital signature", "client auth"],
            "expirationSeconds": user.duration.seconds(),
        },
    });
    let cluster = session.cluster().await?;
    let made = cluster
        .create(Resource::CertificateSigningRequest, None, &wanted, false)
        .await?;
    let name = object::name(&made).to_owned();
    let approved = match certificate::decide(&cluster, made, Decision::Approve).await {
        Ok(approved) => approved,
        Err(RequestError::Status(status)) if status.code == 403 => {
            session.world.note(format_args!(
                "You may not approve it yourself: {}\nWaiting until somebody does: hivectl certificate approve {name}",
                status.message
            ))?;
            decision(&name, user.wait.0, session).await?
        }
        Err(error) => return Err(error.into()),
    };
    let certificate = approved["status"]["certificate"]
        .as_str()
        .ok_or_else(|| Failure::new(format_args!("the request {name} holds no certificate")))?;
    let kubeconfig = kubeconfig_of(&user.name, certificate, &key, session).await?;
    match &user.out {
        Some(out) => kubeconfig::write(out, &kubeconfig)?,
        None => session.world.text(kubeconfig::yaml(&kubeconfig)?)?,
    }
    session.world.note(format_args!(
        "user {:?} is known until {}; `hivectl certificate revoke {name}` ends that at once",
        user.name,
        certificate::end(certificate).unwrap_or_else(|| "its certificate expires".into()),
    ))?;
    Ok(())
}

/// The beginning of the request's name: what of the user's may stand there.
fn prefix(user: &str) -> String {
    let mut prefix: String = user
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_PREFIX)
        .collect();
    prefix = prefix.trim_matches('-').to_owned();
    match prefix.is_empty() {
        true => "user-".to_owned(),
        false => format!("{prefix}-"),
    }
}

/// The request once somebody has approved it.
async fn decision(
    name: &str,
    patience: Duration,
    session: &mut Session<'_>,
) -> Result<Value, Failure> {
    let cluster = session.cluster().await?;
    let deadline = Instant::now() + patience;
    loop {
        let request = cluster
            .get(Resource::CertificateSigningRequest, None, name)
            .await?;
        if is(&request, APPROVED) {
            return Ok(request);
        }
        for refused in [DENIED, FAILED] {
            if is(&request, refused) {
                let why = object::condition(&request, refused)
                    .and_then(|condition| condition["message"].as_str())
                    .unwrap_or_default();
                return Err(Failure::new(format_args!(
                    "the request {name} was {}: {why}",
                    refused.to_lowercase()
                )));
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format_args!(
                "nobody has approved the request {name} in time"
            ))
            .hint("ask an administrator first, or give them longer with --wait"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A kubeconfig for the cluster that is talked to, and nothing else.
async fn kubeconfig_of(
    user: &str,
    certificate: &str,
    key: &DeviceKey,
    session: &mut Session<'_>,
) -> Result<Kubeconfig, Failure> {
    let ca = CaCertificate::from_der(&session.ca().await?)
        .map_err(|error| Failure::new(chain(&error)))?;
    let servers: Vec<String> = session
        .cluster()
        .await?
        .addresses()
        .map(str::to_owned)
        .collect();
    let cluster = ca.cluster();
    let context = format!("{user}@{cluster}");
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": cluster, "cluster": {
            "server": servers.first(),
            "certificate-authority-data": BASE64.encode(ca.to_pem()),
            "extensions": [kubeconfig::servers_extension(&servers)],
        } }],
        "users": [{ "name": context, "user": {
            "client-certificate-data": certificate,
            "client-key-data": BASE64.encode(key.to_pem()),
        } }],
        "contexts": [{ "name": context, "context": {
            "cluster": cluster,
            "user": context,
            "namespace": session.namespace().await?,
        } }],
        "current-context": context,
    });
    serde_json::from_value(content)
        .map_err(|error| Failure::new(format_args!("cannot make a kubeconfig: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_after_its_user() {
        for (user, expected) in [
            ("ada", "ada-"),
            ("Ada.L@example.org", "ada-l-example-org-"),
            ("@", "user-"),
            ("Åse", "se-"),
        ] {
            assert_eq!(prefix(user), expected);
        }
    }
}
