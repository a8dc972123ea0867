//! The flows of one port: who sends from where, and what of it waits.
//!
//! Anybody may send datagrams, under any address: flows are bounded, those of one client more so, and what waits in each
//! and in all of them together. What is too much is refused at once. As places grow few, silent flows give theirs up
//! sooner.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::exchange::Receive;

/// Of one flow: what comes in one go while its target is connected to, or its task waits for a core.
const QUEUE: usize = 64;

/// Of one flow: eight of the longest datagrams, or as many as above of those that a link carries. It is twice of what a
/// system keeps for a socket, and one flow alone fills a sixteenth of what all have.
const FLOW_BYTES: usize = 512 << 10;

/// Of all flows of a port.
const QUEUE_BYTES: usize = 8 << 20;

/// One client may have one of so many of the flows that there may be: households and offices share an address, and
/// nobody may keep all others out.
const SHARE: usize = 4;

/// A flow may always be silent for so long: what is asked is answered by then. Whoever is to hold all places with
/// invented addresses has to begin about as many flows as there may be within this time.
const SHORTEST: Duration = Duration::from_secs(2);

/// What makes two datagrams parts of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    pub client: SocketAddr,
    /// The address that was asked, where that is known: what answers comes from there.
    pub asked: Option<IpAddr>,
}

/// What became of a datagram.
pub enum Taken {
    /// Its flow will pass it on.
    Queued,
    /// It begins a flow, and is the first in it.
    New(Flow),
    Refused(Refused),
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its flow has as many waiting as may.
    QueueFull,
    /// There are as many flows as may be, of all or of this client.
    TooManyFlows,
}

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Flows(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    flows: HashMap<Way, Queue>,
    /// That there may be, as far as was said last.
    most: usize,
    by_client: HashMap<IpAddr, usize>,
    /// Bytes that wait.
    waiting: usize,
}

struct Queue {
    sender: mpsc::Sender<Bytes>,
    /// Bytes in it.
    waiting: usize,
}

/// What comes from the client of a flow. The flow ends when this is dropped.
pub struct Flow {
    way: Way,
    arrived: mpsc::Receiver<Bytes>,
    flows: Flows,
}

impl Flows {
    /// Takes a datagram, where there may be `most` flows.
    pub fn take(&self, way: Way, datagram: &[u8], most: usize) -> Taken {
        let mut guard = self.table();
        let table = &mut *guard;
        table.most = most;
        let length = datagram.len();
        if table.waiting + length > QUEUE_BYTES {
            return Taken::Refused(Refused::QueueFull);
        }
        let count = table.flows.len();
        let entry = match table.flows.entry(way) {
            Entry::Occupied(mut known) => {
                let queue = known.get_mut();
                let datagram = Bytes::copy_from_slice(datagram);
                if queue.waiting + length > FLOW_BYTES || queue.sender.try_send(datagram).is_err() {
                    return Taken::Refused(Refused::QueueFull);
                }
                queue.waiting += length;
                table.waiting += length;
                return Taken::Queued;
            }
            Entry::Vacant(entry) => entry,
        };
        let of_client = table.by_client.entry(client(way.client.ip())).or_default();
        if count >= most || *of_client >= most.div_ceil(SHARE) {
            // Nothing is kept of one without flows.
            if *of_client == 0 {
                table.by_client.remove(&client(way.client.ip()));
            }
            return Taken::Refused(Refused::TooManyFlows);
        }
        *of_client += 1;
        let (sender, arrived) = mpsc::channel(QUEUE);
        let mut waiting = 0;
        if sender.try_send(Bytes::copy_from_slice(datagram)).is_ok() {
            waiting = length;
        }
        table.waiting += waiting;
        entry.insert(Queue { sender, waiting });
        Taken::New(Flow {
            way,
            arrived,
            flows: self.clone(),
        })
    }

    /// How long a flow may be silent that may be so for `idle` where there is room.
    fn patience(&self, idle: Duration) -> Duration {
        let table = self.table();
        patience(idle, table.flows.len(), table.most)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table().flows.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Flow {
    pub fn way(&self) -> Way {
        self.way
    }

    /// Says what is left of the time for which it may be silent, where others need room.
    pub fn patience(&self) -> impl Fn(Duration) -> Duration + use<> {
        let flows = self.flows.clone();
        move |idle| flows.patience(idle)
    }
}

impl Receive for Flow {
    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        let datagram = self.arrived.recv().await;
        if let Some(datagram) = &datagram {
            let mut table = self.flows.table();
            table.waiting -= datagram.len();
            if let Some(queue) = table.flows.get_mut(&self.way) {
                queue.waiting -= datagram.len();
            }
        }
        Ok(datagram)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let mut guard = self.flows.table();
        let table = &mut *guard;
        // Nothing comes after this.
        table.flows.remove(&self.way);
        while let Ok(datagram) = self.arrived.try_recv() {
            table.waiting -= datagram.len();
        }
        if let Entry::Occupied(mut of_client) = table.by_client.entry(client(self.way.client.ip()))
        {
            *of_client.get_mut() -= 1;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
    }
}

/// Until others have half of the places as long as is asked for; from there on ever less, down to the shortest where
/// they have all: the more flows begin, the more end.
fn patience(idle: Duration, count: usize, most: usize) -> Duration {
    let half = most.div_ceil(2).max(1);
    let others = count.saturating_sub(1);
    let free = most.saturating_sub(others).min(half);
    let left = idle.mul_f64(free as f64 / half as f64);
    left.max(SHORTEST.min(idle))
}

/// Whom an address stands for: of IPv6 everybody has 2^64.
fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use super::*;

    fn way(client: &str) -> Way {
        Way {
            client: client.parse().unwrap(),
            asked: None,
        }
    }

    fn begun(flows: &Flows, way: Way, most: usize) -> Flow {
        match flows.take(way, b"hello", most) {
            Taken::New(flow) => flow,
            Taken::Queued => panic!("{way:?} has a flow"),
            Taken::Refused(why) => panic!("{way:?}: {why:?}"),
        }
    }

    /// Why a datagram is not taken.
    fn refused(flows: &Flows, way: Way, most: usize) -> Option<Refused> {
        match flows.take(way, b"hello", most) {
            Taken::Refused(why) => Some(why),
            Taken::New(_) | Taken::Queued => None,
        }
    }

    #[tokio::test]
    async fn a_flow_is_one_client_that_asks_one_address() {
        let flows = Flows::default();
        let mut flow = begun(&flows, way("10.0.0.1:1000"), 8);
        assert!(matches!(
            flows.take(way("10.0.0.1:1000"), b"again", 8),
            Taken::Queued
        ));
        let asked = Way {
            asked: Some("10.0.0.9".parse().unwrap()),
            ..way("10.0.0.1:1000")
        };
        let _other_address = begun(&flows, asked, 8);
        let _other_client = begun(&flows, way("10.0.0.2:1000"), 8);
        for expected in ["hello", "again"] {
            let came = flow.receive().await.unwrap();
            assert_eq!(came.unwrap(), expected);
        }
        assert_eq!(flows.count(), 3);
        drop(flow);
        let _anew = begun(&flows, way("10.0.0.1:1000"), 8);
    }

    #[tokio::test]
    async fn what_was_passed_on_waits_no_more() {
        let flows = Flows::default();
        let one = way("10.0.0.1:1");
        let mut flow = begun(&flows, one, 8);
        for _ in 0..3 * QUEUE {
            let came = flow.receive().await.unwrap();
            assert_eq!(came.unwrap(), "hello");
            assert_eq!(refused(&flows, one, 8), None);
        }
        let waiting = {
            let table = flows.table();
            [table.waiting, table.flows[&one].waiting]
        };
        assert_eq!(waiting, ["hello".len(); 2]);
    }

    #[test]
    fn flows_are_bounded_and_those_of_one_client_more_so() {
        use Refused::TooManyFlows;
        let flows = Flows::default();
        let one = |port: u16| way(&format!("10.0.0.1:{port}"));
        let first = begun(&flows, one(1), 8);
        let _second = begun(&flows, one(2), 8);
        assert_eq!(refused(&flows, one(3), 8), Some(TooManyFlows));
        let mut others: Vec<Flow> = (2..8)
            .map(|number| begun(&flows, way(&format!("10.0.0.{number}:1")), 8))
            .collect();
        let last = way("10.0.1.1:1");
        assert_eq!(refused(&flows, last, 8), Some(TooManyFlows));
        // Those that there are go on, also under a lower bound.
        assert_eq!(refused(&flows, one(1), 1), None);
        others.pop();
        let _last = begun(&flows, last, 8);
        drop(first);
        let _third = begun(&flows, one(3), 8);
        drop(others);
        // Even one is somebody's.
        let flows = Flows::default();
        let _only = begun(&flows, one(1), 1);
        assert_eq!(refused(&flows, last, 1), Some(TooManyFlows));
    }

    #[test]
    fn silence_may_last_ever_shorter_as_places_grow_few() {
        for (idle, count, most, expected) in [
            (60, 1, 1000, 60),
            (60, 501, 1000, 60),
            (60, 751, 1000, 30),
            (60, 951, 1000, 6),
            (60, 1000, 1000, 2),
            // Under a bound that was lowered.
            (60, 1000, 10, 2),
            (1, 1000, 1000, 1),
            (3600, 751, 1000, 1800),
            // One alone is in nobody's way.
            (60, 1, 1, 60),
            (60, 4, 4, 30),
        ] {
            let found = patience(Duration::from_secs(idle), count, most);
            assert_eq!(
                found,
                Duration::from_secs(expected),
                "{idle} s, {count} of {most}"
            );
        }
    }

    /// They hold every flow for as long as may be, as where the service answers whatever it is asked.
    #[test]
    fn invented_clients_keep_nobody_out() {
        const MOST: usize = 1000;
        const IDLE: Duration = Duration::from_secs(60);
        const TICK: Duration = Duration::from_millis(100);
        for each_tick in [2, 10, 20] {
            let flows = Flows::default();
            let mut held = VecDeque::new();
            let mut invented = 0;
            for now in 0..1500_u32 {
                while let Some((began, _)) = held.front()
                    && TICK * (now - began) >= flows.patience(IDLE)
                {
                    held.pop_front();
                }
                for _ in 0..each_tick {
                    invented += 1;
                    let ip = std::net::Ipv4Addr::from_bits(invented);
                    if let Taken::New(flow) = flows.take(way(&format!("{ip}:1")), b"", MOST) {
                        held.push_back((now, flow));
                    }
                }
                let newcomer = refused(&flows, way("[2001:db8::1]:1"), MOST);
                assert_eq!(newcomer, None, "{each_tick} each {TICK:?}, after {now}");
            }
        }
    }

    #[test]
    fn a_client_is_a_network_of_ipv6() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            let clients = [one, other].map(|ip| client(ip.parse().unwrap()));
            assert_eq!(clients[0] == clients[1], same, "{one} {other}");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_forgotten_with_its_flow() {
        let flows = Flows::default();
        let flow = begun(&flows, way("10.0.0.1:1"), 1000);
        for _ in 1..QUEUE {
            assert_eq!(refused(&flows, way("10.0.0.1:1"), 1000), None);
        }
        let full = refused(&flows, way("10.0.0.1:1"), 1000);
        assert_eq!(full, Some(Refused::QueueFull));
        drop(flow);
        assert_eq!(flows.table().waiting, 0);
        assert!(flows.table().by_client.is_empty());

        let large = vec![0; 60_000];
        let one = begun(&flows, way("10.0.0.1:1"), 1000);
        let queued = (0..QUEUE).filter(|_| {
            let taken = flows.take(way("10.0.0.1:1"), &large, 1000);
            matches!(taken, Taken::Queued)
        });
        assert_eq!(queued.count(), FLOW_BYTES / 60_000);
        let other = begun(&flows, way("10.0.0.2:1"), 1000);
        drop((one, other));
        assert_eq!(flows.table().waiting, 0);

        let mut kept = Vec::new();
        for number in 0..1000_u32 {
            let ip = std::net::Ipv4Addr::from_bits(number);
            let way = way(&format!("{ip}:1"));
            match flows.take(way, &large, 1000) {
                Taken::New(flow) => kept.push(flow),
                Taken::Queued => panic!("{ip} is new"),
                Taken::Refused(why) => assert_eq!(why, Refused::QueueFull),
            }
        }
        assert_eq!(kept.len(), QUEUE_BYTES / 60_000);
        drop(kept);
        assert_eq!(flows.table().waiting, 0);
    }
}
