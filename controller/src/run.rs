//! Where a controller's parts are wired together, started in order, and stopped in reverse.

mod sockets;

use std::sync::Arc;

use anyhow::{Context, bail};
use hive_functions::Target;
use hive_identity::{CertificateAuthority, ClientAuthority, Credentials, LiveCredentials, tls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::oidc;
use crate::access::service_accounts::Issuer;
use crate::api::{self, ApiContext};
use crate::artifacts::{Allowed, ArtifactFiles, Artifacts, Registries};
use crate::audit::Audit;
use crate::challenges::Challenges;
use crate::config::RunArgs;
use crate::controllers::Controllers;
use crate::data_dir::{DataDirectory, SelfRecord};
use crate::encryption::{self, SealedFiles};
use crate::gateway::{self, Gateway, Invoker, Nodes, Presence};
use crate::https;
use crate::identity_files::IdentityFiles;
use crate::ingress::{self, Forwarder, Ingress};
use crate::own_certificate;
use crate::peers::Peers;
use crate::reconcile::compile::CompileWorker;
use crate::reconcile::cron::Cron;
use crate::reconcile::{Looks, Outlook, Reconcilers, collect};
use crate::spans::Spans;
use crate::state::Command;
use crate::store::{Replica, ReplicaOptions};
use crate::traffic::Loads;
use crate::tunnels::providers::cloudflare::api::Api;
use crate::tunnels::providers::cloudflare::{self, Cloudflared};
use crate::tunnels::providers::tor::Tor;
use crate::tunnels::providers::{Launcher, Leading};
use crate::tunnels::{self, Tunnels};
use sockets::Sockets;

/// What was recorded is written at once, and synced within a second.
const AUDIT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

/// Missing artifacts are looked for when one is registered, and this often.
const FILES_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);

/// Runs until `cancel`, or until the store fails: then nothing is served that might be wrong. `prefix` leads
/// from this program's name to a controller's subcommands.
pub async fn run(args: &RunArgs, prefix: &[&str], cancel: CancellationToken) -> anyhow::Result<()> {
    args.check()?;
    let (dir, record) = DataDirectory::open(&args.data.data_dir)?;
    let keys = args.encryption.keys(&args.data.data_dir, &record)?;
    let identity = IdentityFiles::new(dir.identity(), keys.clone());
    let authority = Arc::new(identity.load_authority()?);
    if keys.first().is_some() {
        // The keys are the right ones, and the first is used from here on.
        dir.raise_version()?;
    }
    let live = LiveCredentials::new(own_credentials(&identity, &record, &authority)?);
    let audit = args.audit.options(dir.audit_log())?;
    let audit_path = audit.path.clone();
    let (audit, audit_written) = Audit::open(audit)
        .with_context(|| format!("cannot write the audit log {}", audit_path.display()))?;
    let issuer = Arc::new(Issuer::new(&authority));
    let clients = Arc::new(ClientAuthority::new(&authority)?);
    let certificates = Arc::new(args.api_certificates(&live)?);
    let compile_worker = CompileWorker::of_this_program(prefix, args.compile_memory)
        .context("cannot find this program's own file, to compile with it")?;
    let launcher = Launcher::of_this_program(prefix)
        .context("cannot find this program's own file, to run others with it")?;
    let otlp = args.otlp.connect(&record)?;
    let recorded = record;
    let record = args.record(&recorded);
    let sockets = Sockets::bind(args, &record, &live).await?;
    let ingress_at = sockets.ingress.local_addr()?;
    if record != recorded {
        dir.save(&record)?;
    }

    let peers = Peers::new(live.clone(), args.link_settings(), record.raft_id);
    let options = ReplicaOptions {
        dir: dir.raft(),
        id: record.raft_id,
        timing: None,
        keys: keys.clone(),
    };
    let replica = Replica::start(options, peers.clone()).await?;
    encryption::note(&dir, &record, &keys)?;
    let files = ArtifactFiles::open(&dir.artifacts())
        .with_context(|| format!("cannot open {}", dir.artifacts().display()))?;
    let artifacts = Artifacts::new(files, replica.clone(), peers.clone());
    let nodes = Nodes::new(replica.clone(), peers.clone());
    let invoker = Invoker::new(nodes.clone());
    let roots = oidc::system_and_named_roots(args.oidc.oidc_ca_file.as_deref())?;
    let tunnels = Tunnels::new(nodes.links().clone()).trusting(roots);
    let presence = Presence::default();
    let controllers = Controllers::new(replica.clone(), peers.clone(), presence.clone());
    let stop = CancellationToken::new();
    // What people talk to stops first: requests under way need the links to finish.
    let doors_stop = stop.child_token();
    let doors = TaskTracker::new();
    let loads = Loads::default();
    let tasks = TaskTracker::new();
    let spans = otlp.map(|otlp| {
        let (spans, exporter) = Spans::new(otlp);
        tasks.spawn(exporter.run(stop.clone()));
        spans
    });
    let forwarder = Forwarder::new(
        ingress::follow_routes(&replica, stop.clone()),
        invoker.clone(),
        tunnels.clone(),
        loads.clone(),
        spans,
    )
    .answering(Challenges::follow(&replica, stop.clone()))
    .with_https_at(record.member.ingress_tls.as_deref().and_then(port_of));

    tasks.spawn(
        Gateway {
            replica: replica.clone(),
            artifacts: artifacts.clone(),
            nodes: nodes.clone(),
            presence: presence.clone(),
            controllers: controllers.clone(),
            tunnels: tunnels.clone(),
            invoker,
            authority: authority.clone(),
            audit: audit.clone(),
            certificate_lifetime: args.certificate_lifetime.0,
        }
        .run(sockets.link, stop.clone()),
    );
    tasks.spawn(gateway::report(
        replica.clone(),
        peers.clone(),
        nodes.clone(),
        presence.clone(),
        loads,
        stop.clone(),
    ));
    tasks.spawn(
        Reconcilers {
            replica: replica.clone(),
            artifacts: artifacts.clone(),
            registries: Registries::new(Allowed::new(args.registry_allow.clone())),
            presence,
            peers: peers.clone(),
            authority: authority.clone(),
            node_grace: args.node_grace(),
            compile_worker,
            own_target: Target::host().as_str(),
            cron: Cron::new(forwarder.clone()),
            tunnels: tunnels.clone(),
            providers: Leading {
                cloudflare: Api::new(args.providers.cloudflare_api.clone()),
                cluster: record.cluster.clone(),
                ingress: ingress_at,
                tor: Tor {
                    dir: args.data.data_dir.join("tor"),
                    config: args.providers.tor_config.clone(),
                    forwarder: forwarder.clone(),
                    tunnels: tunnels.clone(),
                },
            },
        }
        .run(stop.clone()),
    );
    tasks.spawn({
        let artifacts = artifacts.clone();
        Looks::new(&replica, FILES_INTERVAL, &stop)
            // Only a registered artifact matters, and time.
            .only_for(|_| false)
            .run(async move |_, state| {
                collect::sync_files(&artifacts, state).await;
                Outlook::Again
            })
    });
    tasks.spawn(own_certificate::keep_fresh(
        live.clone(),
        authority.clone(),
        record.raft_id,
        record.member.clone(),
        stop.clone(),
    ));
    // Tunnels are open to whom the ingress is.
    let tunnels_at = ingress_at.ip();
    doors.spawn(tunnels::serve(
        tunnels.clone(),
        replica.clone(),
        tunnels_at,
        doors_stop.clone(),
    ));
    let cloudflared = Cloudflared {
        launcher,
        program: args.providers.cloudflared.clone(),
        ingress: ingress_at,
    };
    doors.spawn(cloudflare::serve(
        cloudflared,
        tunnels.standings.clone(),
        replica.clone(),
        doors_stop.clone(),
    ));
    let public = Ingress::new(forwarder.clone());
    if let Some(listener) = sockets.ingress_tls {
        let public = public.clone();
        doors.spawn(public.serve_tls(listener, tunnels.clone(), doors_stop.clone()));
    }
    doors.spawn(public.serve(sockets.ingress, doors_stop.clone()));
    let context = ApiContext {
        replica: replica.clone(),
        artifacts,
        nodes,
        controllers,
        tunnels,
        authority: authority.clone(),
        clients: clients.clone(),
        forwarder,
        audit,
        issuer,
        oidc: args.oidc.connect()?.map(Arc::new),
        stop: doors_stop.clone(),
    };
    tasks.spawn(
        SealedFiles {
            replica: replica.clone(),
            identity,
            keys,
        }
        .follow_keys(stop.clone()),
    );
    tasks.spawn(certificates.clone().keep_fresh(stop.clone()));
    doors.spawn(https::serve(
        sockets.api,
        tls::api_server_config(certificates, &clients),
        api::router(context),
        doors_stop.clone(),
    ));
    tasks.spawn(announce_address(
        replica.clone(),
        record.clone(),
        stop.clone(),
    ));
    tasks.close();
    tracing::info!(
        controller = record.raft_id,
        cluster = record.cluster,
        link = record.member.link,
        api = record.member.api,
        ingress = record.member.ingress,
        ingress_tls = record.member.ingress_tls,
        "controller started"
    );

    let failed = tokio::select! {
        () = cancel.cancelled() => None,
        () = removed(&replica) => {
            tracing::info!(controller = record.raft_id, "this controller is no member any more: stopping for good");
            dir.mark_left()?;
            None
        }
        reason = replica.fatal() => Some(reason),
    };
    doors_stop.cancel();
    doors.close();
    doors.wait().await;
    // While links are served: where two vote, a successor needs this one's vote.
    replica.hand_over().await;
    stop.cancel();
    tasks.wait().await;
    replica.shutdown().await;
    // Its last users are gone with the links; a call that hangs in one must not hold the stop up.
    match tokio::time::timeout(AUDIT_PATIENCE, audit_written).await {
        Ok(written) => written.context("the audit log's writer")?,
        Err(_) => tracing::warn!("the audit log was still in use when this controller stopped"),
    }
    match failed {
        None => Ok(()),
        Some(reason) => bail!("the store has failed, so this controller stops: {reason}"),
    }
}

/// Resolves when this controller was removed from the swarm: by itself, or by somebody else, whether it was
/// there to hear of it or not.
async fn removed(replica: &Replica) {
    tokio::select! {
        () = knows_of_removal(replica) => {}
        () = replica.cast_out() => {}
    }
}

async fn knows_of_removal(replica: &Replica) {
    // Of the members, not of objects.
    let mut touched = replica.touched(|_| false);
    loop {
        if replica.has_removed(replica.id()) {
            // Until then it votes: of two voters, both must agree that one goes.
            return replica.out_of_raft().await;
        }
        if touched.changed().await.is_err() {
            // The replica has ended, which is told otherwise.
            return std::future::pending().await;
        }
    }
}

/// Fresh credentials with the saved key.
pub fn own_credentials(
    identity: &IdentityFiles,
    record: &SelfRecord,
    authority: &CertificateAuthority,
) -> anyhow::Result<Credentials> {
    Ok(own_certificate::issue(
        authority,
        identity.load_device_key()?,
        record.raft_id,
        &record.member,
    )?)
}

fn port_of(endpoint: &str) -> Option<u16> {
    endpoint.rsplit_once(':')?.1.parse().ok()
}

/// Tells the others where this controller listens now, should that have changed.
async fn announce_address(replica: Replica, record: SelfRecord, cancel: CancellationToken) {
    Looks::new(&replica, FILES_INTERVAL, &cancel)
        .only_for(|_| false)
        .run(async move |replica, state| {
            let known = state.controllers().find(|(id, _)| *id == record.raft_id);
            let member = record.member.known_at(state.level());
            if known.is_none_or(|(_, known)| *known == member) {
                return match member == record.member {
                    true => Outlook::Settled,
                    // Until the others can be told the rest.
                    false => Outlook::Again,
                };
            }
            let command = Command::MoveController {
                id: record.raft_id,
                member,
            };
            if let Err(error) = replica.propose(command).await {
                tracing::warn!(%error, "cannot tell the others where this controller listens");
            }
            Outlook::Again
        })
        .await;
}
