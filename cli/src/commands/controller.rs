//! `hivectl controller`: who keeps the swarm's state, and putting another in one's place.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use hive_manifests::GROUP;
use hive_manifests::duration::GoDuration;
use http::Method;
use serde_json::Value;

use crate::cluster::{AS_TABLE, Call, Cluster, path};
use crate::commands::token;
use crate::failure::Failure;
use crate::object;
use crate::output::{self, Format, items};
use crate::session::Session;
use crate::table::{self, Columns, TableStyle};

/// Between two looks at who votes: somebody is setting up a machine meanwhile.
const POLL: Duration = Duration::from_secs(1);

/// Longer than the wait for the new controller, should somebody go on later by hand.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Args)]
pub struct Controller {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the controllers: who leads, who lags, who is gone
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  hivectl controller list
  hivectl controller list -o wide
  hivectl controller list -o json"
    )]
    List(List),
    /// Put a new controller in the place of one: first added, then the old one removed
    #[command(after_help = "Examples:
  hivectl controller replace 2")]
    Replace(Replace),
    /// End a controller's membership
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  hivectl controller remove 3

A controller that runs stops by itself. `hive controller leave` does the same on its own machine."
    )]
    Remove(Remove),
}

#[derive(Debug, Args)]
struct List {
    /// json, yaml, name, wide, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,…
    #[arg(
        short,
        long,
        value_name = "FORM",
        default_value = "",
        hide_default_value = true
    )]
    output: Format,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
struct Replace {
    /// The number that `controller list` shows
    id: u64,

    /// How long to wait for the new one
    #[arg(long, default_value = "30m", value_name = "DURATION")]
    timeout: GoDuration,
}

#[derive(Debug, Args)]
struct Remove {
    /// The number that `controller list` shows
    id: u64,

    /// Even if those that are left and up are no majority: the swarm may stop taking writes
    #[arg(long)]
    force: bool,
}

pub async fn run(controller: Controller, session: &mut Session<'_>) -> Result<(), Failure> {
    match controller.command {
        Command::List(list) => show(list, session).await,
        Command::Replace(replace) => put_in_place(replace, session).await,
        Command::Remove(Remove { id, force }) => {
            let cluster = session.cluster().await?;
            remove(&cluster, id, force).await?;
            session
                .world
                .line(format_args!("controller {id} removed"))?;
            Ok(())
        }
    }
}

fn collection() -> String {
    format!("/apis/{GROUP}/v1/controllers")
}

async fn show(list: List, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let path = collection();
    let Format::Table { wide } = list.output else {
        let found = cluster.json(&Call::get(&path)).await?;
        let text = list.output.render(
            &output::list(items(&found).into_iter().cloned().collect()),
            !list.no_headers,
        )?;
        session.world.text(text)?;
        return Ok(());
    };
    let path = path::with_query(&path, [("includeObject", "Object")]);
    let table = cluster.json(&Call::get(&path).accept(AS_TABLE)).await?;
    let style = TableStyle {
        wide,
        ..TableStyle::default()
    };
    let mut lines = table::rows(&table, &table, style);
    if !list.no_headers {
        lines.insert(0, table::headers(&table, style));
    }
    session.world.text(Columns::default().lay_out(&lines))?;
    let rows = table["rows"].as_array().into_iter().flatten();
    let statuses: Vec<&Value> = rows.map(|row| &row["object"]["status"]).collect();
    if !statuses.iter().any(|status| status["leader"] == true) {
        let answer = |status: &&&Value| status["state"] == "Leaderless";
        session.world.warn(format_args!(
            "no leader is known: {} of {} controllers answer",
            statuses.iter().filter(answer).count(),
            statuses.len()
        ))?;
    }
    Ok(())
}

async fn remove(cluster: &Cluster, id: u64, force: bool) -> Result<(), Failure> {
    let path = path::with_query(
        &format!("{}/{id}", collection()),
        force.then_some(("force", "true")),
    );
    cluster.json(&Call::new(Method::DELETE, &path)).await?;
    Ok(())
}

/// Adds before it removes: at no moment are there fewer voters than before.
async fn put_in_place(replace: Replace, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let before = cluster.json(&Call::get(&collection())).await?;
    let old = replace.id.to_string();
    let known: BTreeSet<&str> = items(&before).into_iter().map(object::name).collect();
    if !known.contains(old.as_str()) {
        let known: Vec<&str> = known.into_iter().collect();
        return Err(Failure::new(format_args!(
            "there is no controller {old}; there are {}",
            known.join(", ")
        )));
    }
    // Its own address is of no use to the newcomer when it is dead.
    let others: Vec<&str> = items(&before)
        .into_iter()
        .filter(|controller| object::name(controller) != old)
        .filter_map(|controller| controller["spec"]["link"].as_str())
        .collect();
    let links = match others.as_slice() {
        [] => items(&before)
            .into_iter()
            .filter_map(|controller| controller["spec"]["link"].as_str())
            .collect::<Vec<_>>()
            .join(","),
        others => others.join(","),
    };
    let token = token::controller_join(TOKEN_LIFETIME, session).await?;
    session.world.line("Run this on the new machine:")?;
    session.world.line(format_args!(
        "  HIVE_TOKEN={token} hive controller join --controllers {links} --advertise ITS-ADDRESS"
    ))?;
    session.world.line("  hive controller run")?;
    session.world.note(format_args!(
        "Waiting for it to vote; controller {old} is removed then. Ctrl-C changes nothing: the new one stays, and so does the old."
    ))?;
    let new = joined(&cluster, &known, replace.timeout.0).await?;
    session.world.line(format_args!("controller {new} votes"))?;
    remove(&cluster, replace.id, false).await?;
    session.world.line(format_args!(
        "controller {old} removed: controller {new} has its place"
    ))?;
    Ok(())
}

/// Waits for a controller that was not there before to vote and to be well; its id.
async fn joined(
    cluster: &Cluster,
    before: &BTreeSet<&str>,
    patience: Duration,
) -> Result<String, Failure> {
    let began = Instant::now();
    loop {
        let list = cluster.json(&Call::get(&collection())).await?;
        let votes = |controller: &&Value| {
            controller["status"]["voter"] == true
                && controller["status"]["state"] == "Ready"
                && !before.contains(object::name(controller))
        };
        if let Some(found) = items(&list).into_iter().find(votes) {
            return Ok(object::name(found).to_owned());
        }
        if began.elapsed() > patience {
            return Err(Failure::new(format_args!(
                "no new controller votes after {}; nothing was removed",
                GoDuration(patience)
            ))
            .hint("once it does (`hivectl controller list`), `hivectl controller remove ID` removes the old one"));
        }
        tokio::time::sleep(POLL).await;
    }
}
