//! The log of a function: the lines of all its assignments, from their nodes, as one text stream.
//!
//! What is there already is merged by time; while following, lines come in the order of arrival.
//! Nothing is collected: at most one line a node waits to be merged.

mod follow;
mod places;

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
use hive_proto::invoke::LONGEST_REQUEST_ID;
use hive_proto::v1::{LogLine, LogRequest};
use http::{HeaderValue, Method, StatusCode, header};

use super::errors::{ApiError, error_chain};
use super::path::ObjectPath;
use super::query::LogOptions;
use super::{Api, Call};
use crate::gateway::{NodeUnreachable, Nodes};
use crate::state::Key;
use follow::Follow;
use places::{former_nodes_of, nodes_of};

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
    let request = request(&key, &options)?;
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
        let former = former_nodes_of(&state, &key);
        let nodes = nodes_of(&state, &key);
        let (sources, left) = tokio::join!(
            open(&context.nodes, &nodes, &request),
            open_former(&context.nodes, &former, &request),
        );
        let mut sources = sources?;
        sources.extend(left);
        merge_by_time(sources).boxed()
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

fn request(function: &Key, options: &LogOptions) -> Result<LogRequest, ApiError> {
    let refuse = |why: &str| Err(ApiError::BadRequest(why.to_owned()));
    if options.previous && options.follow {
        return refuse("previous: a version that runs no more says nothing that could be followed");
    }
    if options.since_seconds.is_some() && options.since_time.is_some() {
        return refuse("at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    let request_id = options.request_id.clone().unwrap_or_default();
    if request_id.len() > LONGEST_REQUEST_ID {
        return refuse("requestId: the id of a request has 128 bytes at most");
    }
    let since_unix_ms = match (options.tail_lines, options.since_seconds) {
        // The protocol's 0 lines are all lines, a person's are none: only what comes.
        (Some(0), _) => unix_ms(),
        (_, Some(seconds)) => unix_ms().saturating_sub(seconds.saturating_mul(1000)),
        (_, None) => options
            .since_time
            .and_then(|time| u64::try_from(time.as_millisecond()).ok())
            .unwrap_or(0),
    };
    Ok(LogRequest {
        namespace: function.namespace.clone(),
        function: function.name.clone(),
        tail: options.tail_lines.unwrap_or(0),
        follow: options.follow,
        since_unix_ms,
        request_id,
        previous: options.previous,
        ..Default::default()
    })
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
    let lines = tokio::time::timeout(ASK_TIMEOUT, nodes.logs(node, request.clone()))
        .await
        .map_err(|_| AskError::TimedOut(node.to_owned()))??;
    Ok(readable(node.to_owned(), request, lines))
}

/// A stream a node. A node that can't be asked is a line that says so, unless none can.
async fn open(
    nodes: &Nodes,
    names: &BTreeSet<String>,
    request: &LogRequest,
) -> Result<Vec<BoxStream<'static, LogLine>>, ApiError> {
    let asked = names
        .iter()
        .map(|node| async move { (node, ask(nodes, node, request.clone()).await) });
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

/// Of nodes that the function left. They owe nothing: one that can't be asked is passed over.
async fn open_former(
    nodes: &Nodes,
    names: &BTreeSet<String>,
    request: &LogRequest,
) -> Vec<BoxStream<'static, LogLine>> {
    let request = LogRequest {
        follow: false,
        ..request.clone()
    };
    let asked = names.iter().map(|node| ask(nodes, node, request.clone()));
    let answers = futures::future::join_all(asked).await;
    let lines = answers.into_iter().filter_map(Result::ok);
    lines.map(StreamExt::boxed).collect()
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Lines until the node's stream ends; that it broke is the last line. An agent of an older version
/// sends more than it was asked for.
fn readable<E: std::error::Error + Send + 'static>(
    node: String,
    request: LogRequest,
    lines: impl Stream<Item = Result<LogLine, E>> + Send + 'static,
) -> impl Stream<Item = LogLine> + Send + 'static {
    let LogRequest {
        previous,
        request_id,
        ..
    } = request;
    let mut broken = false;
    lines
        .map(move |line| match line {
            // It does not number lines, nor tell versions apart.
            Ok(line) if previous && line.sequence == 0 => note(
                &node,
                "its agent is of an older version, which keeps nothing of the version before",
            ),
            Ok(line) => line,
            Err(error) => note(&node, &error_chain(&error)),
        })
        .filter(move |line| {
            let is_asked_for = ["", &line.request_id, &line.trace_id].contains(&&*request_id);
            std::future::ready(line.stream == NOTE || is_asked_for)
        })
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
    match (line.level.as_str(), line.context.as_str()) {
        ("", _) => {}
        (level, "") => _ = write!(text, "{level}: "),
        (level, context) => _ = write!(text, "{level} {context}: "),
    }
    text.push_str(line.text.trim_end_matches('\n'));
    // What went wrong is looked for by the id that its caller was given.
    if (line.stream == "hive" || options.request_ids) && !line.request_id.is_empty() {
        let _ = match &*line.trace_id {
            "" => write!(text, " (request {})", line.request_id),
            trace => write!(text, " (request {}, trace {trace})", line.request_id),
        };
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

    #[test]
    fn what_was_said_with_a_level_shows_it() {
        let shown = |level: &str, context: &str| {
            let line = LogLine {
                stream: "log".into(),
                level: level.into(),
                context: context.into(),
                ..line(1, "connected")
            };
            format_line(&line, &LogOptions::default())
        };
        assert_eq!(shown("info", "db"), "info db: connected\n");
        assert_eq!(shown("warn", ""), "warn: connected\n");
        assert_eq!(shown("", ""), "connected\n");
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
        let texts: Vec<String> = readable("pi".into(), LogRequest::default(), lines)
            .map(|line| line.text)
            .collect()
            .await;
        assert_eq!(
            texts,
            ["a", "[hive] the log of node pi is incomplete: reset"]
        );
    }

    #[tokio::test]
    async fn an_older_agent_that_sends_everything_is_cut_down_to_what_was_asked_for() {
        let of = |id: &str, trace: &str, text: &str| LogLine {
            request_id: id.into(),
            trace_id: trace.into(),
            ..line(1, text)
        };
        let read = async |request| {
            let lines = [of("x", "", "a"), of("y", "t", "b"), of("x", "", "c")];
            let lines = lines.map(Ok::<_, std::io::Error>);
            let texts = readable("pi".into(), request, stream::iter(lines));
            texts.map(|line| line.text).collect::<Vec<_>>().await
        };
        let of_one = |id: &str| LogRequest {
            request_id: id.into(),
            ..Default::default()
        };
        assert_eq!(read(of_one("x")).await, ["a", "c"]);
        assert_eq!(read(of_one("t")).await, ["b"]);
        let previous = LogRequest {
            previous: true,
            ..Default::default()
        };
        let texts = read(previous).await;
        assert_eq!(texts.len(), 1);
        assert!(texts[0].contains("older version"), "{texts:?}");
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        use hive_manifests::Resource;

        let time: jiff::Timestamp = "1970-01-01T00:00:02.5Z".parse().unwrap();
        let key = Key::new(Resource::Function, "default", "hello");
        let refused = |options: LogOptions| request(&key, &options).unwrap_err().to_string();
        assert!(
            refused(LogOptions {
                previous: true,
                follow: true,
                ..LogOptions::default()
            })
            .starts_with("previous: ")
        );
        assert!(
            refused(LogOptions {
                since_seconds: Some(1),
                since_time: Some(time),
                ..LogOptions::default()
            })
            .contains("at most one of `sinceTime` or `sinceSeconds`")
        );
        assert!(
            refused(LogOptions {
                request_id: Some("x".repeat(LONGEST_REQUEST_ID + 1)),
                ..LogOptions::default()
            })
            .starts_with("requestId: ")
        );
        let options = LogOptions {
            since_time: Some(time),
            ..LogOptions::default()
        };
        assert_eq!(request(&key, &options).unwrap().since_unix_ms, 2500);
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
        let of_a_request = LogLine {
            request_id: "x".into(),
            ..line(0, "hi")
        };
        let options = LogOptions {
            request_ids: true,
            ..LogOptions::default()
        };
        assert_eq!(format_line(&of_a_request, &options), "hi (request x)\n");
        let of_a_trace = LogLine {
            trace_id: "t".into(),
            ..of_a_request.clone()
        };
        let shown = format_line(&of_a_trace, &options);
        assert_eq!(shown, "hi (request x, trace t)\n");
        assert_eq!(format_line(&of_a_request, &LogOptions::default()), "hi\n");
    }
}
