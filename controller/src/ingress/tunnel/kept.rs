//! Connections to targets between two requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use hive_manifests::tunnel::TunnelTarget;
use tokio::time::Instant;

use super::sender::Sender;
use super::wire::Activity;
use crate::state::Key;

/// For how long a connection waits for the next request. Of the servers in wide use Node.js waits the shortest,
/// five seconds; who sends at the moment in which the other end closes cannot know whether it arrived.
const KEPT_FOR: Duration = Duration::from_secs(4);

/// Connections of one tunnel that wait: what a burst of requests leaves behind. Each takes one of the 256 streams
/// that a node allows, and one of the connections that its agent may have.
const KEPT: usize = 32;

/// A connection to a target on which HTTP is spoken.
pub struct Connection {
    pub target: TunnelTarget,
    /// The id of the link in which it is: a node that came back by another is not asked by the one before.
    pub link: u64,
    pub sender: Sender,
    pub activity: Activity,
}

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// By tunnel, where there are any; those that wait longest first.
    idle: HashMap<Key, Vec<Idle>>,
    /// A task looks for those that wait too long.
    is_swept: bool,
}

struct Idle {
    since: Instant,
    connection: Connection,
}

impl Idle {
    fn may_stay(&self) -> bool {
        !self.connection.sender.is_closed() && self.since.elapsed() < KEPT_FOR
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.0)
    }

    /// The one to a target that was used last.
    pub fn take(&self, tunnel: &Key, target: &TunnelTarget, link: u64) -> Option<Connection> {
        let mut waiting = self.lock();
        let idle = waiting.idle.get_mut(tunnel)?;
        let index = idle.iter().rposition(|it| {
            let Connection {
                target: to,
                link: by,
                sender,
                ..
            } = &it.connection;
            *by == link && to == target && sender.is_ready() && it.may_stay()
        })?;
        Some(idle.remove(index).connection)
    }

    /// Keeps a connection whose answer was read. One that others share is kept elsewhere.
    pub fn keep(&self, tunnel: &Key, connection: Connection) {
        if let Sender::Http2(..) = connection.sender {
            return;
        }
        let mut waiting = self.lock();
        let idle = waiting.idle.entry(tunnel.clone()).or_default();
        if idle.len() >= KEPT {
            idle.remove(0);
        }
        idle.push(Idle {
            since: Instant::now(),
            connection,
        });
        if !waiting.is_swept {
            waiting.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().expect("no holder of the lock panics")
}

/// Closes what waits too long, until nothing waits.
async fn sweep(kept: Weak<Mutex<Waiting>>) {
    loop {
        tokio::time::sleep(KEPT_FOR / 4).await;
        let Some(kept) = kept.upgrade() else {
            return;
        };
        let mut waiting = lock(&kept);
        waiting.idle.retain(|_, idle| {
            idle.retain(Idle::may_stay);
            !idle.is_empty()
        });
        if waiting.idle.is_empty() {
            waiting.is_swept = false;
            return;
        }
    }
}
