//! What a tunnel's status is to say, by what was seen. Pure: what says so already is not written again.

use std::time::{Duration, SystemTime};

use hive_manifests::tunnel::TargetStatus;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Why;
use super::ask::{Ask, Way};
use super::doors::Door;
use super::probe::Observation;
use super::targets::refuse;
use super::verdict::{Proof, verdict};
use crate::objects::{self, timestamp};
use crate::reconcile::events::Notice;

/// Tries in a row whose trouble is believed: a packet may get lost, and a controller have heard of a tunnel later than
/// the one that leads.
const PERSUASIVE: u32 = 2;

/// A latency that is another is no news sooner.
const REFRESH: Duration = Duration::from_secs(3600);

/// Differences below are the network's weather. Milliseconds.
const SAME: u64 = 10;

/// A tunnel, and all that its status is made of besides what a try shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub uid: String,
    pub generation: i64,
    pub addresses: Vec<String>,
    pub ask: Ask,
    /// Why it is in vain to try, such as that somebody else has its port or its route.
    pub obstacle: Option<Why>,
    /// A controller that does not listen for it, and why.
    pub closed: Option<(u64, String)>,
    pub targets: Vec<TargetStatus>,
}

impl Subject {
    /// What was found about the other is true of this one, whatever its targets do.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let what = |it: &Self| (it.generation, it.obstacle.clone());
        self.ask == other.ask && what(self) == what(other)
    }
}

/// What came of trying.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    at: Timestamp,
    found: Result<Proof, Why>,
    /// As they are with all that was heard of them.
    targets: Vec<TargetStatus>,
    /// Tries in a row, with this one, that did not reach it by every controller.
    troubles: u32,
    /// The last that did, if one is remembered.
    success: Option<Timestamp>,
}

impl Tried {
    /// `before` is the try before, of the same.
    pub fn new(
        subject: &Subject,
        mut observation: Observation,
        at: Timestamp,
        before: Option<&Self>,
    ) -> Self {
        if let Some((controller, why)) = &subject.closed {
            let shut = Door::shut(why);
            observation.doors.insert(*controller, shut);
        }
        observation.identify();
        let mut targets = subject.targets.clone();
        // Where there is a question, each controller asks it itself.
        if matches!(subject.ask.way, Way::Udp { datagram: None, .. }) {
            let doors = observation.doors.values();
            let refusals: Vec<_> = doors.flat_map(|door| &door.refusals).collect();
            refuse(&mut targets, &refusals);
        }
        let found = verdict(&subject.ask, &observation, &targets);
        let before = before.map(|before| (before.troubles, before.success));
        let (troubles, success) = before.unwrap_or_default();
        let troubles = match &found {
            Ok(Proof { complete: true, .. }) => 0,
            Ok(_) | Err(_) => troubles.saturating_add(1),
        };
        let success = match &found {
            Ok(Proof {
                latency: Some(_), ..
            }) => Some(at),
            Ok(_) | Err(_) => success,
        };
        Self {
            at,
            found,
            targets,
            troubles,
            success,
        }
    }
}

/// What is to be done about a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// All is said.
    Nothing,
    /// A trouble is to be believed only if it lasts.
    TryAgain,
    Write {
        status: Value,
        notice: Option<Notice>,
    },
}

/// `told` is what the status says; `tried` is `None` of what is in vain to try.
pub fn plan(subject: &Subject, tried: Option<&Tried>, told: &Value, now: Timestamp) -> Step {
    let in_vain = subject.obstacle.as_ref().map(|why| Err(why.clone()));
    let tried = tried.filter(|_| in_vain.is_none());
    let Some(found) = in_vain.or_else(|| Some(tried?.found.clone())) else {
        return Step::Nothing;
    };
    if tried.is_some_and(|tried| (1..PERSUASIVE).contains(&tried.troubles)) {
        return Step::TryAgain;
    }
    let before = ready(told);
    let mut status = told.clone();
    let (value, reason, message) = match &found {
        Ok(proof) => ("True", proof.reason(), &proof.message),
        Err(why) => ("False", &*why.reason, &why.message),
    };
    objects::set_condition(
        &mut status,
        READY,
        value,
        reason,
        message,
        SystemTime::from(now),
    );
    status["observedGeneration"] = json!(subject.generation);
    set_list(&mut status, "addresses", json!(subject.addresses));
    let targets = tried.map_or(&subject.targets, |tried| &tried.targets);
    set_list(&mut status, "targets", json!(targets));
    let is_old = match &found {
        Ok(proof) => is_other_latency(&told["probe"], proof, now),
        Err(_) => false,
    };
    if status == *told && !is_old {
        return Step::Nothing;
    }
    if let Some(tried) = tried {
        note(&mut status["probe"], tried);
    }
    let notice = (before != Some(value)).then(|| Notice {
        warning: found.is_err(),
        reason: reason.to_owned(),
        message: message.clone(),
        source: "tunnels".to_owned(),
        count: 1,
    });
    Step::Write { status, notice }
}

const READY: &str = "Ready";

fn ready(status: &Value) -> Option<&str> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|it| it["type"] == READY)?["status"].as_str()
}

/// As the type writes it: nothing where there is nothing.
fn set_list(status: &mut Value, field: &str, list: Value) {
    let Some(fields) = status.as_object_mut() else {
        return;
    };
    match list.as_array().is_some_and(Vec::is_empty) {
        true => drop(fields.remove(field)),
        false => drop(fields.insert(field.to_owned(), list)),
    }
}

/// A tunnel that is reached is not worth a write for how fast, but for once in a while.
fn is_other_latency(told: &Value, proof: &Proof, now: Timestamp) -> bool {
    let Some(is) = milliseconds(proof) else {
        return false;
    };
    let last = told["lastTime"]
        .as_str()
        .and_then(|at| at.parse::<Timestamp>().ok());
    if last.is_some_and(|last| now < last + REFRESH) {
        return false;
    }
    let was = told["latencyMs"].as_u64().unwrap_or_default();
    let (less, more) = (was.min(is).max(SAME), was.max(is).max(SAME));
    more > 2 * less
}

/// What was reached took some time.
fn milliseconds(proof: &Proof) -> Option<u64> {
    let whole: u64 = proof.latency?.as_millis().try_into().unwrap_or(u64::MAX);
    Some(whole.max(1))
}

fn note(probe: &mut Value, tried: &Tried) {
    let at = timestamp(tried.at.into());
    probe["lastTime"] = json!(at);
    if let Some(success) = tried.success {
        probe["lastSuccess"] = json!(timestamp(success.into()));
    }
    match &tried.found {
        Ok(proof) => {
            if let Some(latency) = milliseconds(proof) {
                probe["latencyMs"] = json!(latency);
            }
        }
        Err(why) => {
            probe["lastFailure"] =
                json!({ "time": at, "reason": why.reason, "message": why.message });
        }
    }
}

#[cfg(test)]
mod tests;
