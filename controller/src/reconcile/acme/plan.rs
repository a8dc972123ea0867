//! Whether a tunnel needs a certificate, whether it can be ordered now, and what is said of it. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use hive_manifests::tunnel::{CertificateStatus, FailedOrder};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::authority::LONGEST_PAUSE;
use super::certificate::{Certificate, Held};
use super::orders::Order;
use super::settings::Settings;
use super::status::whole_seconds;
use crate::reconcile::tunnels::{Why, is_local};

/// Authorities drop orders after a week; who comes back to one that old has lost more than that.
const MAX_ORDER_AGE: Duration = Duration::from_secs(24 * 3600);

/// After a failure, for a tunnel or a directory that is another: Let's Encrypt forgives five failures of a name
/// an hour, and people correct what they wrote more often.
const HASTE: Duration = Duration::from_secs(60);

/// For what stands in the way, and goes away without a change that brings a look.
const LOOK: Duration = Duration::from_secs(60);

/// From now on: no longer than an authority may ask for, which is longer than any wait of ours.
const LONGEST_WAIT: Duration = LONGEST_PAUSE;

/// What an authority says when it was asked too often; then nothing helps but to wait.
pub const LIMITED: &str = "RateLimited";

/// It wants to be left alone, whoever asks.
pub const BUSY: &str = "AuthorityBusy";

/// A tunnel that wants a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub generation: i64,
    /// In order.
    pub names: BTreeSet<String>,
    pub secret: String,
    pub held: Held,
    /// Who else has one of the hosts, in a sentence.
    pub taken: Option<String>,
    pub failed: Option<FailedOrder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Open,
    /// Goes on with the order that is open.
    Resume,
    /// The open order is for nothing.
    Close,
}

/// What is to be done, and to be said.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub step: Option<Step>,
    /// Of the condition CertificateReady.
    pub is_ready: bool,
    pub why: Why,
    pub status: CertificateStatus,
    /// When to look again, if nothing happens before.
    pub due: Option<Timestamp>,
}

/// `order` is the one that is open for the tunnel, and `paused` until when the authority is to be left alone by all of
/// them, if it is.
pub fn plan(
    subject: &Subject,
    settings: &Result<Settings, Why>,
    order: Option<&Order>,
    paused: Option<Timestamp>,
    now: Timestamp,
) -> Planned {
    let own = match &subject.held {
        Held::Own(certificate) => Some(certificate),
        Held::Nothing | Held::Foreign => None,
    };
    let usable = own.filter(|it| subject.names.is_subset(&it.names) && now < it.not_after);
    let directory = settings.as_ref().ok().map(|it| &*it.directory);
    let is_fresh = |it: &&Certificate| {
        now < it.renewal() && directory.is_none_or(|directory| directory == it.directory)
    };
    let mut status = CertificateStatus {
        secret_name: own.map(|_| subject.secret.clone()).unwrap_or_default(),
        names: subject.names.iter().cloned().collect(),
        not_after: own.map(|it| Time(it.not_after)),
        renewal_time: own.map(|it| Time(it.renewal())),
        failed: None,
    };
    let names = list(&subject.names);
    if let Some(fresh) = usable.filter(is_fresh) {
        let (until, from) = (day(fresh.not_after), day(fresh.renewal()));
        let message = format!("good for {names} until {until}; renewed from {from} on");
        return Planned {
            step: order.map(|_| Step::Close),
            is_ready: true,
            why: Why::new("Issued", message),
            status,
            due: Some(fresh.renewal()),
        };
    }
    status.failed = subject.failed.as_ref().map(|failed| bounded(failed, now));
    let (step, why, due) = match obstacle(subject, settings) {
        Err(why) => {
            let look = now + LOOK;
            (order.map(|_| Step::Close), why, Some(look))
        }
        Ok(settings) => {
            let failed = status.failed.as_ref();
            order_it(subject, failed, settings, order, paused, now)
        }
    };
    let due = due.into_iter().chain(usable.map(|it| it.not_after)).min();
    let why = match usable {
        None => why,
        Some(usable) => {
            let reason = match step {
                Some(Step::Open | Step::Resume) => "Renewing",
                _ => "RenewalFailed",
            };
            let until = day(usable.not_after);
            let message = format!("good for {names} until {until}, but {}", why.message);
            Why::new(reason, message)
        }
    };
    Planned {
        step,
        is_ready: usable.is_some(),
        why,
        status,
        due,
    }
}

/// The authority, if it is worth anything to ask it.
fn obstacle<'a>(
    subject: &Subject,
    settings: &'a Result<Settings, Why>,
) -> Result<&'a Settings, Why> {
    if subject.held == Held::Foreign {
        let secret = &subject.secret;
        let message = format!(
            "the certificate belongs into Secret {secret}, which is somebody else's: delete or rename that one, or \
             rename the tunnel"
        );
        return Err(Why::new("SecretTaken", message));
    }
    if let Some(taken) = &subject.taken {
        return Err(Why::new("HostTaken", taken.clone()));
    }
    let settings = settings.as_ref().map_err(Why::clone)?;
    // Authorities of tests are on the machine itself, too.
    let authority = settings.authority();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let is_near = is_local(host) || host.starts_with("127.");
    match subject.names.iter().find(|name| is_local(name)) {
        Some(name) if !is_near => {
            let message = format!(
                "{name} leads every machine to itself, so nobody certifies it: name a host of yours in spec.http.host"
            );
            Err(Why::new("LocalName", message))
        }
        _ => Ok(settings),
    }
}

/// As it was noted, unless by a leader whose clock was far ahead. What is said then in its place is written down: a wait
/// that began anew with each look would never end.
fn bounded(failed: &FailedOrder, now: Timestamp) -> FailedOrder {
    let mut failed = failed.clone();
    let now = whole_seconds(now);
    if failed.next_time.0 > now + LONGEST_WAIT {
        failed.next_time = Time(now + LONGEST_WAIT);
        failed.time = Time(failed.time.0.min(now));
    }
    failed
}

fn order_it(
    subject: &Subject,
    failed: Option<&FailedOrder>,
    settings: &Settings,
    order: Option<&Order>,
    paused: Option<Timestamp>,
    now: Timestamp,
) -> (Option<Step>, Why, Option<Timestamp>) {
    let authority = settings.authority();
    let next = failed.map(|failed| {
        let next = next_try(subject, failed, settings);
        let next = paused.map_or(next, |until| until.max(next));
        let message = format!("{}; it is tried again at {}", failed.message, minute(next));
        (next, Why::new(&*failed.reason, message))
    });
    if let Some((next, why)) = &next
        && now < *next
    {
        return (None, why.clone(), Some(*next));
    }
    if let Some(until) = paused {
        let message = format!(
            "{authority} wants to be left alone by this swarm, and is asked again at {}",
            minute(until)
        );
        return (None, Why::new(BUSY, message), Some(until));
    }
    let fits = |order: &Order| {
        order.directory == settings.directory
            && order.names.iter().eq(&subject.names)
            && now < order.began + MAX_ORDER_AGE
    };
    let step = match order {
        None => Step::Open,
        Some(order) if fits(order) => Step::Resume,
        Some(_) => Step::Close,
    };
    // What was said of the last try stays until something comes of this one: each is worth one write.
    let ordering = || {
        let names = list(&subject.names);
        let message = format!("a certificate for {names} is ordered from {authority}");
        Why::new("Ordering", message)
    };
    (Some(step), next.map_or_else(ordering, |(_, why)| why), None)
}

fn next_try(subject: &Subject, failed: &FailedOrder, settings: &Settings) -> Timestamp {
    if failed.directory != settings.directory {
        return failed.time.0;
    }
    if failed.generation == subject.generation || failed.reason == LIMITED {
        return failed.next_time.0;
    }
    failed.next_time.0.min(failed.time.0 + HASTE)
}

/// What stands in the way of a certificate, as far as it says when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A name does not lead here: no authority was asked.
    Name,
    /// The authority, or the way to it. The order stays.
    Passing,
    /// The order came to nothing.
    Final,
}

impl Trouble {
    /// The first wait, and the longest: each is twice as long as the one before.
    fn waits(self) -> (Duration, Duration) {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        match self {
            // Nobody counts it.
            Self::Name => (minutes(1) / 2, minutes(5)),
            Self::Passing => (minutes(1), minutes(60)),
            // Four in the first hour, which Let's Encrypt forgives.
            Self::Final => (minutes(15), minutes(24 * 60)),
        }
    }

    /// When to try again. `before` is how long was waited after the failure before, if there was one: a name that
    /// led nowhere for hours makes the first refusal of an authority wait no longer than any first one. `jitter` is
    /// from 0 to 1: those that failed together do not come back together. No sooner than an authority asks for.
    pub fn next(
        self,
        before: Option<Duration>,
        not_before: Option<Timestamp>,
        jitter: f64,
        now: Timestamp,
    ) -> Timestamp {
        let (first, longest) = self.waits();
        let doubled = before.map_or(first, |before| before.saturating_mul(2));
        let wait = doubled.clamp(first, longest).mul_f64(1.0 + jitter / 10.0);
        // Whole seconds, as times are written.
        let next = now + Duration::from_secs(wait.as_secs());
        not_before.map_or(next, |other| other.max(next))
    }
}

fn list(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(", ")
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests;
