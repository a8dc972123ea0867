//! Whether what was tried proves that a tunnel is reached, and if not, what is in the way. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use hive_manifests::tunnel::TargetStatus;

use super::Why;
use super::ask::{Advertised, Ask, Question, Way};
use super::probe::{Answer, Observation, is_local};
use super::targets::all_down;

/// Controllers whose addresses a sentence gives as examples.
const EXAMPLES: usize = 3;

/// The tunnel was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// By the fastest way.
    pub latency: Duration,
    /// In one sentence how, and which controllers were not reached.
    pub message: String,
}

pub fn verdict(ask: &Ask, seen: &Observation, targets: &[TargetStatus]) -> Result<Proof, Why> {
    let latency = match &ask.way {
        Way::Http(question) => by_name(ask, question, seen, targets)?,
        Way::Tcp => by_port(ask, seen, targets)?,
    };
    let what = match &ask.way {
        Way::Http(Question { host, .. }) => format!("a request to {host} came through"),
        Way::Tcp => "a connection opens and stays".to_owned(),
    };
    let message = what + &only_here(ask, seen) + &not_reached(ask, seen);
    Ok(Proof { latency, message })
}

/// The answers at some doors, the one that tells most at the end.
fn answers<'a>(
    seen: &'a Observation,
    doors: &'a [SocketAddr],
) -> Vec<(&'a SocketAddr, &'a Answer)> {
    let all = doors.iter();
    let mut all: Vec<_> = all
        .filter_map(|door| Some((door, seen.answers.get(door)?)))
        .collect();
    all.sort_by_key(|(_, answer)| match answer {
        Answer::Unreachable(_) => 0,
        Answer::Closed => 1,
        Answer::Stranger => 2,
        Answer::Silent => 3,
        Answer::Refused(_) => 4,
        Answer::Reached(_) => 5,
    });
    all
}

fn fastest(answers: &[(&SocketAddr, &Answer)]) -> Option<Duration> {
    let latencies = answers.iter().filter_map(|(_, answer)| match answer {
        Answer::Reached(latency) => Some(*latency),
        _ => None,
    });
    latencies.min()
}

fn by_name(
    ask: &Ask,
    question: &Question,
    seen: &Observation,
    targets: &[TargetStatus],
) -> Result<Duration, Why> {
    let host = &question.host;
    let doors = seen.public.as_ref().map_err(|why| {
        let message = format!(
            "{host} is no name that resolves ({why}): make a DNS record of it that leads to {}",
            examples(ask)
        );
        Why::new("NotResolved", message)
    })?;
    let answers = answers(seen, doors);
    // It came as far as to a controller: what is behind that, the targets' health tells best.
    let is_half_way = match answers.last() {
        Some((_, Answer::Refused(_) | Answer::Silent)) => true,
        Some((_, Answer::Reached(_))) => question.method.is_none(),
        _ => false,
    };
    if is_half_way && let Some(why) = all_down(targets) {
        return Err(why);
    }
    if let Some(latency) = fastest(&answers) {
        return Ok(latency);
    }
    let lead = format!("let the DNS record of {host} lead to {}", examples(ask));
    let directly = directly(ask, seen);
    let (reason, message) = match answers.last() {
        Some((door, Answer::Refused(why))) => {
            let said = match &*why.message {
                "" => &why.reason,
                message => message,
            };
            (
                &*why.reason,
                format!("the controller at {door} answers: {said}"),
            )
        }
        Some((_, Answer::Silent)) => ("TargetSilent", silent(question)),
        Some((door, Answer::Stranger)) => (
            "Misdirected",
            format!(
                "{host} leads to {door}, where somebody answers who asked no controller of this swarm: {lead}, or let \
                 what stands there pass on all headers{directly}"
            ),
        ),
        Some((door, Answer::Closed)) => (
            "NoAnswer",
            format!(
                "{host} leads to {door}, which ends connections without an answer: {lead}{directly}"
            ),
        ),
        Some((door, Answer::Unreachable(why))) => (
            "Unreachable",
            format!(
                "{host} leads to {door}, which is not reached ({why}): {lead}, and let firewalls pass it{directly}"
            ),
        ),
        Some((_, Answer::Reached(_))) | None => {
            ("Unreachable", format!("{host} leads nowhere: {lead}"))
        }
    };
    Err(Why::new(reason, message))
}

fn silent(question: &Question) -> String {
    let Question { path, patience, .. } = question;
    let method = question.method.unwrap_or("GET");
    format!(
        "{method} {path} was not answered within {patience:?}: name a path that answers sooner in \
         spec.healthCheck.path, or give it longer with spec.healthCheck.timeout"
    )
}

fn by_port(ask: &Ask, seen: &Observation, targets: &[TargetStatus]) -> Result<Duration, Why> {
    let doors: Vec<SocketAddr> = seen.controllers.values().flatten().copied().collect();
    let answers = answers(seen, &doors);
    let is_open = |(_, answer): &(_, &Answer)| !matches!(answer, Answer::Unreachable(_));
    if answers.iter().any(is_open)
        && let Some(why) = all_down(targets)
    {
        return Err(why);
    }
    if let Some(latency) = fastest(&answers) {
        return Ok(latency);
    }
    Err(match answers.last() {
        Some(open @ (door, _)) if is_open(open) => Why::new(
            "Closed",
            format!(
                "connections to {door} are ended at once: by the target, which may want spec.proxyProtocol otherwise, or \
                 since there are spec.maxConnections of them"
            ),
        ),
        _ => {
            let not_reached = not_reached(ask, seen);
            let message = not_reached.trim_start_matches("; ");
            let message = match message.is_empty() {
                true => "there is no controller to connect to".to_owned(),
                false => format!("{message}: let firewalls pass the port"),
            };
            Why::new("Unreachable", message)
        }
    })
}

/// Where a record could lead.
fn examples(ask: &Ask) -> String {
    let mut hosts: Vec<&str> = ask.controllers.iter().map(|it| &*it.host).collect();
    hosts.dedup();
    hosts.truncate(EXAMPLES);
    match hosts.is_empty() {
        true => "a controller".to_owned(),
        false => hosts.join(", "),
    }
}

/// Why a controller was not found to lead to the target.
fn trouble(controller: &Advertised, seen: &Observation) -> Option<String> {
    let doors = seen.controllers.get(&controller.id);
    let doors = doors.map(Vec::as_slice).unwrap_or_default();
    let answers = answers(seen, doors);
    Some(match answers.last() {
        Some((_, Answer::Reached(_))) => return None,
        Some((_, Answer::Refused(why))) => format!("{controller} answers {}", why.reason),
        Some((_, Answer::Silent)) => format!("{controller} does not answer in time"),
        Some((_, Answer::Stranger)) => format!("at {} somebody else answers", controller.address()),
        Some((_, Answer::Closed)) => format!("{controller} ends connections at once"),
        Some((_, Answer::Unreachable(why))) => format!("{controller} is not reached ({why})"),
        None => format!("the name of {controller} does not resolve"),
    })
}

fn not_reached(ask: &Ask, seen: &Observation) -> String {
    let troubles = ask.controllers.iter().filter_map(|it| trouble(it, seen));
    troubles.map(|trouble| format!("; {trouble}")).collect()
}

/// It is the way to the controllers that is wrong, and nothing behind them.
fn directly(ask: &Ask, seen: &Observation) -> String {
    let mut all = ask.controllers.iter();
    match all.find(|controller| trouble(controller, seen).is_none()) {
        Some(controller) => format!("; {controller}, asked directly, leads to the target"),
        None => String::new(),
    }
}

/// A name under localhost leads each machine to itself. That it came through here says nothing of others.
fn only_here(ask: &Ask, seen: &Observation) -> String {
    let Way::Http(Question { host, .. }) = &ask.way else {
        return String::new();
    };
    let mut doors = seen.controllers.values().flatten();
    match is_local(host) && !doors.any(|door| door.ip().is_loopback()) {
        true => {
            " (from other machines it does not: set spec.http.host, or the domain of the swarm)"
                .to_owned()
        }
        false => String::new(),
    }
}
