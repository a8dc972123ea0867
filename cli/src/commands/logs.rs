//! `hivectl logs`: what a function writes, from all the nodes it runs on.

use clap::Args;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use http_body_util::BodyExt;
use jiff::Timestamp;

use crate::cluster::{Call, path};
use crate::commands::lookup;
use crate::failure::Failure;
use crate::selection;
use crate::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl logs hello
  hivectl logs -f function/hello --prefix        follow, each line with its copy
  hivectl logs hello --tail=20 --timestamps
  hivectl logs hello --since=10m
  hivectl logs -p hello                          what the version before said last
  hivectl logs hello --request-id 5f0c7a01e2b3d4c5-1a
  hivectl logs hello --request-id 4bf92f3577b34da6a3ce929d0e0e4736   by the id of its trace

Lines are in the memory of the nodes, the last thousand of each function on a node; those of the version
before are fewer. They are gone when the agent of the node starts anew. On a node that the function
left they are kept for 15 minutes.")]
pub struct Logs {
    /// FUNCTION, or function/NAME
    #[arg(value_name = "FUNCTION", required = true)]
    words: Vec<String>,

    /// Go on printing as lines are written
    #[arg(short, long)]
    follow: bool,

    /// Only the last so many lines; -1 for all
    #[arg(
        long,
        value_name = "LINES",
        allow_negative_numbers = true,
        default_value = "-1",
        hide_default_value = true
    )]
    tail: i64,

    /// Only lines newer than this, such as 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<GoDuration>,

    /// Only lines from this time on, such as 2026-01-31T18:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<Timestamp>,

    /// What the version before the one that runs said, on each node
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,

    /// Only what was said in the request with this id (answers name it in x-request-id), or in the
    /// requests of the trace with this id (as in their traceparent)
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Put the id of its request after each line, and that of the trace if it was of one
    #[arg(long)]
    request_ids: bool,

    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,

    /// Put the assignment and the stream before each line, as in [hello.0/stdout]
    #[arg(long)]
    prefix: bool,
}

pub async fn run(logs: Logs, session: &mut Session<'_>) -> Result<(), Failure> {
    let (resource, name) = selection::single(&logs.words, Resource::Function)?;
    if resource != Resource::Function {
        return Err(Failure::usage(format!(
            "{} have no log; functions have",
            resource.plural()
        )));
    }
    let cluster = session.cluster().await?;
    let namespace = session.namespace().await?;
    let tail = logs.tail.to_string();
    // A part of a second is rounded up: none of the lines asked for may be missing.
    let since = logs
        .since
        .map(|since| since.0.as_millis().div_ceil(1000).max(1).to_string());
    let mut query: Vec<(&str, &str)> = Vec::new();
    let flags = [
        ("follow", logs.follow),
        ("previous", logs.previous),
        ("timestamps", logs.timestamps),
        ("prefix", logs.prefix),
        ("requestIds", logs.request_ids),
    ];
    query.extend(
        flags
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| (*name, "true")),
    );
    if logs.tail >= 0 {
        query.push(("tailLines", &tail));
    }
    if let Some(since) = &since {
        query.push(("sinceSeconds", since));
    }
    let since_time = logs.since_time.map(|time| time.to_string());
    if let Some(since_time) = &since_time {
        query.push(("sinceTime", since_time));
    }
    if let Some(request_id) = &logs.request_id {
        query.push(("requestId", request_id));
    }
    let object = path::object(resource, Some(&namespace), &name);
    let path = path::with_query(&format!("{object}/log"), query);
    let response = match cluster
        .stream(&Call::get(&path).accept("text/plain, */*").unbounded())
        .await
    {
        Ok(response) => response,
        Err(error) => {
            return Err(
                lookup::not_found(&cluster, resource, Some(&namespace), &name, error).await,
            );
        }
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::new(format_args!(
                "the log was cut off: {}",
                crate::failure::chain(&error)
            ))
            .hint("the controller or the node went away; run it again to go on, with --since to skip what you have")
        })?;
        if let Ok(data) = frame.into_data() {
            session.world.out.write_all(&data)?;
            session.world.out.flush()?;
        }
    }
    Ok(())
}
