//! `hivectl create token`: a token that speaks for a service account.

use clap::Args;
use hive_manifests::Resource;
use http::Method;
use serde_json::json;

use crate::cluster::{Call, path};
use crate::commands::token::Ttl;
use crate::failure::Failure;
use crate::output::Format;
use crate::session::Session;
use crate::table::harmless;

#[derive(Debug, Args)]
pub struct Token {
    /// The service account
    account: String,

    /// How long it is good for, such as 10m, 24h or 30d (the longest). [default: 1h]
    #[arg(long, value_name = "DURATION")]
    duration: Option<Ttl>,

    /// Who is to accept it; may be repeated. [default: the swarm's API]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,

    /// The kind of object that the token ends with
    #[arg(long, value_name = "KIND", requires = "bound_object_name")]
    bound_object_kind: Option<String>,

    /// The name of the object that the token ends with
    #[arg(long, value_name = "NAME", requires = "bound_object_kind")]
    bound_object_name: Option<String>,

    /// Print the whole answer: json or yaml
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

pub async fn run(wanted: Token, session: &mut Session<'_>) -> Result<(), Failure> {
    let namespace = session.namespace().await?;
    let mut spec = json!({});
    if !wanted.audience.is_empty() {
        spec["audiences"] = json!(wanted.audience);
    }
    if let Some(duration) = wanted.duration {
        spec["expirationSeconds"] = duration.seconds().into();
    }
    if let (Some(kind), Some(name)) = (&wanted.bound_object_kind, &wanted.bound_object_name) {
        spec["boundObjectRef"] = json!({ "apiVersion": "v1", "kind": kind, "name": name });
    }
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    });
    let account = path::object(Resource::ServiceAccount, Some(&namespace), &wanted.account);
    let path = format!("{account}/token");
    let cluster = session.cluster().await?;
    let answer = cluster
        .json(&Call::new(Method::POST, &path).json(&request))
        .await?;
    match wanted.output {
        Some(form) => session.world.text(form.render(&answer, true)?)?,
        None => {
            let token = answer["status"]["token"].as_str().unwrap_or_default();
            session.world.line(token)?;
            // It may be shorter than was asked for.
            if let Some(until) = answer["status"]["expirationTimestamp"].as_str() {
                let until = harmless(until);
                session
                    .world
                    .note(format_args!("it is good until {until}"))?;
            }
        }
    }
    Ok(())
}
