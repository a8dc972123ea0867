//! Why a function is not as it should be: one sentence that names the thing and what helps.
//!
//! Pure, and without a clock: sentences carry times, not ages, which would change every second. Of
//! several reasons the first that a person can do something about is told.

use std::collections::BTreeSet;

use hive_manifests::Phase;
use hive_manifests::rollout::RolloutPhase;

use crate::deletion::finalizers;
use crate::objects::node_key;
use crate::reconcile::pull;
use crate::reconcile::schedule::{AssignmentView, FunctionView};
use crate::state::State;

/// Reasons of the condition Progressing that say best why not all copies run the newest version.
const OWN_WORDS: [&str; 3] = ["Canary", "CanaryPaused", "RolledBack"];

/// A function, and how it stands with its copies.
pub struct Situation<'a> {
    pub function: &'a FunctionView,
    pub own: &'a [&'a AssignmentView],
    /// Beside them, those that try a version.
    pub trials: &'a [&'a AssignmentView],
    /// All nodes that are ready.
    pub ready_nodes: &'a BTreeSet<&'a str>,
    pub ready: usize,
    /// That run the newest version.
    pub updated: usize,
    pub wanted: usize,
    /// Why no node takes one of them.
    pub unplaced: Option<&'a str>,
}

/// A reason for machines, and the sentence for people.
pub type Explanation = (&'static str, String);

impl Situation<'_> {
    pub fn is_scaled_to_zero(&self) -> bool {
        self.wanted == 0 && !self.function.spec.every_node
    }

    pub fn explain(&self, state: &State) -> Explanation {
        self.deleting(state)
            .or_else(|| self.scaled_to_zero())
            .or_else(|| missing_image(self.function))
            .or_else(|| not_compiled(self.function))
            .or_else(|| self.missing_reference())
            .or_else(|| self.failing())
            .or_else(|| self.node_lost(state))
            .or_else(|| self.unschedulable())
            .or_else(|| self.progressing())
            .or_else(|| self.rolling())
            .unwrap_or_else(|| ("Ready", "all copies are ready".into()))
    }

    fn deleting(&self, state: &State) -> Option<Explanation> {
        self.function.ending?;
        let function = state.get(&self.function.key)?.to_value();
        let waits_for = finalizers(&function).join(", ");
        Some((
            "Deleting",
            format!("it is being deleted, which waits for its finalizers: {waits_for}"),
        ))
    }

    fn scaled_to_zero(&self) -> Option<Explanation> {
        if !self.is_scaled_to_zero() {
            return None;
        }
        let spec = &self.function.spec;
        let why = match spec.autoscaling.is_some() && spec.replicas.is_none() {
            true => "nobody asks for it: the next request brings a copy",
            false => "no copies are wanted",
        };
        Some(("ScaledToZero", why.into()))
    }

    /// Why no copy is sent what it should run. Those that run it already go on, and are told of: the next one
    /// would not start.
    fn missing_reference(&self) -> Option<Explanation> {
        let function = self.function;
        let rollout = function.standing.rollout.as_ref();
        let is_back = rollout.is_some_and(|it| it.phase == RolloutPhase::RolledBack);
        let kept = function.course.kept.as_ref();
        let newest = function.missing.as_ref().filter(|_| !is_back);
        let missing = newest.or(kept.and_then(|kept| kept.missing.as_ref()))?;
        let waits = self.ready < self.wanted || (newest.is_some() && self.updated < self.wanted);
        let message = match waits {
            true => missing.clone(),
            false => format!("{missing}; the copies that run go on with what they have"),
        };
        Some(("MissingReference", message))
    }

    fn failing(&self) -> Option<Explanation> {
        // Also of a copy that serves an older generation because the newest one fails.
        let fails =
            |a: &&&AssignmentView| !a.current && a.phase != Phase::Unknown && !a.message.is_empty();
        let copy = self.own.iter().chain(self.trials).find(fails)?;
        Some(("Failing", format!("{}: {}", on_node(copy), copy.message)))
    }

    /// Copies that may well be running, where nobody hears of them.
    fn node_lost(&self, state: &State) -> Option<Explanation> {
        if self.ready >= self.wanted {
            return None;
        }
        let is_lost = |a: &&&AssignmentView| !self.ready_nodes.contains(&*a.spec.node_name);
        let copy = self.own.iter().find(is_lost)?;
        let node = &copy.spec.node_name;
        let since = lost_since(state, node).map_or_else(String::new, |at| format!(" since {at}"));
        let instead = match self.unplaced {
            Some(why) => format!(", and no other takes its copy: {why}"),
            None => String::new(),
        };
        Some((
            "NodeLost",
            format!(
                "{}: nothing was heard of node {node}{since}{instead}",
                self.counted()
            ),
        ))
    }

    fn unschedulable(&self) -> Option<Explanation> {
        if let Some(why) = self.unplaced {
            let reason = match self.function.artifacts.is_empty() {
                true => "Compiling",
                false => "Unschedulable",
            };
            return Some((reason, why.to_owned()));
        }
        let none_fits = "no node that is there fits its nodeSelector and tolerations";
        (self.wanted == 0).then(|| ("NoNodes", none_fits.to_owned()))
    }

    fn progressing(&self) -> Option<Explanation> {
        if self.ready >= self.wanted {
            return None;
        }
        let coming = self.own.iter().find(|a| a.phase != Phase::Ready);
        let coming = coming.map_or_else(String::new, |copy| {
            let what = match copy.phase {
                Phase::Fetching => "is being fetched",
                _ => "was not taken up yet",
            };
            format!(", {} {what}", on_node(copy))
        });
        Some(("Progressing", format!("{}{coming}", self.counted())))
    }

    fn rolling(&self) -> Option<Explanation> {
        let Self {
            updated, wanted, ..
        } = self;
        if updated >= wanted {
            return None;
        }
        if let Some((_, reason, message)) = &self.function.standing.condition
            && let Some(reason) = OWN_WORDS.iter().find(|it| *it == reason)
        {
            return Some((reason, message.clone()));
        }
        let message = format!("{updated} of {wanted} copies run the newest version");
        Some(match self.function.spec.paused {
            true => (
                "Paused",
                format!("{message}, and spec.paused holds it back"),
            ),
            false => ("RollingUpdate", message),
        })
    }

    fn counted(&self) -> String {
        let Self { ready, wanted, .. } = self;
        let are = if *ready == 1 { "is" } else { "are" };
        format!("{ready} of {wanted} copies {are} ready")
    }
}

fn on_node(copy: &AssignmentView) -> String {
    format!("{} on {}", copy.key.name, copy.spec.node_name)
}

/// When a node was given up, as its condition says.
fn lost_since(state: &State, node: &str) -> Option<String> {
    // Of thousands of nodes few are lost: they need not be kept parsed.
    let node = state.get(&node_key(node))?.to_value();
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
    Some(ready["lastTransitionTime"].as_str()?.to_owned())
}

/// Why the image that the function names is not here, if it is not.
fn missing_image(function: &FunctionView) -> Option<Explanation> {
    let image = function.awaited_image.as_ref()?;
    let told = function.not_pulled.as_ref().and_then(|told| {
        let mut known = pull::REASONS.into_iter();
        let reason = known.find(|reason| told.reason == *reason)?;
        Some((reason, told.message.clone()))
    });
    Some(told.unwrap_or_else(|| (pull::PULLING, format!("{image} is to be pulled"))))
}

/// Why the newest component is not compiled, if that is told: it does not compile, or it takes its time.
fn not_compiled(function: &FunctionView) -> Option<Explanation> {
    let told = function.not_compiled.as_ref()?;
    if !function.artifacts.is_empty() {
        return None;
    }
    let reason = match told.reason == "Compiling" {
        true => "Compiling",
        false => "CompileFailed",
    };
    Some((reason, told.message.clone()))
}
