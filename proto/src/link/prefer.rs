//! Which way to a peer is tried when: a pure schedule that the dialer follows.
//! QUIC goes first; TCP joins when QUIC has had its time, or has failed. Addresses of the same
//! transport follow each other as RFC 8305 has it. No clock and no sockets here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Transport, Transports};

/// How long QUIC is alone. A handshake takes two round trips, 600 ms over a geostationary
/// satellite; a second packet, sent after one second should the first be lost, must still count.
const QUIC_HEAD_START: Duration = Duration::from_millis(1500);

/// Between two addresses of one name (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Addresses tried of one name: more are no more likely to answer.
const MAX_ADDRESSES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// After the begin of the dial.
    pub(super) start: Duration,
}

/// What hasn't been started yet, and what is under way.
#[derive(Debug)]
pub(super) struct Schedule {
    waiting: VecDeque<Attempt>,
    under_way: Vec<Attempt>,
    tcp_was_tried: bool,
}

impl Schedule {
    pub(super) fn new(addresses: &[SocketAddr], transports: Transports) -> Self {
        let addresses = interleave(addresses);
        let staggered = |transport, first: Duration| {
            let starts = (0..).map(move |place| first + NEXT_ADDRESS * place);
            addresses
                .iter()
                .zip(starts)
                .map(move |(address, start)| Attempt {
                    transport,
                    address: *address,
                    start,
                })
        };
        let quic = transports
            .quic()
            .then(|| staggered(Transport::Quic, Duration::ZERO));
        let tcp_start = if transports.quic() {
            QUIC_HEAD_START
        } else {
            Duration::ZERO
        };
        let tcp = transports
            .tcp()
            .then(|| staggered(Transport::Tcp, tcp_start));
        Self {
            waiting: quic
                .into_iter()
                .flatten()
                .chain(tcp.into_iter().flatten())
                .collect(),
            under_way: Vec::new(),
            tcp_was_tried: false,
        }
    }

    /// When the next attempt is due.
    pub(super) fn next_start(&self) -> Option<Duration> {
        self.waiting.front().map(|attempt| attempt.start)
    }

    /// Takes the next attempt; it is under way from now on.
    pub(super) fn begin(&mut self) -> Option<Attempt> {
        let attempt = self.waiting.pop_front()?;
        self.under_way.push(attempt);
        self.tcp_was_tried |= attempt.transport == Transport::Tcp;
        Some(attempt)
    }

    /// `failed` came to nothing at `now`: whoever only waited for it may start at once.
    /// `definitive` says that the peer answered, so another transport would hear the same.
    pub(super) fn failed(&mut self, failed: Attempt, now: Duration, definitive: bool) {
        self.under_way.retain(|attempt| *attempt != failed);
        if definitive {
            self.waiting
                .retain(|attempt| attempt.address != failed.address);
        }
        let Some(next) = self.waiting.front() else {
            return;
        };
        let held_back_by_quic = self.is_under_way(Transport::Quic);
        if next.transport == failed.transport || !held_back_by_quic {
            let gain = next.start.saturating_sub(now);
            for attempt in &mut self.waiting {
                attempt.start -= gain;
            }
        }
    }

    /// Whether waiting on is in vain. A host that refuses TCP runs no controller, and QUIC, which
    /// would go on asking in silence until its timeout, has had its head start.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty()
            && !self.is_under_way(Transport::Tcp)
            && (self.tcp_was_tried || self.under_way.is_empty())
    }

    fn is_under_way(&self, transport: Transport) -> bool {
        self.under_way
            .iter()
            .any(|attempt| attempt.transport == transport)
    }
}

/// Alternates between the families, beginning with the resolver's favourite, so that a broken IPv6
/// costs one step and not all of them.
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let favourite_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv6() == favourite_is_v6);
    let mut ordered = Vec::new();
    while ordered.len() < MAX_ADDRESSES {
        let Some(address) = first.pop_front().or_else(|| second.pop_front()) else {
            break;
        };
        ordered.push(address);
        std::mem::swap(&mut first, &mut second);
    }
    ordered
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Transport::{Quic, Tcp};
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn starts(schedule: &Schedule) -> Vec<(Transport, SocketAddr, Duration)> {
        schedule
            .waiting
            .iter()
            .map(|attempt| (attempt.transport, attempt.address, attempt.start))
            .collect()
    }

    #[test]
    fn quic_goes_first_and_tcp_joins() {
        let [v6, v4] = [address("[::1]:7"), address("127.0.0.1:7")];
        let schedule = Schedule::new(&[v6, v4], Transports::Both);
        assert_eq!(
            starts(&schedule),
            [
                (Quic, v6, MS(0)),
                (Quic, v4, MS(250)),
                (Tcp, v6, MS(1500)),
                (Tcp, v4, MS(1750)),
            ]
        );
        let schedule = Schedule::new(&[v4], Transports::TcpOnly);
        assert_eq!(starts(&schedule), [(Tcp, v4, MS(0))]);
        let schedule = Schedule::new(&[v4], Transports::QuicOnly);
        assert_eq!(starts(&schedule), [(Quic, v4, MS(0))]);
        assert!(Schedule::new(&[], Transports::Both).is_over());
    }

    #[test]
    fn tcp_starts_at_once_when_the_last_quic_attempt_fails() {
        let [v6, v4] = [address("[::1]:7"), address("127.0.0.1:7")];
        let mut schedule = Schedule::new(&[v6, v4], Transports::Both);
        let first = schedule.begin().unwrap();
        // The next address needn't wait its turn, TCP still has to.
        schedule.failed(first, MS(10), false);
        assert_eq!(
            starts(&schedule),
            [(Quic, v4, MS(10)), (Tcp, v6, MS(1260)), (Tcp, v4, MS(1510))]
        );
        let second = schedule.begin().unwrap();
        schedule.failed(second, MS(20), false);
        assert_eq!(starts(&schedule), [(Tcp, v6, MS(20)), (Tcp, v4, MS(270))]);
        assert!(!schedule.is_over());
    }

    #[test]
    fn a_silent_quic_attempt_holds_tcp_back() {
        let [one, two] = [address("192.0.2.1:7"), address("192.0.2.2:7")];
        let mut schedule = Schedule::new(&[one, two], Transports::Both);
        let first = schedule.begin().unwrap();
        schedule.begin().unwrap();
        schedule.failed(first, MS(300), false);
        assert_eq!(schedule.next_start(), Some(MS(1500)));
    }

    #[test]
    fn what_the_peer_itself_refused_is_not_tried_another_way() {
        let [one, two] = [address("192.0.2.1:7"), address("192.0.2.2:7")];
        let mut schedule = Schedule::new(&[one, two], Transports::Both);
        let first = schedule.begin().unwrap();
        schedule.failed(first, MS(5), true);
        assert_eq!(
            starts(&schedule),
            [(Quic, two, MS(5)), (Tcp, two, MS(1505))]
        );
    }

    #[test]
    fn refused_tcp_ends_the_wait_for_quic() {
        let one = address("192.0.2.1:7");
        let mut schedule = Schedule::new(&[one], Transports::Both);
        schedule.begin().unwrap();
        assert!(!schedule.is_over());
        let tcp = schedule.begin().unwrap();
        assert!(!schedule.is_over());
        schedule.failed(tcp, MS(1501), false);
        assert!(schedule.is_over());
    }

    #[test]
    fn families_take_turns_and_the_list_is_bounded() {
        let v6: Vec<_> = (1..=5)
            .map(|i| address(&format!("[2001:db8::{i}]:7")))
            .collect();
        let v4: Vec<_> = (1..=5)
            .map(|i| address(&format!("192.0.2.{i}:7")))
            .collect();
        let all = [v6.clone(), v4.clone()].concat();
        assert_eq!(interleave(&all), [v6[0], v4[0], v6[1], v4[1]]);
        assert_eq!(interleave(&v4), v4[..4]);
    }
}
