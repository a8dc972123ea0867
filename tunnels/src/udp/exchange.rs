//! The datagrams of one flow, both ways at once, until it is idle or one side ends.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::bandwidth::{Bandwidth, Share};
use crate::relay::{Counts, RelayError, RelayLimits, Side};

/// Silence after which a flow ends that the target never answered: whoever lies about his address is not answered, and must
/// not keep flows from others for long. Who only ever tells something begins another one, and notices nothing.
const UNANSWERED: Duration = Duration::from_secs(10);

/// A flow that may be silent for long looks this often whether it still may: others may need its place by now.
const LOOK: Duration = Duration::from_secs(1);

/// What is beyond the bandwidth waits for so long at most. Later nobody who sends datagrams has a use for them, and what
/// a flood of them has paid for everybody would wait behind.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Where datagrams come from.
pub trait Receive {
    /// The next one; `None` when no more will come.
    fn receive(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// Where datagrams go to.
pub trait Deliver {
    /// Sends one, or drops it. An error ends the flow.
    fn deliver(&mut self, datagram: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// One was dropped for which there is no bandwidth.
    fn count_dropped(&mut self);
}

/// Passes datagrams on until one side ends, or none came in either direction for as long as that may be
/// ([`RelayError::Idle`], which is how most flows end). `patience` says what is left of that time where others need room.
/// Datagrams beyond the bandwidth wait for a moment, or are dropped.
pub async fn exchange(
    client: (&mut impl Receive, &mut impl Deliver),
    target: (&mut impl Receive, &mut impl Deliver),
    limits: &RelayLimits,
    patience: impl Fn(Duration) -> Duration,
    counts: &Counts,
) -> Result<(), RelayError> {
    let moved = Moved {
        last: Mutex::new(Instant::now()),
        is_answered: AtomicBool::new(false),
    };
    let bandwidth = limits.bandwidth.as_deref();
    let inward = Direction {
        from: Side::Client,
        to: Side::Target,
        share: bandwidth.map(Bandwidth::inward),
        bytes: &counts.in_bytes,
        moved: &moved,
    };
    let outward = Direction {
        from: Side::Target,
        to: Side::Client,
        share: bandwidth.map(Bandwidth::outward),
        bytes: &counts.out_bytes,
        moved: &moved,
    };
    tokio::select! {
        ended = inward.pass(client.0, target.1) => ended,
        ended = outward.pass(target.0, client.1) => ended,
        () = moved.quiet_for(limits.idle, patience) => Err(RelayError::Idle),
    }
}

struct Direction<'a> {
    from: Side,
    to: Side,
    share: Option<Share<'a>>,
    bytes: &'a AtomicU64,
    moved: &'a Moved,
}

impl Direction<'_> {
    async fn pass(&self, from: &mut impl Receive, to: &mut impl Deliver) -> Result<(), RelayError> {
        loop {
            let received = from.receive().await;
            let Some(datagram) = received.map_err(|error| RelayError::Read(self.from, error))?
            else {
                return Ok(());
            };
            self.moved.now(self.from);
            if let Some(share) = &self.share {
                let paid = share.pay_within(datagram.len(), Instant::now(), LONGEST_WAIT);
                let Some(sent_at) = paid else {
                    to.count_dropped();
                    continue;
                };
                sleep_until(sent_at).await;
            }
            let sent = to.deliver(&datagram).await;
            sent.map_err(|error| RelayError::Write(self.to, error))?;
            self.bytes
                .fetch_add(datagram.len() as u64, Ordering::Relaxed);
        }
    }
}

/// When a datagram came last, and whether one of the target's ever did.
struct Moved {
    last: Mutex<Instant>,
    is_answered: AtomicBool,
}

impl Moved {
    fn now(&self, from: Side) {
        if from == Side::Target {
            self.is_answered.store(true, Ordering::Relaxed);
        }
        *self.last.lock().expect("no holder of the lock panics") = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().expect("no holder of the lock panics")
    }

    /// Waits until none came for so long; for ever without a limit.
    async fn quiet_for(&self, idle: Option<Duration>, patience: impl Fn(Duration) -> Duration) {
        let Some(idle) = idle else {
            return std::future::pending().await;
        };
        loop {
            let allowed = match self.is_answered.load(Ordering::Relaxed) {
                true => patience(idle),
                false => patience(idle).min(UNANSWERED),
            };
            let (until, now) = (self.last() + allowed, Instant::now());
            if until <= now {
                return;
            }
            sleep_until(until.min(now + LOOK)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    struct Source(mpsc::UnboundedReceiver<io::Result<Bytes>>);

    impl Receive for Source {
        async fn receive(&mut self) -> io::Result<Option<Bytes>> {
            self.0.recv().await.transpose()
        }
    }

    struct Sink(mpsc::UnboundedSender<Bytes>);

    impl Deliver for Sink {
        async fn deliver(&mut self, datagram: &[u8]) -> io::Result<()> {
            let sent = self.0.send(Bytes::copy_from_slice(datagram));
            sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }

        fn count_dropped(&mut self) {}
    }

    /// What stands on one side of a flow.
    struct Peer {
        says: mpsc::UnboundedSender<io::Result<Bytes>>,
        hears: mpsc::UnboundedReceiver<Bytes>,
    }

    fn side() -> (Peer, (Source, Sink)) {
        let (says, from) = mpsc::unbounded_channel();
        let (to, hears) = mpsc::unbounded_channel();
        (Peer { says, hears }, (Source(from), Sink(to)))
    }

    struct Under {
        /// Seconds that may pass in silence at most, whatever the limit is.
        room: Arc<AtomicU64>,
        client: Peer,
        target: Peer,
        counts: Arc<Counts>,
        ended: tokio::task::JoinHandle<Result<(), RelayError>>,
    }

    fn under(limits: RelayLimits) -> Under {
        let (client, mut of_client) = side();
        let (target, mut of_target) = side();
        let counts = Arc::new(Counts::default());
        let counting = counts.clone();
        let room = Arc::new(AtomicU64::new(u64::MAX));
        let left = room.clone();
        let ended = tokio::spawn(async move {
            let client = (&mut of_client.0, &mut of_client.1);
            let target = (&mut of_target.0, &mut of_target.1);
            let patience =
                move |idle: Duration| idle.min(Duration::from_secs(left.load(Ordering::Relaxed)));
            exchange(client, target, &limits, patience, &counting).await
        });
        Under {
            room,
            client,
            target,
            counts,
            ended,
        }
    }

    fn idle() -> RelayLimits {
        RelayLimits {
            idle: Some(IDLE),
            bandwidth: None,
        }
    }

    fn say(peer: &Peer, what: &'static str) {
        peer.says.send(Ok(Bytes::from(what))).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_ends_when_neither_side_said_anything_for_a_while() {
        let began = Instant::now();
        let mut under = under(idle());
        // Either direction keeps it, and so does an empty datagram.
        for (seconds, from_client, what) in [
            (9, true, "question"),
            (9, false, "answer"),
            (59, true, ""),
            (59, false, ""),
        ] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let (from, to) = match from_client {
                true => (&under.client, &mut under.target),
                false => (&under.target, &mut under.client),
            };
            say(from, what);
            assert_eq!(to.hears.recv().await.unwrap(), what);
        }
        let ended = under.ended.await.unwrap();
        assert!(matches!(ended, Err(RelayError::Idle)), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), 2 * 9 + 2 * 59 + 60);
        let bytes = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &under.counts;
        assert_eq!((bytes(&counts.in_bytes), bytes(&counts.out_bytes)), (8, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_that_is_never_answered_ends_sooner() {
        let began = Instant::now();
        let mut under = under(idle());
        for _ in 0..3 {
            say(&under.client, "is anybody there");
            under.target.hears.recv().await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        let ended = under.ended.await.unwrap();
        assert!(matches!(ended, Err(RelayError::Idle)), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), 2 * 9 + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_that_is_silent_makes_room_once_others_need_it() {
        let mut under = under(idle());
        say(&under.target, "answer");
        under.client.hears.recv().await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!under.ended.is_finished());
        let began = Instant::now();
        under.room.store(20, Ordering::Relaxed);
        let ended = under.ended.await.unwrap();
        assert!(matches!(ended, Err(RelayError::Idle)), "{ended:?}");
        assert!(began.elapsed() <= LOOK, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_without_a_limit_stays_until_a_side_ends() {
        let under = under(RelayLimits::default());
        tokio::time::sleep(Duration::from_secs(1_000_000)).await;
        assert!(!under.ended.is_finished());
        drop(under.target.says);
        under.ended.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_is_named() {
        let broken = under(idle());
        let refused = io::ErrorKind::ConnectionRefused.into();
        broken.target.says.send(Err(refused)).unwrap();
        let ended = broken.ended.await.unwrap();
        assert!(
            matches!(ended, Err(RelayError::Read(Side::Target, _))),
            "{ended:?}"
        );
        let gone = under(idle());
        drop(gone.target.hears);
        say(&gone.client, "is anybody there");
        let ended = gone.ended.await.unwrap();
        assert!(
            matches!(ended, Err(RelayError::Write(Side::Target, _))),
            "{ended:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_keep_to_the_bandwidth() {
        const RATE: u64 = 1 << 20;
        let limits = RelayLimits {
            idle: Some(IDLE),
            bandwidth: Some(Arc::new(Bandwidth::new(RATE))),
        };
        let mut under = under(limits);
        let began = Instant::now();
        let datagram = Bytes::from(vec![0; 1024]);
        for _ in 0..10 * 1024 {
            under.client.says.send(Ok(datagram.clone())).unwrap();
        }
        for _ in 0..10 * 1024 {
            under.target.hears.recv().await.unwrap();
        }
        // Ten seconds' worth, less what may go at once.
        let took = began.elapsed().as_millis();
        assert!((9_800..=10_000).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_behind_what_others_sent() {
        const RATE: u64 = 1 << 20;
        let bandwidth = Arc::new(Bandwidth::new(RATE));
        bandwidth.inward().pay(5 << 20, Instant::now());
        let mut under = under(RelayLimits {
            idle: Some(IDLE),
            bandwidth: Some(bandwidth),
        });
        say(&under.client, "too much");
        tokio::time::sleep(Duration::from_secs(5)).await;
        say(&under.client, "in time");
        assert_eq!(under.target.hears.recv().await.unwrap(), "in time");
    }
}
