//! `hivectl expose`: an address at the controllers for a service on a node, or another host for a function.
//!
//! Flags flow in; one Tunnel is declared by server-side apply, so that saying it twice is saying it
//! once. What a tunnel can be beyond the flags is for manifests.

mod reached;
mod tunnel;

use std::time::{Duration, Instant};

use clap::Args;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use hive_manifests::tunnel::MIN_PORT;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::commands::apply::DryRun;
use crate::commands::apply::server_side::{self, Declaration};
use crate::commands::create::How;
use crate::commands::lookup;
use crate::failure::Failure;
use crate::object;
use crate::output;
use crate::progress::{self, Progress};
use crate::selection;
use crate::session::Session;
use crate::table::harmless;
use crate::tunnel::{access, certificate, provider};

/// Whose the fields are: a tunnel that a manifest declares is not changed by a flag.
const FIELD_MANAGER: &str = "hivectl-expose";

/// The controllers know a tunnel's address with the next look at it. Who has none by then is told how to ask.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl expose node/pi-3 --port 3000                    HTTP, at pi-3-3000.NAMESPACE.DOMAIN
  hivectl expose node/pi-3 --port 3000 --host photos.example.org --name photos --wait
  hivectl expose node/pi-3 --port 80 --target-host 192.168.1.20     another machine in its network
  hivectl expose node/pi-3 --port 22 --tcp-port 2222 --name ssh     TCP, at port 2222 of every controller
  hivectl expose node/pi-3 --port 53 --udp-port 5353 --name dns     UDP, likewise
  hivectl expose function/hello --host hello.example.org
  hivectl expose node/pi-3 --port 3000 --dry-run=client -o yaml     a manifest to go on from

What is written is a Tunnel: `hivectl describe tunnel NAME` says whether it was reached,
`hivectl delete tunnel NAME` ends it, `hivectl explain tunnel.spec` has what flags do not:
several targets, limits, checks.")]
pub struct Expose {
    /// node/NAME or function/NAME
    #[arg(value_name = "TARGET", required = true)]
    words: Vec<String>,

    /// The port where the service listens; needed with a node
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Name or address of the service as the node reaches it [default: the node itself]
    #[arg(long, value_name = "HOST")]
    target_host: Option<String>,

    /// The host name to answer for, whose DNS records lead to the controllers [default:
    /// NAME.NAMESPACE.DOMAIN]; needed with a function
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Carry TCP instead of HTTP: the port, from 1024 on, where every controller listens for it
    #[arg(
        long,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(i64::from(MIN_PORT)..)
    )]
    tcp_port: Option<u16>,

    /// Carry UDP instead of HTTP: the port, from 1024 on, where every controller takes datagrams for it
    #[arg(
        long,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(i64::from(MIN_PORT)..)
    )]
    udp_port: Option<u16>,

    /// The tunnel's name [default: the function's, or NODE-PORT]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    how: How,

    /// Return when the service was reached through its address, or fail after TIMEOUT: 2m unless said, 0 for
    /// never
    #[arg(
        long,
        value_name = "TIMEOUT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2m"
    )]
    wait: Option<GoDuration>,
}

pub async fn run(expose: Expose, session: &mut Session<'_>) -> Result<(), Failure> {
    let (resource, target) = subject(&expose.words)?;
    let namespace = session.namespace().await?;
    let declared = tunnel::declare(&expose, resource, &target, &namespace)?;
    let how = &expose.how;
    if how.dry_run == DryRun::Client {
        return print(&declared, &expose, session);
    }
    let cluster = session.cluster().await?;
    check_exists(&cluster, resource, &namespace, &target).await?;
    let name = object::name(&declared);
    let declaration = Declaration {
        resource: Resource::Tunnel,
        namespace: Some(&namespace),
        object: &declared,
        manager: FIELD_MANAGER,
        force: false,
        dry_run: how.dry_run == DryRun::Server,
    };
    let applied = declaration.apply(&cluster).await.map_err(|error| {
        let is_owned = server_side::is_conflict_of_owners(&error);
        let failure = Failure::from(error);
        match is_owned {
            true => failure.hint(format_args!(
                "tunnel {name:?} is declared elsewhere: change it there, or give this one another --name"
            )),
            false => failure,
        }
    })?;
    if how.output.is_some() || how.dry_run == DryRun::Server {
        print(&applied, &expose, session)?;
    } else {
        say_address(&applied, expose.wait.is_some(), &cluster, session).await?;
    }
    match expose.wait {
        Some(timeout) if how.dry_run == DryRun::None => {
            let deadline = Some(timeout.0)
                .filter(|timeout| !timeout.is_zero())
                .map(|timeout| Instant::now() + timeout);
            let ready = reached::wait(&applied, deadline, &cluster, session).await?;
            // Who reads the object reads nothing else.
            match how.output {
                Some(_) => session.world.note(ready)?,
                None => session.world.line(ready)?,
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `node/pi`, `node pi`, `fn/hello`.
fn subject(words: &[String]) -> Result<(Resource, String), Failure> {
    const FORMS: &str = "node/NAME --port PORT, or function/NAME --host HOST";
    if let [word] = words
        && !word.contains('/')
    {
        return Err(Failure::usage(format_args!(
            "{word:?} does not say what to expose, and which: write {FORMS}"
        )));
    }
    let named = selection::single(words, Resource::Node);
    match named.map_err(|failure| failure.hint(format_args!("expose takes {FORMS}")))? {
        (resource @ (Resource::Node | Resource::Function), name) => Ok((resource, name)),
        (other, _) => Err(Failure::usage(format_args!(
            "{} cannot be exposed: write {FORMS}",
            other.plural()
        ))),
    }
}

/// A name that nobody has is a typing mistake more often than something to come.
async fn check_exists(
    cluster: &Cluster,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let namespace = resource.namespaced().then_some(namespace);
    match cluster.get(resource, namespace, name).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => {
            let failure = lookup::not_found(cluster, resource, namespace, name, error).await;
            Err(
                match lookup::there_are(cluster, resource, namespace).await {
                    Some(there_are) => failure.hint(there_are),
                    None => failure,
                },
            )
        }
        // Who may make tunnels need not be allowed to look at nodes: the tunnel's status tells.
        Err(error) if error.is_forbidden() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn print(tunnel: &Value, expose: &Expose, session: &mut Session<'_>) -> Result<(), Failure> {
    let how = &expose.how;
    match &how.output {
        Some(form) => {
            let shown = output::without_managed_fields(tunnel.clone());
            session.world.text(form.render(&shown, true)?)?;
        }
        None => session.world.line(format_args!(
            "{} exposed{}",
            object::reference(Resource::Tunnel, object::name(tunnel)),
            how.dry_run.suffix()
        ))?,
    }
    Ok(())
}

/// Says where it is to be reached, and by whom. That somebody was there is another matter: see `--wait`. Who does not
/// wait hears what is known to be in the way by now, such as that another tunnel has the port.
async fn say_address(
    tunnel: &Value,
    waits: bool,
    cluster: &Cluster,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let name = object::name(tunnel);
    let reference = object::reference(Resource::Tunnel, name);
    let patience = Instant::now() + ADDRESS_PATIENCE;
    let told = reached::told(tunnel, patience, cluster).await?;
    let addresses = told.as_ref().map(reached::addresses).unwrap_or_default();
    if addresses.is_empty() {
        session.world.line(format_args!("{reference} exposed"))?;
        if told.is_none() {
            session.world.note(format_args!(
                "the controllers have not said yet where: `hivectl describe tunnel {name}` will"
            ))?;
        }
    } else {
        session.world.line(format_args!(
            "{reference} exposed at {}",
            addresses.join(", ")
        ))?;
    }
    for line in access(tunnel) {
        session.world.line(format_args!("  access: {line}"))?;
    }
    if let Some(certificate) = certificate(tunnel) {
        session
            .world
            .line(format_args!("  certificate: {certificate}"))?;
    }
    let provider = provider(tunnel);
    if provider != "Hive" {
        session.world.line(format_args!("  provider: {provider}"))?;
    }
    if !waits
        && let Some(told) = &told
        && object::has_condition(told, "Ready", "False")
        && let Progress::Waiting(why) = progress::of_tunnel(told)
    {
        session
            .world
            .note(format_args!("not reached yet: {}", harmless(&why)))?;
    }
    Ok(())
}
