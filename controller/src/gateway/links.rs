//! The links that nodes hold to this controller: how each is reached from here, if it is.
//!
//! Soft state: links come and go, and nothing of them is ever written down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hive_proto::link::Link;
use imbl::OrdSet;
use tokio::sync::watch;

/// An agent keeps one link to a controller, and two while it changes over. What is older is dead
/// and not yet known to be.
const MAX_LINKS: usize = 4;

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Links {
    /// By node, newest last: a node that came back is reached by its new link.
    links: Arc<Mutex<BTreeMap<String, Vec<Link>>>>,
    present: Arc<watch::Sender<OrdSet<String>>>,
}

impl Links {
    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Link>>> {
        self.links.lock().expect("no holder of the lock panics")
    }

    /// The newest link of a node that lives.
    pub fn of(&self, node: &str) -> Option<Link> {
        let links = self.links();
        let mut links = links.get(node)?.iter().rev();
        links.find(|link| link.end().is_none()).cloned()
    }

    /// Nodes that hold a live link to this controller.
    pub fn present(&self) -> watch::Receiver<OrdSet<String>> {
        self.present.subscribe()
    }

    /// Waits until one of `nodes` is linked here, for `patience` at most.
    pub async fn linked(&self, nodes: &[String], patience: Duration) {
        let any = |present: &OrdSet<String>| nodes.iter().any(|node| present.contains(node));
        if nodes.is_empty() || any(&self.present.borrow()) {
            return;
        }
        let mut present = self.present.subscribe();
        // Who waited in vain finds out by asking.
        let _ = tokio::time::timeout(patience, present.wait_for(any)).await;
    }

    pub(crate) fn add(&self, node: &str, link: Link) {
        let mut all = self.links();
        let links = all.entry(node.to_owned()).or_default();
        links.push(link);
        if links.len() > MAX_LINKS {
            links.remove(0).close("a newer link took over");
        }
        self.publish(node, true);
    }

    pub(crate) fn remove(&self, node: &str, id: u64) {
        let mut all = self.links();
        if let Some(links) = all.get_mut(node) {
            links.retain(|link| link.id() != id);
            if links.is_empty() {
                all.remove(node);
                self.publish(node, false);
            }
        }
    }

    /// To be called with the links held, so that the set follows them.
    fn publish(&self, node: &str, is_linked: bool) {
        self.present.send_if_modified(|known| match is_linked {
            true => known.insert(node.to_owned()).is_none(),
            false => known.remove(node).is_some(),
        });
    }

    pub(super) fn nodes(&self) -> Vec<String> {
        self.links().keys().cloned().collect()
    }

    /// Closes the links of a node that `allowed` no longer lets in.
    pub(super) fn close_unless(&self, node: &str, allowed: impl Fn(&Link) -> bool) {
        let all = self.links();
        let links = all.get(node).into_iter().flatten();
        for link in links.filter(|link| !allowed(link)) {
            tracing::info!(node, link = link.id(), "closing the link of a removed node");
            link.close("this node was removed from the swarm");
        }
    }
}
