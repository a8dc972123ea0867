//! Datagrams of a link, each of one flow: they arrive soon or not at all, in any order.
//!
//! QUIC has them, and memory; TCP has none, and says so. A task hands out what comes, from the first flow of a link
//! on. Whoever is slow loses what it did not take in time, and nobody else loses anything: nothing queues up
//! without end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{Connection, Link};

/// Before each datagram: the number of its flow.
const HEADER: usize = size_of::<u32>();

/// Of one flow, not asked for yet: what a socket hands over at once while a task waits for a core.
const QUEUE: usize = 64;

/// Of all flows of a link together: each may fill its queue, but not all of thousands.
const QUEUE_BYTES: usize = 4 << 20;

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It is longer than one packet of the path carries, or the link has no datagrams: a stream carries it.
    #[error("the link carries no datagram of this size")]
    TooLong,
    /// More wait to be sent than may.
    #[error("the link is busier than it can be")]
    Full,
    #[error("the link has ended")]
    Ended,
}

/// The datagrams of one flow. The flow ends when this is dropped.
pub struct Datagrams {
    id: u32,
    link: Link,
    arrived: mpsc::Receiver<Bytes>,
}

/// Sends the datagrams of a flow.
#[derive(Clone)]
pub struct DatagramSender {
    id: u32,
    link: Link,
}

impl Link {
    /// A flow that no other of this link has the number of. One side begins all of them, and the other
    /// [joins](Self::join_flow) in: whoever accepted the link.
    pub fn begin_flow(&self) -> Datagrams {
        loop {
            let id = self.0.flows.next.fetch_add(1, Ordering::Relaxed);
            if let Some(flow) = self.join_flow(id) {
                return flow;
            }
        }
    }

    /// A flow that the other side began; `None` if it is known here already. What comes before is dropped.
    pub fn join_flow(&self, id: u32) -> Option<Datagrams> {
        let flows = &self.0.flows;
        let (queue, arrived) = mpsc::channel(QUEUE);
        if !flows.add(id, queue) {
            return None;
        }
        if !flows.is_read.swap(true, Ordering::Relaxed) {
            tokio::spawn(hand_out(self.0.connection.clone(), flows.clone()));
        }
        let link = self.clone();
        Some(Datagrams { id, link, arrived })
    }

    /// Datagrams that came for nobody, or that nobody took in time.
    pub fn dropped_datagrams(&self) -> u64 {
        self.0.flows.dropped.load(Ordering::Relaxed)
    }
}

impl Datagrams {
    /// By which the other side joins in.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn sender(&self) -> DatagramSender {
        DatagramSender {
            id: self.id,
            link: self.link.clone(),
        }
    }

    /// The next one. Waits for ever once the link has ended: the flow's stream tells of that. Cancel safe.
    pub async fn receive(&mut self) -> Bytes {
        match self.arrived.recv().await {
            Some(datagram) => {
                self.link.0.flows.taken(&datagram);
                datagram
            }
            None => std::future::pending().await,
        }
    }
}

impl DatagramSender {
    /// Sends it now or not at all. That it was sent does not mean that it arrives.
    pub fn send(&self, datagram: &[u8]) -> Result<(), NotSent> {
        let connection = &self.link.0.connection;
        let most = connection.longest_datagram().unwrap_or_default();
        if HEADER + datagram.len() > most {
            return Err(NotSent::TooLong);
        }
        let mut bytes = BytesMut::with_capacity(HEADER + datagram.len());
        bytes.put_u32(self.id);
        bytes.put_slice(datagram);
        connection.send_datagram(bytes.freeze())
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let flows = &self.link.0.flows;
        // Nothing comes after this.
        flows.known().remove(&self.id);
        while let Ok(datagram) = self.arrived.try_recv() {
            flows.taken(&datagram);
        }
    }
}

/// The flows of a link.
#[derive(Default)]
pub(super) struct Flows {
    known: Mutex<HashMap<u32, mpsc::Sender<Bytes>>>,
    next: AtomicU32,
    is_read: AtomicBool,
    /// Bytes that were not asked for yet.
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

impl Flows {
    fn known(&self) -> MutexGuard<'_, HashMap<u32, mpsc::Sender<Bytes>>> {
        self.known.lock().expect("no holder of the lock panics")
    }

    /// False if there is one of this number.
    fn add(&self, id: u32, queue: mpsc::Sender<Bytes>) -> bool {
        let mut known = self.known();
        let is_new = !known.contains_key(&id);
        if is_new {
            known.insert(id, queue);
        }
        is_new
    }

    fn taken(&self, datagram: &Bytes) {
        self.waiting.fetch_sub(datagram.len(), Ordering::Relaxed);
    }

    fn deliver(&self, datagram: &[u8]) {
        if !self.queue(datagram) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether somebody is to take it.
    fn queue(&self, datagram: &[u8]) -> bool {
        let Some((header, payload)) = datagram.split_first_chunk::<HEADER>() else {
            return false;
        };
        // Held until it is queued: a flow that ends meanwhile would leave it counted.
        let known = self.known();
        let Some(queue) = known.get(&u32::from_be_bytes(*header)) else {
            return false;
        };
        let length = payload.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        // A copy: what came with it in one packet must not stay for as long as this one waits.
        let is_queued = before + length <= QUEUE_BYTES
            && queue.try_send(Bytes::copy_from_slice(payload)).is_ok();
        if !is_queued {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
        }
        is_queued
    }
}

/// One task a link that has flows, for as long as it lives.
async fn hand_out(connection: Connection, flows: Arc<Flows>) {
    while let Some(datagram) = connection.datagram().await {
        flows.deliver(&datagram);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::link::memory;

    #[tokio::test]
    async fn what_is_no_datagram_of_a_flow_is_dropped() {
        let (here, there) = memory::pair(None, None);
        let mut flow = there.join_flow(7).unwrap();
        assert!(there.join_flow(7).is_none());
        for nonsense in [&[][..], &[0, 0, 7], &[0, 0, 0, 8, 1]] {
            let connection = &here.0.connection;
            connection
                .send_datagram(Bytes::copy_from_slice(nonsense))
                .unwrap();
        }
        let good = DatagramSender { id: 7, link: here };
        good.send(b"hello").unwrap();
        assert_eq!(flow.receive().await, "hello");
        assert_eq!(there.dropped_datagrams(), 3);
        drop(flow);
        assert!(there.join_flow(7).is_some());
    }

    #[test]
    fn flows_that_are_not_read_keep_no_more_than_is_bounded() {
        let flows = Flows::default();
        let queues: Vec<_> = (0..200_u32)
            .map(|id| {
                let (queue, arrived) = mpsc::channel(QUEUE);
                assert!(flows.add(id, queue));
                arrived
            })
            .collect();
        for id in 0..200_u32 {
            let datagram = [&id.to_be_bytes()[..], &[0; 1000]].concat();
            for _ in 0..2 * QUEUE {
                flows.deliver(&datagram);
            }
        }
        let kept: usize = queues.iter().map(|queue| queue.len()).sum();
        assert_eq!(queues[0].len(), QUEUE);
        assert_eq!(kept, QUEUE_BYTES / 1000);
        let dropped = flows.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped as usize, 200 * 2 * QUEUE - kept);
    }
}
