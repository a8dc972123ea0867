//! What functions' statuses should say: a pure function of what there is.

use std::collections::{BTreeMap, BTreeSet};

use hive_manifests::Phase;

use super::base::Base;
use super::explain::Situation;
use crate::ingress::routes::{Follower, Lost};
use crate::reconcile::schedule::{AssignmentView, Copies, Plan, View, copies};
use crate::state::{Key, State};

/// What a function's status should say.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub generation: i64,
    pub replicas: usize,
    pub ready: usize,
    pub updated: usize,
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
    pub url: String,
    /// Why it does not have one of its routes.
    pub lost_route: Option<Lost>,
}

/// All functions' summaries, by the view of a state, the plan for it, and who has which route. Pure.
pub fn summaries(
    state: &State,
    view: &View,
    plan: &Plan,
    routes: &Follower,
) -> BTreeMap<Key, Summary> {
    let ready_nodes: BTreeSet<&str> = view
        .nodes
        .iter()
        .filter(|node| node.ready)
        .map(|node| &*node.name)
        .collect();
    let base = Base::of(state);
    copies(view, plan)
        .map(|(function, copies)| {
            let is_ready = |a: &&&AssignmentView| {
                a.phase == Phase::Ready && ready_nodes.contains(&*a.spec.node_name)
            };
            let ready = copies.own.iter().filter(is_ready).count();
            let updated = copies.updated(&function.spec.template()).count();
            let Copies {
                own,
                trials,
                wanted,
            } = copies;
            let situation = Situation {
                function,
                own: &own,
                trials: &trials,
                ready_nodes: &ready_nodes,
                ready,
                updated,
                wanted,
                unplaced: plan.unplaced.get(&function.key).map(String::as_str),
            };
            let serves_elsewhere = own.iter().any(|copy| {
                let previous = copy.spec.previous.as_ref();
                previous.is_some_and(|it| ready_nodes.contains(&*it.node_name))
            });
            let available = ready > 0 || serves_elsewhere || situation.is_scaled_to_zero();
            let (reason, message) = situation.explain(state);
            let summary = Summary {
                generation: function.generation,
                replicas: wanted,
                ready,
                updated,
                available,
                reason,
                message,
                url: base.url_of(function),
                lost_route: routes.lost(&function.key),
            };
            (function.key.clone(), summary)
        })
        .collect()
}
