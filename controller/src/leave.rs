//! `hive controller leave`: a controller gives up its place for good.
//!
//! It asks for its own removal with its own certificate: through the process that runs here, or,
//! where none does, through another controller. Whoever leads says no where a majority would be lost.

use std::time::Duration;

use anyhow::{Context, bail};
use hive_identity::{ExpectedController, LiveCredentials, tls};
use hive_proto::grpc;
use hive_proto::link::{LinkSettings, dial};
use hive_proto::v1::RemoveControllerRequest;
use hive_proto::v1::peers_client::PeersClient;
use tonic::Code;

use crate::config::LeaveArgs;
use crate::data_dir::{DataDirectory, SelfRecord};
use crate::identity_files::IdentityFiles;
use crate::run::own_credentials;
use crate::store::{StartError, offline};

/// For the hand-over, the removal and its commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// For the process that ran here to finish the requests it has, and to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_POLL: Duration = Duration::from_millis(100);

/// Ends this machine's membership; its id.
pub async fn leave(args: &LeaveArgs) -> anyhow::Result<u64> {
    let (dir, record) = DataDirectory::open(&args.data.data_dir)?;
    let keys = args.encryption.keys(&args.data.data_dir, &record)?;
    let identity = IdentityFiles::new(dir.identity(), keys.clone());
    let authority = identity.load_authority()?;
    let live = LiveCredentials::new(own_credentials(&identity, &record, &authority)?);
    match offline::read(&dir.raft(), &keys).await {
        // It runs: it asks for itself, stops, and marks the directory.
        Err(StartError::Directory(crate::store::DirectoryError::Locked { .. })) => {
            let asked = ask(&live, &record.member.link, &record).await;
            if let Err(Refused::Said(why)) = asked {
                bail!("{why}");
            }
            // Its answer may have been lost with its link. Whether it left is in its directory.
            if !stopped(&dir).await {
                let why = match asked {
                    Err(Refused::Silent(error)) => format!(": {error:#}"),
                    _ => String::new(),
                };
                bail!(
                    "controller {} is still a member, or did not stop within {} s{why}",
                    record.raft_id,
                    STOP_TIMEOUT.as_secs()
                );
            }
        }
        Err(error) => return Err(error.into()),
        Ok(stopped) => {
            let others: Vec<String> = stopped
                .state
                .controllers()
                .filter(|(id, _)| *id != record.raft_id)
                .map(|(_, member)| member.link.clone())
                .collect();
            drop(stopped);
            ask_others(&live, &others, &record).await?;
            dir.mark_left()?;
        }
    }
    Ok(record.raft_id)
}

async fn ask_others(
    live: &LiveCredentials,
    others: &[String],
    record: &SelfRecord,
) -> anyhow::Result<()> {
    if others.is_empty() {
        bail!(
            "controller {} is the last one: the swarm's state would go with it",
            record.raft_id
        );
    }
    let mut last = None;
    for link in others {
        match ask(live, link, record).await {
            Ok(()) => return Ok(()),
            Err(Refused::Said(why)) => bail!("{why}"),
            Err(Refused::Silent(error)) => last = Some(error),
        }
    }
    Err(last
        .unwrap_or_else(|| anyhow::anyhow!("nobody answered"))
        .context("no other controller could be asked"))
}

enum Refused {
    /// It is a member still.
    Said(String),
    /// Whether it is, is unknown.
    Silent(anyhow::Error),
}

async fn ask(live: &LiveCredentials, link: &str, record: &SelfRecord) -> Result<(), Refused> {
    let config = tls::link_client_config(live, ExpectedController::Any);
    let dialled = dial(link, config, &LinkSettings::default())
        .await
        .with_context(|| format!("cannot reach {link}"))
        .map_err(Refused::Silent)?;
    let mut client = PeersClient::new(grpc::channel(dialled.clone()));
    let request = RemoveControllerRequest {
        raft_id: record.raft_id,
        force: false,
        pass_on: true,
    };
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, client.remove_controller(request)).await;
    dialled.close("asked");
    match answered {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => match status.code() {
            Code::Aborted => Err(Refused::Said(status.message().to_owned())),
            // An earlier attempt was heard.
            Code::NotFound | Code::PermissionDenied => Ok(()),
            _ => Err(Refused::Silent(anyhow::anyhow!(
                "{link}: {}",
                status.message()
            ))),
        },
        Err(_) => Err(Refused::Silent(anyhow::anyhow!("{link} did not answer"))),
    }
}

/// Waits until the process that ran here has marked the directory and let go of it.
async fn stopped(dir: &DataDirectory) -> bool {
    let gone = async {
        while !dir.has_left() || offline::is_locked(&dir.raft()) {
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    tokio::time::timeout(STOP_TIMEOUT, gone).await.is_ok()
}
