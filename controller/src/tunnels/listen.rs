//! The ports of tunnels, of TCP and of UDP: each is open here while a tunnel has it.
//!
//! A port that passes from one tunnel to another stays open, and a tunnel that changes keeps its own. What cannot be
//! opened is told, and tried again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::carry::Client;
use super::live::Live;
use super::table::Table;
use super::{Tunnels, carry, udp};
use crate::accept::{Accepted, Doorway};
use crate::patience;
use crate::state::Key;

/// Connections at once of all tunnels with ports or of TLS by name, with one for each port; more wait in the kernel's
/// queues, or are refused where their greeting was read. Beside the 10,000 of the ingress, which leaves some of the
/// 20,000 open files that a process commonly may have.
const MAX_CONNECTIONS: usize = 8_000;

/// Flows of all tunnels of UDP at once; more are refused. None has a file of its own here, but a task, and a stream of
/// a link. Anybody can begin some under any address: they may not take the places of connections.
const MAX_FLOWS: usize = 8_000;

/// The places of connections that are carried as they come. A clone is the same.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONNECTIONS)))
    }
}

impl Places {
    /// One of them, if there is one left.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }

    /// None is left.
    pub fn are_taken(&self) -> bool {
        self.0.available_permits() == 0
    }
}

/// Whether the ports of tunnels are open here, or in one sentence why not. A clone is the same.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<BTreeMap<Key, Result<(), String>>>>);

impl Listeners {
    /// By tunnel, why its port is not open here.
    pub fn problems(&self) -> BTreeMap<Key, String> {
        let all = self.lock();
        let problems = all
            .iter()
            .filter_map(|(key, open)| Some((key.clone(), open.clone().err()?)));
        problems.collect()
    }

    /// `None` of a tunnel that has no port, or is not known here yet.
    pub fn of(&self, tunnel: &Key) -> Option<Result<(), String>> {
        self.lock().get(tunnel).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Result<(), String>>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// The ports that are open. When dropped, they close.
pub struct Doors {
    tunnels: Tunnels,
    at: IpAddr,
    open: BTreeMap<u16, Door>,
    open_udp: BTreeMap<u16, Door>,
    flows: Arc<Semaphore>,
}

struct Door {
    /// Whose connections they are that come now.
    owner: watch::Sender<Arc<Live>>,
    _stop: DropGuard,
}

impl Doors {
    pub fn new(tunnels: Tunnels, at: IpAddr) -> Self {
        Self {
            tunnels,
            at,
            open: BTreeMap::new(),
            open_udp: BTreeMap::new(),
            flows: Arc::new(Semaphore::new(MAX_FLOWS)),
        }
    }

    /// Opens and closes ports as a table says, whose tunnels live already. False if one of them cannot be opened.
    pub async fn follow(&mut self, table: &Table) -> bool {
        self.open.retain(|port, _| table.ports.contains_key(port));
        self.open_udp
            .retain(|port, _| table.udp_ports.contains_key(port));
        let mut found = BTreeMap::new();
        for (port, key) in &table.ports {
            let Some(live) = self.tunnels.get(key) else {
                continue;
            };
            if let Some(door) = self.open.get(port) {
                door.owner.send_replace(live);
                found.insert(key.clone(), Ok(()));
                continue;
            }
            let at = SocketAddr::new(self.at, *port);
            match TcpListener::bind(at).await {
                Ok(listener) => {
                    tracing::info!(tunnel = %key, %at, "listening for a tunnel");
                    let door = self.door(listener, live);
                    self.open.insert(*port, door);
                    found.insert(key.clone(), Ok(()));
                }
                Err(error) => {
                    let problem = format!("cannot listen on {at}: {error}");
                    found.insert(key.clone(), Err(problem));
                }
            }
        }
        for (port, key) in &table.udp_ports {
            let Some(live) = self.tunnels.get(key) else {
                continue;
            };
            if let Some(door) = self.open_udp.get(port) {
                door.owner.send_replace(live);
                found.insert(key.clone(), Ok(()));
                continue;
            }
            let at = SocketAddr::new(self.at, *port);
            match udp::Socket::bind(at) {
                Ok(socket) => {
                    tracing::info!(tunnel = %key, %at, "listening for a tunnel of udp");
                    let door = self.udp_door(socket, live);
                    self.open_udp.insert(*port, door);
                    found.insert(key.clone(), Ok(()));
                }
                Err(error) => {
                    let problem = format!("cannot listen on {at} for datagrams: {error}");
                    found.insert(key.clone(), Err(problem));
                }
            }
        }
        let mut known = self.tunnels.listeners.lock();
        for (key, open) in &found {
            if let Err(problem) = open
                && known.get(key) != Some(open)
            {
                tracing::warn!(tunnel = %key, problem, "a tunnel's port is not open here");
            }
        }
        if *known != found {
            *known = found;
            // Whoever proves tunnels looks at once.
            self.tunnels.health.wakes().notify_one();
        }
        known.values().all(Result::is_ok)
    }

    fn door(&self, listener: TcpListener, live: Arc<Live>) -> Door {
        let stop = CancellationToken::new();
        let (owner, owners) = watch::channel(live);
        let doorway = Doorway::sharing(listener, self.tunnels.places.0.clone(), "tunnels");
        let tunnels = self.tunnels.clone();
        self.tunnels
            .spawn(accept(doorway, tunnels, owners, stop.clone()));
        Door {
            owner,
            _stop: stop.drop_guard(),
        }
    }

    fn udp_door(&self, socket: udp::Socket, live: Arc<Live>) -> Door {
        let stop = CancellationToken::new();
        let (owner, owners) = watch::channel(live);
        let places = self.flows.clone();
        let port = udp::Port::new(socket, self.tunnels.clone(), owners, places, stop.clone());
        self.tunnels.spawn(port.serve());
        Door {
            owner,
            _stop: stop.drop_guard(),
        }
    }
}

/// Takes connections until the port is to close.
async fn accept(
    doorway: Doorway,
    tunnels: Tunnels,
    owner: watch::Receiver<Arc<Live>>,
    stop: CancellationToken,
) {
    while let Some(accepted) = doorway.accept(&stop).await {
        let Accepted {
            stream,
            remote,
            place,
        } = accepted;
        patience::prepare(&stream);
        let live = owner.borrow().clone();
        live.note_client();
        let carried = carry::carry(tunnels.clone(), live, Client::new(stream, remote));
        tunnels.spawn(async move {
            carried.await;
            drop(place);
        });
    }
}
