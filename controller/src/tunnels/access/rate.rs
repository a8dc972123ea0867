//! How often each client comes: a bucket of tokens for each, of which only the time is kept at which it is full again.
//!
//! A bucket that is full needs no place in the table. Where strangers of many addresses fill the table, the quarter
//! that waits least is forgotten: they get a full bucket again, and those who are held back most stay so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Clients of one tunnel that are remembered; about 1 MiB.
const MAX_CLIENTS: usize = 16_384;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    /// At once after a silence.
    pub burst: u32,
}

#[derive(Default)]
pub struct Limiter {
    /// When the bucket of each is full again.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Limiter {
    /// Takes a token; `Err` says after what time there is one.
    pub fn take(&self, client: IpAddr, rate: Rate, now: Instant) -> Result<(), Duration> {
        let client = counted_as(client);
        let token = Duration::from_secs(1) / rate.per_second.max(1);
        let all = token.saturating_mul(rate.burst.max(1));
        let mut table = self.full_at.lock().expect("no holder of the lock panics");
        let full_at = table.get(&client).map_or(now, |at| (*at).max(now));
        let after = full_at + token;
        // So many tokens as are out may be out.
        let out = after - now;
        if out > all {
            return Err(out - all);
        }
        if table.len() >= MAX_CLIENTS && !table.contains_key(&client) {
            make_room(&mut table, now);
        }
        table.insert(client, after);
        Ok(())
    }
}

/// Whoever has one address of an IPv6 network of 64 bits has them all.
fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

fn make_room(table: &mut HashMap<IpAddr, Instant>, now: Instant) {
    table.retain(|_, full_at| *full_at > now);
    if table.len() <= MAX_CLIENTS / 4 * 3 {
        return;
    }
    let mut times: Vec<Instant> = table.values().copied().collect();
    let (_, quarter, _) = times.select_nth_unstable(MAX_CLIENTS / 4);
    let quarter = *quarter;
    table.retain(|_, full_at| *full_at > quarter);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_what_the_rate_allows() {
        let limiter = Limiter::default();
        let began = Instant::now();
        // Milliseconds, and after which time there is a token, if there is none.
        for (at, expected) in [
            (0, None),
            (0, None),
            (0, None),
            (0, Some(100)),
            (40, Some(60)),
            (100, None),
            (100, Some(100)),
            (250, None),
            // Silence gives a burst, and no more.
            (10_000, None),
            (10_000, None),
            (10_000, None),
            (10_000, Some(100)),
        ] {
            let now = began + Duration::from_millis(at);
            let taken = limiter.take(ip("203.0.113.1"), RATE, now);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(taken.err(), expected, "at {at} ms");
        }
    }

    #[test]
    fn clients_are_counted_by_what_one_of_them_has() {
        let now = Instant::now();
        let one = Rate {
            per_second: 1,
            burst: 1,
        };
        for (first, second, same) in [
            ("203.0.113.1", "203.0.113.1", true),
            ("203.0.113.1", "203.0.113.2", false),
            ("203.0.113.1", "::ffff:203.0.113.1", true),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let limiter = Limiter::default();
            limiter.take(ip(first), one, now).unwrap();
            let refused = limiter.take(ip(second), one, now).is_err();
            assert_eq!(refused, same, "{first} {second}");
        }
    }

    #[test]
    fn strangers_of_many_addresses_take_bounded_room_and_free_nobody() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let held = ip("203.0.113.1");
        while limiter.take(held, RATE, now).is_ok() {}
        for network in 0..3 * MAX_CLIENTS as u128 {
            let stranger = Ipv6Addr::from(0x2001_0db8_u128 << 96 | network << 64);
            limiter.take(stranger.into(), RATE, now).unwrap();
        }
        let known = limiter.full_at.lock().unwrap().len();
        assert!((2..=MAX_CLIENTS).contains(&known), "{known}");
        assert!(limiter.take(held, RATE, now).is_err());
        // Those whose buckets are full make room first.
        let later = now + Duration::from_secs(60);
        for host in 0..MAX_CLIENTS as u32 {
            let stranger = Ipv4Addr::from(0x0a00_0000 + host);
            limiter.take(stranger.into(), RATE, later).unwrap();
        }
        assert!(limiter.full_at.lock().unwrap().len() <= MAX_CLIENTS);
    }
}
