//! `hivectl login`: signing in at the issuer that the swarm trusts, and a kubeconfig that goes on from
//! there: kubectl and hivectl ask `hivectl get-token` for a token when they need one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hive_manifests::duration::GoDuration;
use jiff::Timestamp;
use kube::config::{Kubeconfig, NamedAuthInfo, NamedContext};
use serde_json::json;
use url::Url;

use crate::failure::{Failure, chain};
use crate::kubeconfig::{self, KubeconfigError};
use crate::oidc::{Cache, Client, Issuer, Kept, Loopback, OidcError, Tokens};
use crate::session::Session;
use crate::world::Environment;

/// What kubectl asks plugins in. Newer ones know v1, but all since 1.11 know this, Debian's 1.20 too.
const EXEC_API: &str = "client.authentication.k8s.io/v1beta1";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl login --oidc-issuer-url https://login.example.org/realm --oidc-client-id hive
  hivectl login ... --device                  where there is no browser

The controllers must trust the same issuer and client: `hive controller run --oidc-issuer-url ...`.
The issuer must let the client redirect to http://127.0.0.1:8000/callback, or to the port given with
--redirect-port. Tokens are kept under ~/.cache/hive/oidc, readable by you only.")]
pub struct Login {
    #[command(flatten)]
    oidc: OidcArguments,

    /// Sign in on another device, where the issuer offers that
    #[arg(long, conflicts_with_all = ["redirect_port", "open_browser"])]
    device: bool,

    /// The port on 127.0.0.1 that the browser comes back to; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    redirect_port: u16,

    /// Open the page in your browser, and not only print its address
    #[arg(long)]
    open_browser: bool,

    /// How long to wait for you to sign in
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    wait: GoDuration,
}

/// Which issuer, and as which of its clients.
#[derive(Clone, Debug, Args)]
pub struct OidcArguments {
    /// The issuer that the controllers trust
    #[arg(long, value_name = "URL")]
    oidc_issuer_url: Url,

    /// The client that the issuer knows the swarm as
    #[arg(long, value_name = "ID")]
    oidc_client_id: String,

    /// The client's secret, where the issuer gives one to programs like this
    #[arg(
        long,
        value_name = "SECRET",
        env = "HIVE_OIDC_CLIENT_SECRET",
        hide_env_values = true
    )]
    oidc_client_secret: Option<String>,

    /// A scope to ask for beside openid, such as email or groups; may be repeated
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    oidc_extra_scope: Vec<String>,

    /// Certificates in PEM that vouch for the issuer; else the system's
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
}

impl OidcArguments {
    pub(super) fn client(&self) -> Client {
        Client {
            issuer: self.oidc_issuer_url.clone(),
            id: self.oidc_client_id.clone(),
            secret: self.oidc_client_secret.clone(),
            scopes: self.oidc_extra_scope.clone(),
            ca_file: self.oidc_ca_file.clone(),
        }
    }

    /// As flags again, without the secret: that is kept with the tokens.
    pub(super) fn flags(&self) -> Vec<String> {
        // As the person wrote it: a URL that is nothing but a host gets a slash when it is parsed.
        let issuer = match self.oidc_issuer_url.path() {
            "/" => self.oidc_issuer_url.as_str().trim_end_matches('/'),
            _ => self.oidc_issuer_url.as_str(),
        };
        let mut flags = vec![
            format!("--oidc-issuer-url={issuer}"),
            format!("--oidc-client-id={}", self.oidc_client_id),
        ];
        for scope in &self.oidc_extra_scope {
            flags.push(format!("--oidc-extra-scope={scope}"));
        }
        if let Some(file) = &self.oidc_ca_file {
            // kubectl may be called from anywhere.
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            flags.push(format!("--oidc-ca-file={}", file.display()));
        }
        flags
    }

    pub(super) fn cache(&self, environment: &Environment) -> Result<Cache, Failure> {
        let directory = environment.cache_home().ok_or_else(|| {
            Failure::new("there is nowhere to keep tokens: set HOME or XDG_CACHE_HOME")
        })?;
        Ok(Cache::new(&directory, &self.client()))
    }
}

/// What went wrong, for a person.
pub(super) fn failed(error: &OidcError) -> Failure {
    let failure = Failure::new(chain(error));
    match error {
        OidcError::Listen { .. } => {
            failure.hint("choose another port with --redirect-port; the issuer must know it")
        }
        OidcError::TooLate(_) => {
            failure.hint("run it again, and give yourself longer with --wait")
        }
        OidcError::NotOffered(_) => failure.hint("leave --device out, and sign in with a browser"),
        OidcError::Unsafe(path) => {
            failure.hint(format_args!("chmod 700 {}", path.display()))
        }
        OidcError::Unreachable { .. } => failure.hint(
            "is --oidc-issuer-url right? Certificates that the system does not know are named with --oidc-ca-file",
        ),
        OidcError::Refused { error, .. } => match error.as_str() {
            "invalid_client" | "unauthorized_client" => failure.hint(
                "is --oidc-client-id right? A client that has a secret needs it: HIVE_OIDC_CLIENT_SECRET",
            ),
            _ => failure,
        },
        OidcError::Issuer(_)
        | OidcError::CaFile { .. }
        | OidcError::NoCertificate(_)
        | OidcError::Tls(_)
        | OidcError::Status { .. }
        | OidcError::Answer { .. }
        | OidcError::IdToken(_)
        | OidcError::Cache { .. } => failure,
    }
}

pub async fn run(login: Login, session: &mut Session<'_>) -> Result<(), Failure> {
    // Before anybody signs in: where it is to be written.
    let (paths, merged) = session.kubeconfig()?;
    let context = kubeconfig::context(&merged, session.globals.context.as_deref())?;
    let context = context.context.clone().unwrap_or_default();
    let cluster = session.globals.cluster.clone().unwrap_or(context.cluster);
    kubeconfig::cluster(&merged, &cluster)?;
    let cache = login.oidc.cache(&session.world.environment)?;

    let issuer = Issuer::discover(login.oidc.client())
        .await
        .map_err(|error| failed(&error))?;
    let signed_in = match login.device {
        true => on_another_device(&issuer, login.wait.0, session).await?,
        false => in_a_browser(&issuer, &login, session).await?,
    };
    let tokens = signed_in.map_err(|error| failed(&error))?;
    let kept = Kept {
        tokens,
        client_secret: login.oidc.client().secret,
    };
    cache.write(&kept).map_err(|error| failed(&error))?;

    let name = format!("oidc@{cluster}");
    let namespace = session.globals.namespace.clone().or(context.namespace);
    remember(&paths[0], &name, &cluster, namespace, &login.oidc)?;
    let until = Timestamp::try_from(kept.tokens.expiry).map_or_else(
        |_| "it ends".to_owned(),
        |end| end.strftime("%H:%M:%S UTC").to_string(),
    );
    let then = match kept.tokens.refresh_token {
        Some(_) => "it is renewed by itself",
        None => "the issuer gave nothing to renew it with: sign in again then",
    };
    session.world.line(format_args!(
        "Signed in as {:?}. The token is good until {until}; {then}.\nSwitched to context {name:?}.",
        kept.tokens.name
    ))?;
    Ok(())
}

async fn in_a_browser(
    issuer: &Issuer,
    login: &Login,
    session: &mut Session<'_>,
) -> Result<Result<Tokens, OidcError>, Failure> {
    let loopback = match Loopback::listen(issuer, login.redirect_port).await {
        Ok(loopback) => loopback,
        Err(error) => return Ok(Err(error)),
    };
    session.world.note(format_args!(
        "Open this page in a browser on this machine, and sign in:\n\n  {}\n",
        loopback.url
    ))?;
    if login.open_browser
        && let Err(error) = open(loopback.url.as_str())
    {
        session
            .world
            .warn(format_args!("no browser could be opened: {error}"))?;
    }
    Ok(loopback.tokens(issuer, login.wait.0).await)
}

async fn on_another_device(
    issuer: &Issuer,
    patience: Duration,
    session: &mut Session<'_>,
) -> Result<Result<Tokens, OidcError>, Failure> {
    let device = match issuer.begin_device(patience).await {
        Ok(device) => device,
        Err(error) => return Ok(Err(error)),
    };
    session.world.note(format_args!(
        "Open {} on any device, and type the code {}",
        device.url, device.user_code
    ))?;
    if let Some(url) = &device.complete_url {
        session.world.note(format_args!("or open {url}"))?;
    }
    Ok(device.tokens(issuer).await)
}

fn open(url: &str) -> std::io::Result<()> {
    let program = match std::env::consts::OS {
        "macos" => "open",
        _ => "xdg-open",
    };
    std::process::Command::new(program)
        .arg(url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map(drop)
}

/// Writes a user that asks for tokens, and a context with it, into the kubeconfig.
fn remember(
    path: &Path,
    name: &str,
    cluster: &str,
    namespace: Option<String>,
    oidc: &OidcArguments,
) -> Result<(), Failure> {
    let own = std::env::current_exe().map_err(|error| {
        Failure::new(format_args!("this program does not find itself: {error}"))
    })?;
    // The one binary that holds everything is hivectl by a word.
    let mut arguments = match own.file_stem().is_some_and(|name| name == "hive") {
        true => vec!["ctl".to_owned()],
        false => Vec::new(),
    };
    arguments.push("get-token".to_owned());
    arguments.extend(oidc.flags());
    let parsed =
        |error: serde_json::Error| Failure::new(format_args!("cannot make a kubeconfig: {error}"));
    let user: NamedAuthInfo = serde_json::from_value(json!({
        "name": name,
        "user": { "exec": {
            "apiVersion": EXEC_API,
            "command": own.to_string_lossy(),
            "args": arguments,
            "interactiveMode": "Never",
            "installHint": "hivectl comes with Hive",
        } },
    }))
    .map_err(parsed)?;
    let context: NamedContext = serde_json::from_value(json!({
        "name": name,
        "context": { "cluster": cluster, "user": name, "namespace": namespace },
    }))
    .map_err(parsed)?;
    let mut file: Kubeconfig = kubeconfig::read_unresolved(path)?;
    file.auth_infos.retain(|known| known.name != name);
    file.auth_infos.push(user);
    file.contexts.retain(|known| known.name != name);
    file.contexts.push(context);
    file.current_context = Some(name.to_owned());
    kubeconfig::write(path, &file).map_err(|error: KubeconfigError| error.into())
}
