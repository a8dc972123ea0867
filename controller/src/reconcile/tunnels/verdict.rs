//! Whether what was tried proves that a tunnel is reached, and if not, what is in the way. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hive_manifests::tunnel::TargetStatus;

use super::Why;
use super::ask::{Advertised, Ask, Greeting, Question, Way};
use super::probe::{Answer, Observation, is_local};
use super::targets::all_down;

/// Controllers whose addresses a sentence gives as examples.
const EXAMPLES: usize = 3;

/// The tunnel was reached, or is there as far as can be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// By the fastest way. `None` where only an answer would prove it, and nothing is known that is answered.
    pub latency: Option<Duration>,
    /// In one sentence how, and which controllers were not reached.
    pub message: String,
    /// By every controller.
    pub complete: bool,
}

impl Proof {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self.latency {
            Some(_) => "Proven",
            None => "Unprovable",
        }
    }
}

pub fn verdict(ask: &Ask, seen: &Observation, targets: &[TargetStatus]) -> Result<Proof, Why> {
    let latency = match &ask.way {
        Way::Http(Question { host, .. }) | Way::Tls(Greeting { name: host, .. }) => {
            Some(by_name(ask, host, seen, targets)?)
        }
        Way::Tcp => Some(by_port(ask, seen, targets)?),
        Way::Udp { .. } => by_datagram(ask, seen, targets)?,
        Way::Brought { question, .. } => Some(brought(ask, question.as_ref(), seen, targets)?),
    };
    let what = match &ask.way {
        Way::Http(Question { host, https, .. }) => {
            let until = https.as_ref().and_then(|https| https.expires);
            let until = until.map_or_else(String::new, |at| {
                format!("; its certificate is good until {at}")
            });
            match ask.guarded {
                true => format!(
                    "{host} leads to the controllers, which let in whom spec.access names{until}"
                ),
                false => format!("a request to {host} came through{until}"),
            }
        }
        Way::Tcp | Way::Tls(_) | Way::Udp { .. } if ask.guarded => {
            "the controllers listen, and let in whom spec.access names".to_owned()
        }
        Way::Tls(Greeting { name, .. }) => format!("who has {name} was reached"),
        Way::Tcp => "a connection opens and stays".to_owned(),
        Way::Udp { .. } => match latency {
            Some(_) => "a datagram is answered".to_owned(),
            None => "nothing says that datagrams do not arrive; to prove that they do, give \
                     spec.healthCheck.payload something that the target answers"
                .to_owned(),
        },
        Way::Brought { by, question: None } => {
            format!(
                "{} brings connections, and a target takes them",
                by.as_str()
            )
        }
        Way::Brought { by, .. } => format!(
            "{} brings requests, and one came through from a controller",
            by.as_str()
        ),
    };
    let not_reached = not_reached(ask, seen);
    Ok(Proof {
        latency,
        message: what + &only_here(ask, seen) + &not_reached,
        complete: not_reached.is_empty(),
    })
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
        Answer::Shut(_) => 1,
        Answer::Closed => 2,
        Answer::Stranger => 3,
        Answer::Untrusted(_) => 4,
        Answer::Silent => 5,
        Answer::Untried => 6,
        Answer::Refused(_) => 7,
        Answer::Reached(_) => 8,
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
    host: &str,
    seen: &Observation,
    targets: &[TargetStatus],
) -> Result<Duration, Why> {
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
        Some((_, Answer::Reached(_))) => {
            let is_asked = ask.way.question().is_none_or(|it| it.method.is_some());
            ask.guarded || !is_asked
        }
        // What is passed through cannot be told why not.
        Some((_, Answer::Closed)) => matches!(&ask.way, Way::Tls(_)),
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
        Some((_, Answer::Silent)) => ("TargetSilent", silent(&ask.way)),
        Some((door, Answer::Untrusted(why))) => (
            &*why.reason,
            format!("{host} leads to {door}, where {}", why.message),
        ),
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
        Some((door, Answer::Unreachable(why) | Answer::Shut(why))) => (
            "Unreachable",
            format!(
                "{host} leads to {door}, which is not reached ({why}): {lead}, and let firewalls pass it{directly}"
            ),
        ),
        Some((_, Answer::Reached(_) | Answer::Untried)) | None => {
            ("Unreachable", format!("{host} leads nowhere: {lead}"))
        }
    };
    Err(Why::new(reason, message))
}

fn silent(way: &Way) -> String {
    if let Way::Tls(Greeting { patience, .. }) = way {
        return format!(
            "the target takes connections, and did not answer TLS within {patience:?}: look at the service there"
        );
    }
    let Some(question) = way.question() else {
        // A connection that stays is all that is asked for.
        return "the target is silent".to_owned();
    };
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
        _ => closed(ask, seen),
    })
}

/// How long an answer took, if there is something to be answered.
fn by_datagram(
    ask: &Ask,
    seen: &Observation,
    targets: &[TargetStatus],
) -> Result<Option<Duration>, Why> {
    let doors: Vec<SocketAddr> = seen.controllers.values().flatten().copied().collect();
    let answers = answers(seen, &doors);
    if answers.iter().any(is_open)
        && let Some(why) = all_down(targets)
    {
        return Err(why);
    }
    match answers.last() {
        Some((_, Answer::Reached(_))) => Ok(fastest(&answers)),
        Some((_, Answer::Untried)) => Ok(None),
        _ => Err(closed(ask, seen)),
    }
}

/// A controller has the port there, as far as can be known.
fn is_open((_, answer): &(&SocketAddr, &Answer)) -> bool {
    !matches!(
        answer,
        Answer::Unreachable(_) | Answer::Shut(_) | Answer::Stranger
    )
}

/// No controller is reached at the port.
fn closed(ask: &Ask, seen: &Observation) -> Why {
    let not_reached = not_reached(ask, seen);
    let message = not_reached.trim_start_matches("; ");
    if message.is_empty() {
        return Why::new("Unreachable", "there is no controller to connect to");
    }
    let any = |is_it: fn(&Answer) -> bool| seen.answers.values().any(is_it);
    let (reason, remedy) = if any(|it| matches!(it, Answer::Shut(_))) {
        let remedy = "end what has the port there, or choose another spec.port";
        ("NotListening", remedy)
    } else if any(|it| matches!(it, Answer::Stranger)) {
        let remedy = "nothing came to a controller; let what stands in front of the controllers lead the port to \
                      them, or choose another spec.port";
        ("Misdirected", remedy)
    } else if matches!(ask.way, Way::Udp { .. }) {
        ("Unreachable", "let firewalls pass the port for UDP")
    } else {
        ("Unreachable", "let firewalls pass the port")
    };
    Why::new(reason, format!("{message}: {remedy}"))
}

/// A provider says itself whether it brings anything; what is behind the controllers is tried from there.
fn brought(
    ask: &Ask,
    question: Option<&Question>,
    seen: &Observation,
    targets: &[TargetStatus],
) -> Result<Duration, Why> {
    if let Some(question) = question {
        return by_name(ask, &question.host, seen, targets);
    }
    let unknown = || Why::new("TargetUnknown", "no target was asked yet");
    match targets.iter().any(|target| target.healthy) {
        true => Ok(Duration::ZERO),
        false => Err(all_down(targets).unwrap_or_else(unknown)),
    }
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
        Some((_, Answer::Reached(_) | Answer::Untried)) => return None,
        Some((_, Answer::Refused(why))) => format!("{controller} answers {}", why.reason),
        Some((_, Answer::Silent)) => format!("{controller} does not answer in time"),
        Some((_, Answer::Untrusted(why))) => format!("{controller} answers {}", why.reason),
        Some((_, Answer::Stranger)) => format!("at {} somebody else answers", controller.address()),
        Some((_, Answer::Closed)) => format!("{controller} ends connections at once"),
        Some((_, Answer::Unreachable(why))) => format!("{controller} is not reached ({why})"),
        Some((_, Answer::Shut(why))) => format!("{controller} does not listen ({why})"),
        None => format!("the name of {controller} does not resolve"),
    })
}

/// At an address that controllers share one of them answers for all: it is told once.
fn not_reached(ask: &Ask, seen: &Observation) -> String {
    let mut told = BTreeSet::new();
    let controllers = ask.controllers.iter();
    let once = controllers.filter(|it| told.insert((&*it.host, it.port)));
    let troubles = once.filter_map(|it| trouble(it, seen));
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
    let Some(host) = ask.way.name() else {
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
