//! Whether this controller is well: `/livez`, `/readyz`, and each check by its name.
//!
//! Anybody may ask, so that load balancers can. Answers are Kubernetes': `ok`, or a line a check
//! where one fails or `?verbose` asks for it. What costs the others something is asked once a second.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::Api;
use super::errors::ApiError;

/// Log entries that a ready controller may be behind. Under load some always are under way; one that
/// has just come back is tens of thousands behind.
const READY_LAG: u64 = 1000;

/// The leader answers within milliseconds. Who waits for this page waits for somebody else to serve.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);

/// How long what the leader answered counts: anybody may ask, and each answer costs a round among
/// the controllers.
const LEADER_FRESH: Duration = Duration::from_secs(1);

/// Which page is asked for; they differ in their checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Whether to leave it running; what heals by itself is no reason to restart it.
    Live,
    /// Whether to send it requests.
    Ready,
}

impl Page {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Self::Live => &[Check::Ping, Check::LogDisk],
            Self::Ready => &[
                Check::Ping,
                Check::LogDisk,
                Check::Artifacts,
                Check::RaftApplied,
                Check::RaftLeader,
                Check::Shutdown,
            ],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// It answers.
    Ping,
    /// The last sync of the Raft log was well.
    LogDisk,
    /// The directory of artifacts can be read.
    Artifacts,
    /// It is not behind the others.
    RaftApplied,
    /// There is a leader, and it answers.
    RaftLeader,
    /// It is not about to stop.
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::LogDisk => "log-disk",
            Self::Artifacts => "artifacts",
            Self::RaftApplied => "raft-applied",
            Self::RaftLeader => "raft-leader",
            Self::Shutdown => "shutdown",
        }
    }

    async fn run(self, context: &Api) -> Result<(), String> {
        match self {
            Self::Ping => Ok(()),
            Self::LogDisk => match context.replica.failure() {
                None => Ok(()),
                Some(_) => Err("the store has failed; this controller's log says why".into()),
            },
            Self::Artifacts => context
                .artifacts
                .files()
                .check()
                .map_err(|error| format!("the artifacts cannot be read: {}", error.kind())),
            Self::RaftApplied => applied(context),
            Self::RaftLeader => context.leader.answers(context).await,
            Self::Shutdown => match context.stop.is_cancelled() {
                true => Err("stopping".into()),
                false => Ok(()),
            },
        }
    }
}

/// A controller that has just joined hears who leads before it hears of anything that was committed;
/// until its own admission arrives its state is that of no swarm.
fn applied(context: &Api) -> Result<(), String> {
    let own = context.replica.id();
    let state = context.replica.state();
    if !state.controllers().any(|(id, _)| id == own) {
        return Err("catching up: the state of the swarm has not arrived yet".into());
    }
    let health = context.replica.health();
    if health.applied + READY_LAG < health.committed {
        return Err(format!(
            "catching up: {} of {} log entries applied",
            health.applied, health.committed
        ));
    }
    Ok(())
}

/// What the leader last answered.
#[derive(Default)]
pub(super) struct LeaderCheck {
    /// Held while it is asked: who asks meanwhile waits for the same answer.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

impl LeaderCheck {
    async fn answers(&self, context: &Api) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((asked, result)) = &*last
            && asked.elapsed() < LEADER_FRESH
        {
            return result.clone();
        }
        let barrier = tokio::time::timeout(LEADER_PATIENCE, context.replica.read_barrier());
        let result = match (context.replica.health().leader, barrier.await) {
            (_, Ok(Ok(()))) => Ok(()),
            (None, _) => {
                Err("no leader: a majority of the controllers must be up and linked".to_owned())
            }
            (Some(leader), _) => Err(format!(
                "no answer from a majority by way of controller {leader}, which led last"
            )),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

/// Answers `/livez`, `/readyz`, or one check of theirs.
pub(super) async fn serve(
    context: &Api,
    page: Page,
    check: Option<&str>,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    if let Some(name) = check {
        let check = page.checks().iter().find(|check| check.name() == name);
        return Ok(
            match check.ok_or(ApiError::NoSuchPath)?.run(context).await {
                Ok(()) => text(StatusCode::OK, "ok".into()),
                Err(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("{name} failed: {why}\n"),
                ),
            },
        );
    }
    let options: Vec<(String, String)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let excluded = |check: &Check| {
        options
            .iter()
            .any(|(name, value)| name == "exclude" && value == check.name())
    };
    let mut results = Vec::new();
    for check in page.checks() {
        let result = match excluded(check) {
            true => None,
            false => Some(check.run(context).await),
        };
        results.push((*check, result));
    }
    let verbose = options.iter().any(|(name, _)| name == "verbose");
    let (well, report) = report(page, &results);
    Ok(match (well, verbose) {
        (true, false) => text(StatusCode::OK, "ok".into()),
        (true, true) => text(StatusCode::OK, report),
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, report),
    })
}

/// A line a check, as Kubernetes writes them. Pure.
fn report(page: Page, results: &[(Check, Option<Result<(), String>>)]) -> (bool, String) {
    let mut well = true;
    let mut text = String::new();
    for (check, result) in results {
        let name = check.name();
        text += &match result {
            None => format!("[+]{name} excluded: ok\n"),
            Some(Ok(())) => format!("[+]{name} ok\n"),
            Some(Err(why)) => {
                well = false;
                format!("[-]{name} failed: {why}\n")
            }
        };
    }
    let outcome = if well { "passed" } else { "failed" };
    text += &format!("{} check {outcome}\n", page.name());
    (well, text)
}

fn text(code: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_a_check() {
        let results = [
            (Check::Ping, Some(Ok(()))),
            (Check::Artifacts, None),
            (Check::RaftLeader, Some(Err("no leader".to_owned()))),
        ];
        let (well, text) = report(Page::Ready, &results);
        assert!(!well);
        assert_eq!(
            text,
            "[+]ping ok\n[+]artifacts excluded: ok\n[-]raft-leader failed: no leader\nreadyz check failed\n"
        );
        assert!(report(Page::Live, &results[..2]).0);
    }
}
