//! How the copies of functions lie over places: nodes that have the same value of a label are one. Affinity between
//! functions and topology spread are both rules about how many copies a place has. Pure.
//!
//! Counted anew for each copy that is placed, and only for functions that ask for it: others cost nothing.

use std::collections::{HashMap, HashSet};

use hive_manifests::function::MAX_REPLICAS;
use hive_manifests::placement::{
    FUNCTION_LABEL, FunctionAffinity, TopologySpreadConstraint, WhenUnsatisfiable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::board::Board;
use super::view::{FunctionView, NodeView};
use crate::label_selector;

/// What is asked of the place of a function's next copy.
pub struct Places<'a>(Vec<Asked<'a>>);

struct Asked<'a> {
    /// The label whose values are the places.
    key: &'a str,
    /// Copies that count, where a place has some.
    copies: HashMap<&'a str, usize>,
    rule: Rule,
}

enum Rule {
    Near,
    Away,
    /// Whoever is there wants nobody near.
    KeptAway,
    /// With this copy, no more than this in one place.
    AtMost(usize),
    /// The fewer the better.
    Spread,
    /// The more the better, or the fewer where it is less than nothing.
    Weighs(i64),
}

impl<'a> Places<'a> {
    pub fn of(function: &'a FunctionView, board: &Board<'a>) -> Self {
        let mut asked = Vec::new();
        let affinity = function.spec.affinity.as_ref();
        for (functions, sign) in [
            (affinity.and_then(|it| it.function_affinity.as_ref()), 1),
            (
                affinity.and_then(|it| it.function_anti_affinity.as_ref()),
                -1,
            ),
        ] {
            for (term, weight) in functions.into_iter().flat_map(FunctionAffinity::terms) {
                let chosen = chosen(function, term.label_selector.as_ref(), board);
                let copies = counted(board, &term.topology_key, &chosen);
                let rule = match (weight, sign) {
                    // The first of those that want to be near each other may be anywhere.
                    (None, 1) if copies.is_empty() && chosen.contains(&*function.uid) => continue,
                    (None, 1) => Rule::Near,
                    (None, _) => Rule::Away,
                    (Some(weight), sign) => Rule::Weighs(i64::from(weight) * sign),
                };
                asked.push(Asked {
                    key: &term.topology_key,
                    copies,
                    rule,
                });
            }
        }
        asked.extend(kept_away(function, board));
        for constraint in &function.spec.topology_spread_constraints {
            asked.push(spread(function, constraint, board));
        }
        Self(asked)
    }

    /// Whether a copy may be placed on a node, and why not.
    pub fn fits(&self, node: &NodeView) -> Result<(), &'static str> {
        for asked in &self.0 {
            let place = node.label(asked.key);
            let copies = place.and_then(|place| asked.copies.get(place)).copied();
            let copies = copies.unwrap_or_default();
            match asked.rule {
                Rule::Near if copies == 0 => {
                    return Err("where no function of functionAffinity runs");
                }
                Rule::Away if copies > 0 => {
                    return Err("where a function of functionAntiAffinity runs");
                }
                Rule::KeptAway if copies > 0 => {
                    return Err("where a function runs that keeps this one away");
                }
                Rule::AtMost(_) if place.is_none() => {
                    return Err("without the label of topologySpreadConstraints");
                }
                Rule::AtMost(most) if copies >= most => {
                    return Err("with as many copies as topologySpreadConstraints allow");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How many copies are where fewer were asked for; and what weighs for a node, or against it.
    pub fn score(&self, node: &NodeView) -> (usize, i64) {
        let (mut crowd, mut weight) = (0, 0);
        for asked in &self.0 {
            let place = node.label(asked.key);
            let copies = place.and_then(|place| asked.copies.get(place)).copied();
            match asked.rule {
                // Where there is no place, none can be evened out.
                Rule::Spread if place.is_none() => crowd += MAX_REPLICAS as usize,
                Rule::Spread => crowd += copies.unwrap_or_default(),
                Rule::Weighs(each) => {
                    let copies = i64::try_from(copies.unwrap_or_default()).unwrap_or(i64::MAX);
                    weight += each.saturating_mul(copies);
                }
                Rule::Near | Rule::Away | Rule::KeptAway | Rule::AtMost(_) => {}
            }
        }
        (crowd, weight)
    }
}

/// What other functions ask that want this one away from them.
fn kept_away<'a>(function: &'a FunctionView, board: &Board<'a>) -> Vec<Asked<'a>> {
    let mut asked = Vec::new();
    for other in &board.repelling {
        if other.key.namespace != function.key.namespace || other.uid == function.uid {
            continue;
        }
        let affinity = other.spec.affinity.as_ref();
        let away = affinity.and_then(|it| it.function_anti_affinity.as_ref());
        for (term, weight) in away.into_iter().flat_map(FunctionAffinity::terms) {
            if weight.is_none() && selects(term.label_selector.as_ref(), function) {
                asked.push(Asked {
                    key: &term.topology_key,
                    copies: counted(board, &term.topology_key, &[&*other.uid].into()),
                    rule: Rule::KeptAway,
                });
            }
        }
    }
    asked
}

fn spread<'a>(
    function: &'a FunctionView,
    constraint: &'a TopologySpreadConstraint,
    board: &Board<'a>,
) -> Asked<'a> {
    let (key, selector) = (
        &*constraint.topology_key,
        constraint.label_selector.as_ref(),
    );
    let chosen = match selector {
        None => [&*function.uid].into(),
        Some(_) => chosen(function, selector, board),
    };
    let copies = counted(board, key, &chosen);
    let rule = match constraint.when_unsatisfiable {
        WhenUnsatisfiable::ScheduleAnyway => Rule::Spread,
        WhenUnsatisfiable::DoNotSchedule => {
            // Of places that could take a copy: one that is lost, cordoned or of the wrong kind holds nobody up.
            let open = board.nodes.values().map(|seat| seat.view);
            let open = open.filter(|node| board.admits(function, node).is_ok());
            let counts = open.filter_map(|node| {
                let place = node.label(key)?;
                Some(copies.get(place).copied().unwrap_or_default())
            });
            let least = counts.min().unwrap_or_default();
            let is_counted = usize::from(chosen.contains(&*function.uid));
            Rule::AtMost(least + constraint.max_skew as usize + 1 - is_counted)
        }
    };
    Asked { key, copies, rule }
}

/// The uids of the functions that a selector means.
fn chosen<'a>(
    function: &FunctionView,
    selector: Option<&LabelSelector>,
    board: &Board<'a>,
) -> HashSet<&'a str> {
    let functions = board.functions.iter();
    functions
        .filter(|other| other.key.namespace == function.key.namespace && selects(selector, other))
        .map(|other| &*other.uid)
        .collect()
}

fn selects(selector: Option<&LabelSelector>, function: &FunctionView) -> bool {
    let label = |key: &str| match key {
        FUNCTION_LABEL => Some(&*function.key.name),
        _ => function.labels.get(key).map(String::as_str),
    };
    selector.is_some_and(|selector| label_selector::selects(selector, label))
}

/// The copies of some functions in each place that has any.
fn counted<'a>(board: &Board<'a>, key: &str, uids: &HashSet<&str>) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for seat in board.nodes.values() {
        let copies = seat.copies_of(uids);
        if copies > 0
            && let Some(place) = seat.view.label(key)
        {
            *counts.entry(place).or_default() += copies;
        }
    }
    counts
}
