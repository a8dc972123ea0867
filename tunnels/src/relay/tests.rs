//! What a client and a target notice of the relay between them.

#![allow(clippy::unwrap_used)]

mod broken;
mod chopped;

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Room of the pipes on both sides.
const ROOM: usize = 1024;

const HOUR: Duration = Duration::from_secs(3600);

/// A relay on its way, and both of its ends.
struct Relayed {
    client: DuplexStream,
    target: DuplexStream,
    relay: JoinHandle<Result<(), RelayError>>,
    counts: Arc<Counts>,
}

fn relayed(limits: RelayLimits) -> Relayed {
    let (client, mut near_client) = duplex(ROOM);
    let (mut near_target, target) = duplex(ROOM);
    let counts = Arc::new(Counts::default());
    let counting = counts.clone();
    let relay =
        tokio::spawn(
            async move { relay(&mut near_client, &mut near_target, &limits, &counting).await },
        );
    Relayed {
        client,
        target,
        relay,
        counts,
    }
}

async fn rest(from: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for client_first in [true, false] {
        let mut relayed = relayed(RelayLimits::default());
        let (one, other) = match client_first {
            true => (&mut relayed.client, &mut relayed.target),
            false => (&mut relayed.target, &mut relayed.client),
        };
        one.write_all(b"request").await.unwrap();
        one.shutdown().await.unwrap();
        assert_eq!(rest(other).await, b"request");
        // The other side has its say all the same, however late.
        other.write_all(b"the answer").await.unwrap();
        other.shutdown().await.unwrap();
        assert_eq!(rest(one).await, b"the answer");
        relayed.relay.await.unwrap().unwrap();

        let inward = relayed.counts.in_bytes.load(Ordering::Relaxed);
        let outward = relayed.counts.out_bytes.load(Ordering::Relaxed);
        match client_first {
            true => assert_eq!((inward, outward), (7, 10)),
            false => assert_eq!((inward, outward), (10, 7)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_stops_the_writer() {
    let mut relayed = relayed(RelayLimits::default());
    let mut sent = 0;
    // The time is the test's: it goes on when nothing else can.
    while let Ok(written) = timeout(HOUR, relayed.client.write(&[7; 300])).await {
        sent += written.unwrap();
        assert!(sent <= 2 * ROOM + scratch::SCRATCH_BYTES, "{sent} bytes");
    }
    relayed.client.shutdown().await.unwrap();
    assert_eq!(rest(&mut relayed.target).await, vec![7; sent]);
}

#[tokio::test(start_paused = true)]
async fn what_a_side_holds_back_gets_through_when_nothing_follows() {
    let (mut client, mut near_client) = duplex(ROOM);
    let (near_target, mut target) = duplex(ROOM);
    // As TLS may: what was written goes on when it is much, or when somebody asks for that.
    let mut near_target = BufStream::new(near_target);
    let relaying = tokio::spawn(async move {
        let (limits, counts) = (RelayLimits::default(), Counts::default());
        relay(&mut near_client, &mut near_target, &limits, &counts).await
    });
    client.write_all(b"question").await.unwrap();
    let mut heard = [0; 8];
    let hearing = timeout(HOUR, target.read_exact(&mut heard)).await;
    hearing.expect("it arrives").unwrap();
    assert_eq!(&heard, b"question");
    drop((client, target));
    relaying.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_it_was_quiet_for_too_long() {
    let mut relayed = relayed(RelayLimits {
        idle: Some(HOUR),
        bandwidth: None,
    });
    let begin = Instant::now();
    let mut byte = [0];
    for _ in 0..3 {
        tokio::time::advance(HOUR / 2).await;
        relayed.client.write_all(b"x").await.unwrap();
        relayed.target.read_exact(&mut byte).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        relayed.target.write_all(b"y").await.unwrap();
        relayed.client.read_exact(&mut byte).await.unwrap();
    }
    let ended = relayed.relay.await.unwrap();
    assert!(matches!(ended, Err(RelayError::Idle)), "{ended:?}");
    let quiet = begin.elapsed() - 3 * HOUR;
    assert!((HOUR..HOUR + HOUR / 60).contains(&quiet), "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_only_listens_is_not_waited_for_without_end() {
    let open = relayed(RelayLimits::default());
    let mut half_closed = relayed(RelayLimits::default());
    half_closed.client.shutdown().await.unwrap();
    let ended = timeout(30 * HOUR, half_closed.relay)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ended, Err(RelayError::Idle)), "{ended:?}");
    // Two sides that may both still say something are.
    timeout(1000 * HOUR, open.relay).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_tunnel_share_what_it_may_send() {
    const RATE: u64 = 1 << 20;
    const EACH: usize = 5 << 20;
    let limits = RelayLimits {
        idle: Some(Duration::from_secs(1)),
        bandwidth: Some(Arc::new(Bandwidth::new(RATE))),
    };
    let (one, two) = (relayed(limits.clone()), relayed(limits.clone()));
    let counts = [one.counts.clone(), two.counts.clone()];
    let begin = Instant::now();
    let run = async |mut of: Relayed| {
        let sending = async {
            of.client.write_all(&vec![7; EACH]).await.unwrap();
            of.client.shutdown().await.unwrap();
        };
        let (received, ()) = tokio::join!(rest(&mut of.target), sending);
        assert_eq!(received.len(), EACH);
        begin.elapsed()
    };
    let (first, second) = tokio::join!(run(one), run(two));
    let least = Duration::from_secs_f64(2.0 * EACH as f64 / RATE as f64 - 0.1);
    for took in [first, second] {
        assert!(took < least + Duration::from_secs(1), "{took:?}");
    }
    assert!(first.max(second) >= least, "{first:?}, {second:?}");
    // Whoever was done first did not have more than its share.
    assert!(first.min(second) > least * 9 / 10, "{first:?}, {second:?}");
    for count in counts {
        assert_eq!(count.in_bytes.load(Ordering::Relaxed), EACH as u64);
    }

    // The other direction has as much of its own, also for short answers one after the other.
    let begin = Instant::now();
    for _ in 0..256 {
        let mut short = relayed(limits.clone());
        short.target.write_all(&[7; ROOM]).await.unwrap();
        short.target.shutdown().await.unwrap();
        short.client.shutdown().await.unwrap();
        assert_eq!(rest(&mut short.client).await.len(), ROOM);
    }
    let took = begin.elapsed();
    let expected = Duration::from_millis(150);
    assert!(took >= expected - Duration::from_millis(1), "{took:?}");
    assert!(took < expected * 2, "{took:?}");
}

/// Sends without end, takes everything.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buf.advance(buf.remaining());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn whoever_always_has_something_to_send_lets_others_run() {
    let (limits, counts) = (RelayLimits::default(), Counts::default());
    let (mut client, mut target) = (Endless, Endless);
    let mut relaying = pin!(relay(&mut client, &mut target, &limits, &counts));
    let mut cx = Context::from_waker(Waker::noop());
    for turn in 1..=3_u64 {
        assert!(relaying.as_mut().poll(&mut cx).is_pending());
        for count in [&counts.in_bytes, &counts.out_bytes] {
            assert_eq!(count.load(Ordering::Relaxed), turn * 256 * 1024);
        }
    }
}
