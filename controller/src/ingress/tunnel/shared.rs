//! Connections to targets that speak HTTP/2: each carries many requests at once, as gRPC expects.
//!
//! Requests that come while a connection is being opened wait for that one, and share what becomes of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use hive_manifests::tunnel::TunnelTarget;
use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use super::TunnelError;
use super::wire::Activity;
use crate::gateway::Body;
use crate::state::Key;

/// Requests on one connection: no server should allow fewer (RFC 9113, 6.5.2), and what it does not allow would wait
/// behind calls that last for hours. More take another connection.
const MOST: usize = 100;

/// For how long a connection waits for the next request. Servers of gRPC keep them for hours; it takes one of the
/// node's streams.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// An open connection.
#[derive(Clone)]
pub struct Http2 {
    pub sender: SendRequest<Body>,
    pub activity: Activity,
}

/// What became of opening one.
pub type Opened = Result<Http2, Arc<TunnelError>>;
type Opening = future::Shared<BoxFuture<'static, Opened>>;

/// Where a connection leads, and in which link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub tunnel: Key,
    pub target: TunnelTarget,
    /// A node that came back by another is not asked by the one before.
    pub link: u64,
}

/// A request's share in a connection; held for as long as the request lasts.
pub struct Share {
    place: Place,
    uses: Arc<()>,
}

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Lanes>>);

#[derive(Default)]
struct Lanes {
    by_place: HashMap<Place, Vec<Lane>>,
    /// A task looks for those that wait too long.
    is_swept: bool,
}

struct Lane {
    opening: Opening,
    /// One more than there are requests on it.
    uses: Arc<()>,
    /// When a request took it last.
    taken: Instant,
}

impl Lane {
    fn requests(&self) -> usize {
        Arc::strong_count(&self.uses) - 1
    }

    fn may_stay(&self) -> bool {
        match self.opening.peek() {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(open)) => {
                let is_used = self.requests() > 0 || self.taken.elapsed() < KEPT_FOR;
                is_used && !open.sender.is_closed()
            }
        }
    }
}

impl Shared {
    /// A connection to a place, opened by `open` where there is none with room; and whether it was there.
    pub async fn take(
        &self,
        place: Place,
        open: impl Future<Output = Opened> + Send + 'static,
    ) -> (Opened, Share, bool) {
        let (opening, share, was_open) = self.join(place, open);
        (opening.await, share, was_open)
    }

    fn join(
        &self,
        place: Place,
        open: impl Future<Output = Opened> + Send + 'static,
    ) -> (Opening, Share, bool) {
        let mut all = lock(&self.0);
        let lanes = all.by_place.entry(place.clone()).or_default();
        lanes.retain(Lane::may_stay);
        let room = lanes.iter().position(|lane| lane.requests() < MOST);
        let index = room.unwrap_or_else(|| {
            let opening = open.boxed().shared();
            // Whoever asked for it may be gone before it is open.
            tokio::spawn(opening.clone().map(drop));
            lanes.push(Lane {
                opening,
                uses: Arc::new(()),
                taken: Instant::now(),
            });
            lanes.len() - 1
        });
        let lane = &mut lanes[index];
        lane.taken = Instant::now();
        let share = Share {
            place,
            uses: lane.uses.clone(),
        };
        let joined = (lane.opening.clone(), share, lane.opening.peek().is_some());
        if !all.is_swept {
            all.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
        joined
    }

    /// No further request takes this connection: one of them failed on it. The others go on.
    pub fn forget(&self, share: &Share) {
        let mut all = lock(&self.0);
        if let Some(lanes) = all.by_place.get_mut(&share.place) {
            lanes.retain(|lane| !Arc::ptr_eq(&lane.uses, &share.uses));
        }
    }
}

fn lock(lanes: &Mutex<Lanes>) -> MutexGuard<'_, Lanes> {
    lanes.lock().expect("no holder of the lock panics")
}

/// Closes what waits too long, until nothing waits.
async fn sweep(shared: Weak<Mutex<Lanes>>) {
    loop {
        tokio::time::sleep(KEPT_FOR / 4).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut all = lock(&shared);
        all.by_place.retain(|_, lanes| {
            lanes.retain(Lane::may_stay);
            !lanes.is_empty()
        });
        if all.by_place.is_empty() {
            all.is_swept = false;
            return;
        }
    }
}
