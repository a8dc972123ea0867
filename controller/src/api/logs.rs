//! The log of a function: the lines of all its assignments, from their nodes, as one text stream.
//!
//! What is there already is merged by time; while following, lines come in the order of arrival.
//! Nothing is collected: at most one line a node waits to be merged.

mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream, Peekable};
use futures::{Stream, StreamExt};
use hive_manifests::Resource;
use hive_proto::v1::{LogLine, LogRequest};
use http::{HeaderValue, Method, StatusCode, header};

use super::errors::{ApiError, error_chain};
use super::path::ObjectPath;
use super::query::LogOptions;
use super::{Api, Call};
use crate::gateway::{NodeUnreachable, Nodes};
use crate::state::{Key, State};
use follow::Follow;

/// How long a node may take to begin its answer; a link that hangs must not hold up the others.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    context: &Api,
    path: ObjectPath,
    call: Call,
) -> Result<Response, ApiError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed);
    }
    let permit = context.permits.stream()?;
    let key = path.key().ok_or(ApiError::NoSuchPath)?;
    let state = context.newest().await?;
    if state.get(&key).is_none() {
        return Err(ApiError::not_found(&key));
    }
    let options = call.query.log.clone();
    let request = request(&key, &options);
    let lines: BoxStream<'static, LogLine> = if options.follow {
        let follow = Follow::new(context, call.user, key, request);
        stream::unfold(follow, |mut follow| async move {
            let line = follow.next().await?;
            Some((line, follow))
        })
        .boxed()
    } else if options.tail_lines == Some(0) {
        stream::empty().boxed()
    } else {
        let nodes = nodes_of(&state, &key);
        merge_by_time(open(context, &nodes, &request).await?).boxed()
    };
    let text = lines.map(move |line| {
        // Owned by the stream: counted as long as it is read.
        let _counted = &permit;
        Ok::<_, Infallible>(Bytes::from(format_line(&line, &options)))
    });
    let mut response = Response::new(Body::from_stream(text));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

fn request(function: &Key, options: &LogOptions) -> LogRequest {
    let since_unix_ms = match (options.since_seconds, options.tail_lines) {
        // The protocol's 0 lines are all lines, a person's are none: only what comes.
        (_, Some(0)) => unix_ms(),
        (Some(seconds), _) => unix_ms().saturating_sub(seconds.saturating_mul(1000)),
        (None, _) => 0,
    };
    LogRequest {
        namespace: function.namespace.clone(),
        function: function.name.clone(),
        tail: options.tail_lines.unwrap_or(0),
        follow: options.follow,
        since_unix_ms,
        ..Default::default()
    }
}

/// The nodes to which a function is assigned.
fn nodes_of(state: &State, function: &Key) -> BTreeSet<String> {
    state
        .list(Resource::Assignment, Some(&function.namespace))
        .map(|assignment| &assignment.body()["spec"])
        .filter(|spec| spec["functionName"] == function.name.as_str())
        .filter_map(|spec| spec["nodeName"].as_str())
        .map(str::to_owned)
        .collect()
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Unreachable(#[from] NodeUnreachable),
    #[error("node {0:?} did not answer in time")]
    TimedOut(String),
}

/// The lines of one node.
async fn ask(
    nodes: &Nodes,
    node: &str,
    request: LogRequest,
) -> Result<impl Stream<Item = LogLine> + Send + use<>, AskError> {
    let lines = tokio::time::timeout(ASK_TIMEOUT, nodes.logs(node, request))
        .await
        .map_err(|_| AskError::TimedOut(node.to_owned()))??;
    Ok(readable(node.to_owned(), lines))
}

/// A stream a node. A node that can't be asked is a line that says so, unless none can.
async fn open(
    context: &Api,
    nodes: &BTreeSet<String>,
    request: &LogRequest,
) -> Result<Vec<BoxStream<'static, LogLine>>, ApiError> {
    let asked = nodes
        .iter()
        .map(|node| async move { (node, ask(&context.nodes, node, request.clone()).await) });
    let mut sources: Vec<BoxStream<'static, LogLine>> = Vec::new();
    let mut unreachable = BTreeMap::new();
    for (node, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(lines) => sources.push(lines.boxed()),
            Err(error) => {
                unreachable.insert(node.clone(), error_chain(&error));
            }
        }
    }
    if sources.is_empty() && !unreachable.is_empty() {
        let each: Vec<String> = unreachable.into_values().collect();
        return Err(ApiError::Unavailable(format!(
            "no node that runs the function can be asked for its log: {}",
            each.join("; ")
        )));
    }
    for (node, error) in unreachable {
        sources.push(stream::iter([note(&node, &error)]).boxed());
    }
    Ok(sources)
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Lines until the node's stream ends; that it broke is the last line.
fn readable<E: std::error::Error + Send + 'static>(
    node: String,
    lines: impl Stream<Item = Result<LogLine, E>> + Send + 'static,
) -> impl Stream<Item = LogLine> + Send + 'static {
    let mut broken = false;
    lines
        .map(move |line| line.unwrap_or_else(|error| note(&node, &error_chain(&error))))
        .take_while(move |line| {
            let was_broken = broken;
            broken = line.stream == NOTE;
            std::future::ready(!was_broken)
        })
}

/// The stream name of what a controller itself has to say in a log.
const NOTE: &str = "controller";

fn note(node: &str, problem: &str) -> LogLine {
    LogLine {
        time_unix_ms: unix_ms(),
        assignment: node.to_owned(),
        stream: NOTE.to_owned(),
        text: format!("[hive] the log of node {node} is incomplete: {problem}"),
        ..Default::default()
    }
}

/// Merges streams that are each in order of time.
fn merge_by_time(
    sources: Vec<BoxStream<'static, LogLine>>,
) -> impl Stream<Item = LogLine> + Send + 'static {
    let sources: Vec<Peekable<BoxStream<'static, LogLine>>> =
        sources.into_iter().map(StreamExt::peekable).collect();
    stream::unfold(sources, |mut sources| async move {
        let mut earliest: Option<(usize, u64)> = None;
        for (index, source) in sources.iter_mut().enumerate() {
            if let Some(line) = Pin::new(source).peek().await
                && earliest.is_none_or(|(_, time)| line.time_unix_ms < time)
            {
                earliest = Some((index, line.time_unix_ms));
            }
        }
        let (index, _) = earliest?;
        let line = sources[index].next().await?;
        Some((line, sources))
    })
}

fn format_line(line: &LogLine, options: &LogOptions) -> String {
    let mut text = String::with_capacity(line.text.len() + 64);
    if options.prefix {
        let _ = write!(text, "[{}/{}] ", line.assignment, line.stream);
    }
    if options.timestamps {
        let time = i64::try_from(line.time_unix_ms)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default();
        let _ = write!(text, "{} ", time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"));
    }
    text.push_str(line.text.trim_end_matches('\n'));
    // What went wrong is looked for by the id that its caller was given.
    if line.stream == "hive" && !line.request_id.is_empty() {
        let _ = write!(text, " (request {})", line.request_id);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(time_unix_ms: u64, text: &str) -> LogLine {
        LogLine {
            time_unix_ms,
            assignment: "hello-0".into(),
            stream: "stdout".into(),
            text: text.into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn lines_of_several_nodes_come_in_order_of_time() {
        let sources = vec![
            stream::iter([line(1, "a"), line(4, "d")]).boxed(),
            stream::iter([line(2, "b"), line(3, "c"), line(5, "e")]).boxed(),
            stream::empty().boxed(),
        ];
        let merged: Vec<String> = merge_by_time(sources).map(|line| line.text).collect().await;
        assert_eq!(merged.concat(), "abcde");
    }

    #[tokio::test]
    async fn a_stream_that_breaks_ends_with_a_line_that_says_so() {
        let lines = stream::iter([
            Ok(line(1, "a")),
            Err(std::io::Error::other("reset")),
            Ok(line(2, "never")),
        ]);
        let texts: Vec<String> = readable("pi".into(), lines)
            .map(|line| line.text)
            .collect()
            .await;
        assert_eq!(
            texts,
            ["a", "[hive] the log of node pi is incomplete: reset"]
        );
    }

    #[test]
    fn a_line_is_shown_as_asked() {
        let options = LogOptions {
            prefix: true,
            timestamps: true,
            ..LogOptions::default()
        };
        assert_eq!(
            format_line(&line(1_500, "hi\n"), &options),
            "[hello-0/stdout] 1970-01-01T00:00:01.500Z hi\n"
        );
        assert_eq!(format_line(&line(0, "hi"), &LogOptions::default()), "hi\n");
    }
}
