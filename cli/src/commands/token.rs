//! `hivectl token`: what lets nodes and controllers join, and people and CI use the API.
//!
//! Tokens are Secrets in the system's namespace that hold only a hash: a token is printed once, when
//! it is made, and nowhere else.

mod revoke;

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand, ValueEnum};
use hive_identity::{ApiToken, CaCertificate, CaFingerprint, JoinToken, TokenSecret};
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::age;
use crate::failure::{Failure, chain};
use crate::object;
use crate::output;
use crate::session::Session;
use crate::table;

const NAMESPACE: &str = "hive-system";
const TOKEN_TYPE: &str = "hive.dev/token";

#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token and print it, once
    #[command(after_help = "Examples:
  hivectl token create                                  for one node, good for a day
  hivectl token create --uses 20 --ttl 1h               for twenty nodes
  hivectl token create --kind api --role view --ttl 30d
  HIVE_TOKEN=$(hivectl token create) hive-agent --controllers HOST:7443")]
    Create(Create),
    /// List tokens: what they are for and how long they last
    List(List),
    /// Make tokens useless at once
    #[command(after_help = "Examples:
  hivectl token revoke a1b2c3d4
  hivectl token revoke eyJhbGciOi...             a service account's token, which was lost")]
    Revoke(revoke::Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// What the token is for
    #[arg(long, value_enum, default_value = "join")]
    kind: Kind,

    /// What its holder may do; only for --kind api, where it is view unless said
    #[arg(long, value_enum)]
    role: Option<Role>,

    /// How long it is good for, such as 24h or 30d; 0: until it is revoked. [default: 24h; api: 0]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Ttl>,

    /// How many may join with it; 0: any number. [default: 1]
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
}

#[derive(Debug, Args)]
struct List {
    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A node joins the swarm with it
    Join,
    /// A controller joins with it, and is given the key of the swarm's CA
    ControllerJoin,
    /// People and CI use the API with it
    Api,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Everything
    Admin,
    /// Reads and writes outside hive-system
    Edit,
    /// Reads, but no secrets
    View,
}

/// A length of time in which days may be written: `30d`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ttl(Duration);

impl Ttl {
    pub(super) fn seconds(self) -> u64 {
        self.0.as_secs()
    }
}

impl FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const DAY_SECONDS: u64 = 24 * 60 * 60;
        // Ten years: the swarm's CA doesn't last longer.
        const MAX_DAYS: u64 = 3650;
        if let Some(days) = text
            .strip_suffix('d')
            .and_then(|days| days.parse::<u64>().ok())
        {
            return match days {
                0..=MAX_DAYS => Ok(Self(Duration::from_secs(days * DAY_SECONDS))),
                _ => Err(format!("at most {MAX_DAYS}d")),
            };
        }
        text.parse::<GoDuration>()
            .map(|duration| Self(duration.0))
            .map_err(|error| error.to_string())
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::ControllerJoin => "controller-join",
            Self::Api => "api",
        }
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Edit => "edit",
            Self::View => "view",
        }
    }
}

pub async fn run(token: Token, session: &mut Session<'_>) -> Result<(), Failure> {
    match token.command {
        Command::Create(create) => make(create, session).await,
        Command::List(list) => show(list, session).await,
        Command::Revoke(revoke) => revoke::run(revoke, session).await,
    }
}

async fn make(create: Create, session: &mut Session<'_>) -> Result<(), Failure> {
    let joins = create.kind != Kind::Api;
    if joins && create.role.is_some() {
        return Err(Failure::usage(
            "--role is for --kind api: who joins has none",
        ));
    }
    if !joins && create.uses.is_some() {
        return Err(Failure::usage(
            "--uses is for tokens to join with: an API token is used with every request",
        ));
    }
    // Who joins must know the CA to trust before anything is made.
    let ca = match joins {
        true => Some(pinned_ca(session).await?),
        false => None,
    };
    let secret = TokenSecret::generate();
    let ttl = match create.ttl {
        Some(Ttl(ttl)) => ttl,
        // A token to join with lies around in scripts and messages; one for CI is kept as a secret.
        None if joins => Duration::from_secs(24 * 60 * 60),
        None => Duration::ZERO,
    };
    let expiry = expiry(ttl)?;
    let mut data = json!({
        "hash": secret.hash().to_string(),
        "kind": create.kind.name(),
    });
    if !joins {
        data["role"] = create.role.unwrap_or(Role::View).name().into();
    }
    if let Some(expiry) = expiry {
        data["expiry"] = expiry.to_string().into();
    }
    if joins {
        match create.uses.unwrap_or(1) {
            0 => {}
            uses => data["usesLeft"] = uses.to_string().into(),
        }
    }
    store(&secret, data, session).await?;
    let id = secret.id().to_owned();
    match ca {
        Some(ca) => session.world.line(JoinToken { ca, secret })?,
        None => session.world.line(ApiToken { secret })?,
    }
    let until = match expiry {
        Some(expiry) => format!("until {expiry}"),
        None => "until it is revoked".into(),
    };
    session.world.note(format_args!(
        "token {id} is good {until}; it is not shown again"
    ))?;
    Ok(())
}

/// A token with which one controller joins, good for `ttl`.
pub(super) async fn controller_join(
    ttl: Duration,
    session: &mut Session<'_>,
) -> Result<JoinToken, Failure> {
    let ca = pinned_ca(session).await?;
    let secret = TokenSecret::generate();
    let mut data = json!({
        "hash": secret.hash().to_string(),
        "kind": Kind::ControllerJoin.name(),
        "usesLeft": "1",
    });
    if let Some(expiry) = expiry(ttl)? {
        data["expiry"] = expiry.to_string().into();
    }
    store(&secret, data, session).await?;
    Ok(JoinToken { ca, secret })
}

async fn pinned_ca(session: &mut Session<'_>) -> Result<CaFingerprint, Failure> {
    let ca = CaCertificate::from_der(&session.ca().await?).map_err(|error| {
        Failure::new(format_args!(
            "the kubeconfig's certificate-authority-data is not a swarm's CA: {}",
            chain(&error)
        ))
    })?;
    Ok(ca.fingerprint())
}

/// Makes the Secret that stands for a token.
async fn store(
    secret: &TokenSecret,
    data: Value,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": object_name(secret.id()), "namespace": NAMESPACE},
        "type": TOKEN_TYPE,
        "stringData": data,
    });
    session
        .cluster()
        .await?
        .create(Resource::Secret, Some(NAMESPACE), &object, false)
        .await?;
    Ok(())
}

fn expiry(ttl: Duration) -> Result<Option<Timestamp>, Failure> {
    if ttl.is_zero() {
        return Ok(None);
    }
    let too_long = |_| Failure::usage("--ttl is too long; 0 makes a token that doesn't expire");
    let ttl = SignedDuration::try_from(ttl).map_err(too_long)?;
    let end = Timestamp::now().checked_add(ttl).map_err(too_long)?;
    // Whole seconds, as all times in objects.
    Timestamp::from_second(end.as_second())
        .map(Some)
        .map_err(too_long)
}

fn object_name(id: &str) -> String {
    format!("token-{id}")
}

/// A field of a token's Secret, if it is there and readable.
fn field(secret: &Value, name: &str) -> Option<String> {
    let bytes = BASE64.decode(secret["data"][name].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

async fn show(list: List, session: &mut Session<'_>) -> Result<(), Failure> {
    let secrets = session
        .cluster()
        .await?
        .list(Resource::Secret, Some(NAMESPACE), &[])
        .await?;
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = output::items(&secrets)
        .into_iter()
        .filter(|secret| secret["type"] == TOKEN_TYPE)
        .map(|secret| {
            let name = object::name(secret);
            let created = secret["metadata"]["creationTimestamp"].as_str();
            vec![
                name.strip_prefix("token-").unwrap_or(name).to_owned(),
                field(secret, "kind").unwrap_or_default(),
                field(secret, "role").unwrap_or_else(|| "<none>".into()),
                uses(secret),
                expires(secret, now),
                created
                    .and_then(|created| age::since(created, now))
                    .unwrap_or_default(),
            ]
        })
        .collect();
    if rows.is_empty() {
        session.world.note("There are no tokens.")?;
        return Ok(());
    }
    let headers = ["ID", "KIND", "ROLE", "USES LEFT", "EXPIRES", "AGE"];
    session
        .world
        .text(table::simple(&headers, rows, !list.no_headers))?;
    Ok(())
}

fn uses(secret: &Value) -> String {
    field(secret, "usesLeft").unwrap_or_else(|| "any".into())
}

fn expires(secret: &Value, now: Timestamp) -> String {
    let Some(text) = field(secret, "expiry") else {
        return "never".into();
    };
    match text.parse::<Timestamp>() {
        Ok(expiry) if expiry <= now => "expired".into(),
        Ok(expiry) => {
            let left = expiry.duration_since(now).try_into().unwrap_or_default();
            format!("in {}", age::human(left))
        }
        Err(_) => "<unreadable>".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn days_may_be_written() {
        assert_eq!("30d".parse::<Ttl>().unwrap().0.as_secs(), 30 * 86_400);
        assert_eq!("1h30m".parse::<Ttl>().unwrap().0.as_secs(), 5_400);
        assert_eq!("0".parse::<Ttl>().unwrap().0, Duration::ZERO);
        assert!("30".parse::<Ttl>().is_err());
        assert!("99999999999999999999d".parse::<Ttl>().is_err());
    }
}
