//! The links between replicas, in memory, which a test can cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hive_controller::gateway::serve_calls;
use hive_controller::peers::{Connect, Route};
use hive_controller::store::Replica;
use hive_identity::{DeviceKey, Peer, Subject};
use hive_proto::grpc::GrpcStream;
use hive_proto::link::{Link, Purpose, memory};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Who can reach whom.
#[derive(Clone, Default)]
pub(super) struct Fabric(Arc<Mutex<Wires>>);

/// Takes the streams of those who dial one replica.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) grpc: mpsc::Sender<GrpcStream>,
    /// None of an older version, which knows no streams of calls.
    pub(super) calls: Option<Replica>,
    pub(super) cancel: CancellationToken,
}

impl Door {
    async fn serve(self, accepted: Link) {
        while let Ok((purpose, stream)) = accepted.accept().await {
            match (purpose, &self.calls) {
                (Purpose::Grpc, _) => {
                    if self.grpc.send(GrpcStream::new(stream)).await.is_err() {
                        return;
                    }
                }
                (Purpose::Calls, Some(replica)) => {
                    let served = serve_calls(replica.clone(), stream, self.cancel.clone());
                    tokio::spawn(served);
                }
                _ => drop(stream),
            }
        }
    }
}

#[derive(Default)]
struct Wires {
    serving: BTreeMap<u64, Door>,
    isolated: BTreeSet<u64>,
    /// By who dials and who is dialled.
    wires: BTreeMap<(u64, u64), watch::Sender<Option<Link>>>,
}

impl Fabric {
    pub(super) fn connect(&self, from: u64) -> Connect {
        let fabric = self.clone();
        Box::new(move |to, _| {
            let (sender, links) = watch::channel(None);
            let mut wires = fabric.0.lock().unwrap();
            wires.wires.insert((from, to), sender);
            wires.mend();
            Route::following(links)
        })
    }

    pub(super) fn serve(&self, id: u64, door: Door) {
        let mut wires = self.0.lock().unwrap();
        wires.serving.insert(id, door);
        wires.mend();
    }

    pub(super) fn isolate(&self, id: u64) {
        let mut wires = self.0.lock().unwrap();
        wires.isolated.insert(id);
        for ((from, to), wire) in &wires.wires {
            if (*from == id || *to == id)
                && let Some(link) = wire.send_replace(None)
            {
                link.close("cut by the test");
            }
        }
    }

    pub(super) fn heal(&self, id: u64) {
        let mut wires = self.0.lock().unwrap();
        wires.isolated.remove(&id);
        wires.mend();
    }

    pub(super) fn stop_serving(&self, id: u64) {
        self.isolate(id);
        let mut wires = self.0.lock().unwrap();
        wires.isolated.remove(&id);
        wires.serving.remove(&id);
        wires.wires.retain(|(from, _), _| *from != id);
    }
}

impl Wires {
    fn mend(&mut self) {
        for ((from, to), wire) in &self.wires {
            let whole = wire.borrow().as_ref().is_some_and(|l| l.end().is_none());
            if whole || self.isolated.contains(from) || self.isolated.contains(to) {
                continue;
            }
            let Some(door) = self.serving.get(to).cloned() else {
                continue;
            };
            let (dialled, accepted) = memory::pair(peer(*from), peer(*to));
            tokio::spawn(door.serve(accepted));
            wire.send_replace(Some(dialled));
        }
    }
}

fn peer(id: u64) -> Peer {
    Peer {
        subject: Subject::Controller { raft_id: id },
        key: DeviceKey::generate().fingerprint(),
        cluster: "test".to_owned(),
        not_after: SystemTime::now() + Duration::from_secs(3600),
    }
}
