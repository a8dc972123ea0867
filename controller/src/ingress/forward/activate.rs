//! Requests for functions that have no copy and get one because of them: they wait here, a bounded number for
//! a bounded time.
//!
//! That they are under way is told to the leader like that of any other request, at once; it is what wakes the
//! function. Nothing is decided here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hive_proto::invoke;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{ForwardError, Forwarder, FunctionBackend, Routes};
use crate::gateway::Body;
use crate::ingress::repeat::Copy;
use crate::state::Key;
use crate::traffic::Counting;

/// A component of 18 MB is fetched over a slow link and loaded in less. Callers give up about then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests that wait at once, each with at most 16 KiB of body.
const WAITING_AT_MOST: usize = 4096;

/// Of these, how many may be of one function: a flood of one leaves places for the others.
const WAITING_OF_ONE: usize = 1024;

/// Between two tries at nodes whose copies have ended, if no change is heard of.
const GONE_PAUSE: Duration = Duration::from_millis(100);

/// The places in which requests wait. A clone is the same.
#[derive(Clone, Default)]
pub struct WaitingRoom {
    /// By function, where there are any.
    taken: Arc<Mutex<HashMap<Key, usize>>>,
}

/// One request that waits, until it is dropped.
struct Place {
    room: WaitingRoom,
    function: Key,
}

impl WaitingRoom {
    /// `None` if as many wait as may.
    fn enter(&self, function: &Key) -> Option<Place> {
        let mut taken = self.taken.lock().expect("no holder of the lock panics");
        let all: usize = taken.values().sum();
        let own = taken.get(function).copied().unwrap_or_default();
        if all >= WAITING_AT_MOST || own >= WAITING_OF_ONE {
            return None;
        }
        taken.insert(function.clone(), own + 1);
        Some(Place {
            room: self.clone(),
            function: function.clone(),
        })
    }
}

impl Place {
    /// The routes in which the function is ready somewhere, `None` if it was not by then or is no more.
    async fn wait(
        &self,
        mut routes: watch::Receiver<Arc<Routes>>,
        until: Instant,
    ) -> Option<Arc<Routes>> {
        let is_known = |routes: &Arc<Routes>| {
            let backend = routes.function(&self.function);
            backend.is_none_or(FunctionBackend::is_ready)
        };
        let found = timeout_at(until, routes.wait_for(is_known)).await;
        let routes = found.ok()?.ok()?.clone();
        let backend = routes.function(&self.function);
        backend
            .is_some_and(FunctionBackend::is_ready)
            .then_some(routes)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .room
            .taken
            .lock()
            .expect("no holder of the lock panics");
        if let Some(places) = taken.get_mut(&self.function) {
            *places -= 1;
            if *places == 0 {
                taken.remove(&self.function);
            }
        }
    }
}

impl Forwarder {
    /// Sends it to a function that may have no copy yet, or none any more when it arrives: then it waits for
    /// one.
    pub(super) async fn send_awake(
        &self,
        backend: &FunctionBackend,
        request: Request<Body>,
        copy: Option<Copy>,
    ) -> Result<Response<Counting<Incoming>>, ForwardError> {
        let function = &backend.key;
        let until = Instant::now() + PATIENCE.min(backend.timeout);
        let mut next = Some(request);
        loop {
            // What is heard while the request is on its way counts, too.
            let mut others = self.routes.clone();
            let mut routes = others.borrow_and_update().clone();
            if !routes
                .function(function)
                .is_some_and(FunctionBackend::is_ready)
            {
                let place = self
                    .waiting
                    .enter(function)
                    .ok_or_else(|| ForwardError::Crowded(function.name.clone()))?;
                let _counted = self.loads.begin(function, "");
                // Before the next report is due: it is what makes a copy come.
                self.loads.hurry();
                routes = place
                    .wait(self.routes.clone(), until)
                    .await
                    .ok_or_else(|| ForwardError::Asleep(function.name.clone()))?;
            }
            let request = next.take().or_else(|| copy.as_ref().map(Copy::request));
            let (Some(ready), Some(request)) = (routes.function(function), request) else {
                return Err(ForwardError::NotReady(function.name.clone()));
            };
            let sent = self.send(ready, request, copy.clone()).await;
            let again = copy.is_some() && Instant::now() < until;
            match sent {
                // The copies ended while it was on its way. This controller hears of it at any moment.
                Ok(response) if again && is_gone(&response) => {
                    let pause = until.min(Instant::now() + GONE_PAUSE);
                    let _ = timeout_at(pause, others.changed()).await;
                }
                sent => return sent,
            }
        }
    }
}

/// The node has no copy of the function.
fn is_gone<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    headers.contains_key(invoke::RETRY)
        && headers
            .get(invoke::REASON)
            .is_some_and(|it| it == "NotReady")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;

    use super::*;

    fn function(name: &str) -> Key {
        Key::new(Resource::Function, "default", name)
    }

    #[test]
    fn one_function_takes_a_part_of_the_room_and_all_no_more_than_there_is() {
        let room = WaitingRoom::default();
        let fill = |name: &str| -> Vec<Place> {
            std::iter::from_fn(|| room.enter(&function(name))).collect()
        };
        let first = fill("a");
        assert_eq!(first.len(), WAITING_OF_ONE);
        let mut all: Vec<Place> = ["b", "c", "d", "e"].into_iter().flat_map(fill).collect();
        assert_eq!(first.len() + all.len(), WAITING_AT_MOST);
        all.pop();
        assert!(room.enter(&function("e")).is_some());
        assert!(room.enter(&function("a")).is_none());
        drop((first, all));
        assert!(room.taken.lock().unwrap().is_empty());
    }
}
