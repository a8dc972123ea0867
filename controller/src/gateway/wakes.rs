//! Wakes the sessions that a change concerns, and no others: one task looks at what changed, so that ten
//! thousand sessions need not.
//!
//! A wake-up carries no data; whoever is woken rereads the state. Should the task end, sessions would
//! hear of nothing new: it ends with the gateway only.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_manifests::Resource;
use hive_proto::v1::Endpoint;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::endpoints;
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::routes::SETTINGS;
use crate::state::{Placed, State};
use crate::store::Replica;

/// A clone wakes the same sessions.
#[derive(Clone, Default)]
pub struct Wakes(Arc<Mutex<HashMap<String, watch::Sender<()>>>>);

/// Whom changes concern.
#[derive(Debug, PartialEq, Eq)]
enum Concerned {
    All,
    Nodes(BTreeSet<String>),
}

/// What every agent is told.
#[derive(PartialEq)]
struct ForAll {
    controllers: Vec<Endpoint>,
    epoch: u64,
}

impl ForAll {
    fn of(state: &State) -> Self {
        Self {
            controllers: endpoints(state),
            epoch: state.epoch(),
        }
    }
}

impl Wakes {
    /// Changes whenever something may have happened that concerns a node. To be asked for before the
    /// state is read.
    pub fn of(&self, node: &str) -> watch::Receiver<()> {
        let mut sessions = self.sessions();
        let sender = sessions.entry(node.to_owned()).or_default();
        sender.subscribe()
    }

    /// Follows the state, from this call on, until cancelled. A session that begins after the call misses
    /// nothing, however late the future is polled first.
    pub fn run(
        self,
        replica: Replica,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        let mut revisions = replica.revisions();
        let state = replica.state();
        let (mut seen, mut for_all) = (state.revision(), ForAll::of(&state));
        async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    changed = revisions.changed() => if changed.is_err() { return },
                }
                revisions.borrow_and_update();
                let state = replica.state();
                let now = ForAll::of(&state);
                let concerned = match now == for_all {
                    true => concerned(&state, seen),
                    false => Concerned::All,
                };
                self.wake(concerned);
                (seen, for_all) = (state.revision(), now);
            }
        }
    }

    fn wake(&self, concerned: Concerned) {
        let mut sessions = self.sessions();
        match concerned {
            Concerned::All => sessions.retain(|_, sender| sender.send(()).is_ok()),
            Concerned::Nodes(nodes) => {
                for node in nodes {
                    // Nobody is there to be woken: the session has ended.
                    if sessions.get(&node).is_some_and(|s| s.send(()).is_err()) {
                        sessions.remove(&node);
                    }
                }
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes whose desired set, or whose session, the changes after revision `seen` may concern.
fn concerned(state: &State, seen: u64) -> Concerned {
    let Ok(changes) = state.changes_since(seen) else {
        return Concerned::All;
    };
    let mut nodes = BTreeSet::new();
    // Values of these are part of desired sets.
    let mut referable = BTreeSet::new();
    for change in changes {
        let (namespace, name) = (&*change.key.namespace, &*change.key.name);
        match change.key.resource {
            Resource::Node => {
                nodes.insert(name.to_owned());
            }
            Resource::Assignment => {
                let versions = [&change.before, &change.after].into_iter().flatten();
                let placed = versions.filter_map(|object| Placed::of(object));
                nodes.extend(placed.flat_map(Placed::nodes));
            }
            // The domain is in every route.
            Resource::ConfigMap if namespace == SYSTEM_NAMESPACE && name == SETTINGS => {
                return Concerned::All;
            }
            Resource::Secret | Resource::ConfigMap => {
                referable.insert(namespace);
            }
            Resource::Namespace
            | Resource::ServiceAccount
            | Resource::ResourceQuota
            | Resource::LimitRange
            | Resource::ClusterRole
            | Resource::ClusterRoleBinding
            | Resource::Role
            | Resource::RoleBinding
            | Resource::CertificateSigningRequest
            | Resource::Event
            | Resource::Function
            | Resource::Tunnel
            | Resource::ControllerRevision => {}
        }
    }
    for namespace in referable {
        let own = state.nodes_with_assignments_in(namespace);
        nodes.extend(own.map(str::to_owned));
    }
    Concerned::Nodes(nodes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::declare;
    use crate::state::Key;
    use serde_json::{Value, json};

    fn put(state: &mut State, resource: Resource, namespace: &str, name: &str, extra: Value) {
        let key = Key::new(resource, namespace, name);
        declare(state, key, extra);
    }

    #[test]
    fn only_what_concerns_a_node_wakes_its_session() {
        let mut state = State::default();
        let on = |node: &str| json!({ "spec": { "nodeName": node } });
        let (a, s) = (Resource::Assignment, Resource::Secret);
        put(&mut state, a, "default", "hello.0", on("pi"));
        put(&mut state, a, "shop", "cart.0", on("phone"));
        let mut after = |resource, namespace: &str, name: &str, extra| {
            let seen = state.revision();
            put(&mut state, resource, namespace, name, extra);
            match concerned(&state, seen) {
                Concerned::All => vec!["everybody".to_owned()],
                Concerned::Nodes(nodes) => nodes.into_iter().collect(),
            }
        };
        let nobody: [&str; 0] = [];
        let none = || json!({});
        assert_eq!(after(Resource::Event, "default", "e", none()), nobody);
        assert_eq!(after(Resource::Function, "default", "f", none()), nobody);
        assert_eq!(after(Resource::Node, "", "phone", none()), ["phone"]);
        assert_eq!(after(a, "default", "hello.1", on("tablet")), ["tablet"]);
        assert_eq!(after(a, "default", "hello.1", on("pi")), ["pi", "tablet"]);
        // Of a namespace in which a node has nothing, nothing can matter to it.
        assert_eq!(after(s, "shop", "key", none()), ["phone"]);
        assert_eq!(after(s, SYSTEM_NAMESPACE, "token-1", none()), nobody);
        let settings = after(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS, none());
        assert_eq!(settings, ["everybody"]);
    }

    #[test]
    fn who_listens_no_more_is_forgotten() {
        let wakes = Wakes::default();
        let (first, mut second) = (wakes.of("pi"), wakes.of("phone"));
        drop(first);
        wakes.wake(Concerned::Nodes(["pi".to_owned()].into()));
        assert!(!second.has_changed().unwrap());
        wakes.wake(Concerned::All);
        assert!(second.has_changed().unwrap());
        second.mark_unchanged();
        assert_eq!(wakes.sessions().len(), 1);
    }
}
