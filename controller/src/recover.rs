//! `hive controller recover`: one controller goes on alone after a majority was lost for good.
//!
//! Offline, on the survivor. Its state becomes that of a new Raft with a fresh id and a higher epoch,
//! written beside the old one; the record that names the directory is what switches, in one rename.

use std::io::{self, BufRead, Write};
use std::time::SystemTime;

use anyhow::{Context, bail};

use crate::artifacts::{ArtifactFiles, Digest};
use crate::config::RecoverArgs;
use crate::data_dir::{DataDirectory, SelfRecord};
use crate::objects::timestamp;
use crate::state::State;
use crate::store::offline::{self, Offline};

/// What was done.
pub struct Recovered {
    pub id: u64,
    pub epoch: u64,
    /// Ids that are refused from now on.
    pub former: Vec<u64>,
    /// Where the state from before is kept.
    pub kept: std::path::PathBuf,
}

pub async fn recover(args: &RecoverArgs) -> anyhow::Result<Recovered> {
    let (dir, record) = DataDirectory::open(&args.data.data_dir)?;
    let keys = args.encryption.keys(&args.data.data_dir, &record)?;
    let survivor = offline::read(&dir.raft(), &keys).await?;
    let others = others(&survivor, record.raft_id)?;
    let missing = missing_artifacts(&dir, &survivor.state)?;
    println!("{}", explain(&record, &survivor, &others, missing));
    if !args.yes {
        confirm(&record.cluster)?;
    }
    let (id, state) = survivor.state.begin_anew(record.member.clone());
    let name = format!("raft-{id}");
    offline::found(
        &dir.beside(&name),
        id,
        &record.member,
        survivor.last_index,
        &state,
        &keys,
    )?;
    let kept = dir.raft();
    // From here on it is the new one that starts.
    dir.save(&SelfRecord {
        raft_id: id,
        raft_dir: Some(name),
        encryption_key_file: keys.path(),
        ..record.clone()
    })?;
    let former = survivor.state.controllers().map(|(id, _)| id).collect();
    Ok(Recovered {
        id,
        epoch: state.epoch(),
        former,
        kept,
    })
}

/// The other voters, with where they were.
fn others(survivor: &Offline, own: u64) -> anyhow::Result<Vec<(u64, String)>> {
    if !survivor.members.get(&own).is_some_and(|(_, votes)| *votes) {
        bail!(
            "controller {own} was no voter of the swarm when it ran last, so it may lack anything: recover \
             on one that was, or restore a backup (`hive controller restore`)"
        );
    }
    let others: Vec<(u64, String)> = survivor
        .members
        .iter()
        .filter(|(id, (_, votes))| **id != own && *votes)
        .map(|(id, (member, _))| (*id, member.link.clone()))
        .collect();
    if others.is_empty() {
        bail!(
            "controller {own} is the only voter of its swarm: there is nothing to recover. Start it with \
             `hive controller run`"
        );
    }
    Ok(others)
}

fn missing_artifacts(dir: &DataDirectory, state: &State) -> anyhow::Result<usize> {
    let files = ArtifactFiles::open(&dir.artifacts())
        .with_context(|| format!("cannot open {}", dir.artifacts().display()))?;
    let held = |hex: &String| {
        let digest: Result<Digest, _> = hex.parse();
        digest.is_ok_and(|digest| files.size(&digest).is_some())
    };
    Ok(state.artifacts().filter(|(hex, _)| !held(hex)).count())
}

fn explain(
    record: &SelfRecord,
    survivor: &Offline,
    others: &[(u64, String)],
    missing: usize,
) -> String {
    let named: Vec<String> = others
        .iter()
        .map(|(id, link)| format!("controller {id} ({link})"))
        .collect();
    let written = survivor
        .written
        .map_or_else(|| "unknown".to_owned(), timestamp);
    let mut text = format!(
        "This makes controller {own} of swarm {cluster:?} go on alone, without {others}.\n\
         \n\
         It holds entries up to {last} (term {term}); it knows that those up to {committed} were agreed on, and\n\
         takes the others for agreed on, too. It last wrote to its log at {written} (now: {now}).\n\
         What may be lost: every change that only the others acknowledged, since then or shortly before.\n\
         What follows: the swarm begins epoch {epoch}. Agents accept this controller although it seems older,\n\
         and refuse those of the epoch before. The ids of the other controllers are refused for ever.\n\
         \n\
         Do this only if the others are lost for good. Should they come back they could still elect a leader\n\
         among themselves, and whoever talks to them sees a swarm that is no more: stop them, and remove their\n\
         data directories before they join anew.",
        own = record.raft_id,
        cluster = record.cluster,
        others = named.join(" and "),
        last = survivor.last_index,
        term = survivor.last_term,
        committed = survivor.committed,
        now = timestamp(SystemTime::now()),
        epoch = survivor.state.epoch() + 1,
    );
    if missing > 0 {
        text.push_str(&format!(
            "\n\n{missing} artifacts are not on this controller: functions that use them go on where they run, and \
             need `hivectl apply` again before they can start elsewhere."
        ));
    }
    text
}

/// The name of the swarm, typed: nobody does this by accident.
fn confirm(cluster: &str) -> anyhow::Result<()> {
    print!("\nType the name of the swarm to go on: ");
    io::stdout().flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() != cluster {
        bail!("nothing was changed (scripts confirm with --yes)");
    }
    Ok(())
}
