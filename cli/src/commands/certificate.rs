//! `hivectl certificate`: approving, denying and revoking what people asked for.
//!
//! A certificate is good while its request is there, so revoking is deleting the request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use hive_identity::{ClientRequest, client_certificate_end};
use hive_manifests::Resource;
use hive_manifests::certificates::{APPROVED, DENIED, is};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{Call, Cluster, RequestError, path};
use crate::commands::lookup::{self, finish};
use crate::failure::Failure;
use crate::object;
use crate::output;
use crate::session::Session;

const KIND: Resource = Resource::CertificateSigningRequest;

#[derive(Debug, Args)]
pub struct Certificate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Issue the certificates that were asked for
    #[command(after_help = "Look at what is asked for first:
  hivectl get csr
  hivectl describe csr ada-x7k2p
  hivectl certificate approve ada-x7k2p

Who approves must be allowed to impersonate the user and the groups that are certified.")]
    Approve(Named),
    /// Refuse to issue certificates
    Deny(Named),
    /// Make certificates useless at once: open watches end, the next request is refused
    #[command(after_help = "Examples:
  hivectl certificate revoke ada-x7k2p
  hivectl certificate revoke --user ada@example.org       all of hers")]
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Named {
    /// The requests, as `hivectl get csr` lists them
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The requests that the certificates were issued for, as `hivectl get csr` lists them
    #[arg(value_name = "NAME", required_unless_present = "user")]
    names: Vec<String>,

    /// All certificates of this user
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    user: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Approve,
    Deny,
}

impl Decision {
    fn condition(self) -> &'static str {
        match self {
            Self::Approve => APPROVED,
            Self::Deny => DENIED,
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Deny => "denied",
        }
    }
}

pub async fn run(certificate: Certificate, session: &mut Session<'_>) -> Result<(), Failure> {
    match certificate.command {
        Command::Approve(named) => all(named, Decision::Approve, session).await,
        Command::Deny(named) => all(named, Decision::Deny, session).await,
        Command::Revoke(revoke) => remove(revoke, session).await,
    }
}

async fn all(named: Named, decision: Decision, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut failures = Vec::new();
    for name in &named.names {
        let name = bare(name);
        let decided = match cluster.get(KIND, None, name).await {
            Ok(request) => decide(&cluster, request, decision).await,
            Err(error) => Err(error),
        };
        match decided {
            Ok(_) => session.world.line(format_args!(
                "{} {}",
                object::reference(KIND, name),
                decision.done()
            ))?,
            Err(error) => failures.push(lookup::not_found(&cluster, KIND, None, name, error).await),
        }
    }
    finish(failures)
}

/// What is written before the name is allowed, too.
fn bare(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, name)| name)
}

/// Sends a decision as kubectl does; the request with what became of it.
pub(super) async fn decide(
    cluster: &Cluster,
    mut request: Value,
    decision: Decision,
) -> Result<Value, RequestError> {
    if is(&request, decision.condition()) {
        return Ok(request);
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": decision.condition(),
        "status": "True",
        "reason": format!("Hivectl{:?}", decision),
        "message": format!("This CSR was {} by hivectl.", decision.done()),
        "lastUpdateTime": now,
    });
    let mut conditions = object::conditions(&request).to_vec();
    conditions.push(condition);
    if !request["status"].is_object() {
        request["status"] = json!({});
    }
    request["status"]["conditions"] = conditions.into();
    let path = format!(
        "{}/approval",
        path::object(KIND, None, object::name(&request))
    );
    cluster
        .json(&Call::new(Method::PUT, &path).json(&request))
        .await
}

/// When a certificate of an object ends, as people write times.
pub(super) fn end(certificate: &str) -> Option<String> {
    let pem = BASE64.decode(certificate).ok()?;
    let end = Timestamp::try_from(client_certificate_end(&pem)?).ok()?;
    Some(end.to_string())
}

async fn remove(revoke: Revoke, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let names = match &revoke.user {
        None => revoke.names,
        Some(user) => {
            let requests = cluster.list(KIND, None, &[]).await?;
            let names: Vec<String> = output::items(&requests)
                .into_iter()
                .filter(|request| certified(request).as_deref() == Some(user))
                .map(|request| object::name(request).to_owned())
                .collect();
            if names.is_empty() {
                return Err(Failure::new(format_args!(
                    "no certificate of user {user:?} is known here"
                )));
            }
            names
        }
    };
    let mut failures = Vec::new();
    for name in &names {
        let name = bare(name);
        let path = path::object(KIND, None, name);
        match cluster.json(&Call::new(Method::DELETE, &path)).await {
            Ok(_) => session
                .world
                .line(format_args!("{} revoked", object::reference(KIND, name)))?,
            Err(error) => failures.push(lookup::not_found(&cluster, KIND, None, name, error).await),
        }
    }
    finish(failures)
}

/// Whom a request is to certify.
fn certified(request: &Value) -> Option<String> {
    let pem = BASE64.decode(request["spec"]["request"].as_str()?).ok()?;
    Some(ClientRequest::parse(&pem).ok()?.user().to_owned())
}
