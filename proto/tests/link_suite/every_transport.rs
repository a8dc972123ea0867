//! What holds for every link, whatever carries it.

use std::time::Duration;

use hive_identity::Subject;
use hive_proto::flow::{self, MAX_DATAGRAM};
use hive_proto::link::{
    DatagramSender, Datagrams, Link, LinkError, NotSent, Purpose, Stream, Transport,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parties::{Pair, within};
use crate::stalled::streams_that_nobody_reads_hold_up_no_other;

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod quic { $(#[tokio::test] async fn $name() { super::run(super::Transport::Quic, super::$name).await; })* }
        mod tcp { $(#[tokio::test] async fn $name() { super::run(super::Transport::Tcp, super::$name).await; })* }
        mod memory { $(#[tokio::test] async fn $name() { super::run(super::Transport::Memory, super::$name).await; })* }
    };
}

suite![
    both_know_each_other,
    either_side_opens_streams,
    megabytes_arrive_whole_in_both_directions_at_once,
    a_finished_side_can_still_read,
    the_end_is_seen_only_after_what_was_sent_before_it,
    a_stream_dropped_midway_is_no_clean_end,
    a_writer_learns_that_its_reader_left,
    a_reader_that_left_after_its_own_end_stops_the_writer,
    many_streams_at_once_keep_their_bytes_apart,
    a_stalled_stream_holds_up_no_other,
    streams_that_nobody_reads_hold_up_no_other,
    closing_reaches_the_peer_with_its_reason,
    closing_ends_whoever_waits,
    a_dropped_link_closes,
    a_stream_keeps_its_link,
    idle_waits_for_the_last_stream,
    who_accepted_may_open_many_streams,
    datagrams_arrive_where_there_are_any,
    flows_carry_datagrams_of_every_size_over_every_transport,
];

async fn run<F: Future<Output = ()>>(transport: Transport, test: fn(Pair) -> F) {
    let pair = Pair::over(transport).await;
    assert_eq!(pair.node.transport(), transport);
    within(test(pair)).await;
}

/// A stream opened by the node, at both ends.
async fn stream(pair: &Pair) -> (Stream, Stream) {
    let (here, there) = tokio::join!(pair.node.open(Purpose::Logs), pair.controller.accept());
    (here.unwrap(), there.unwrap().1)
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            // xorshift: nothing that a lost or doubled chunk would leave looking right.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

async fn send_all(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn receive_all(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn both_know_each_other(pair: Pair) {
    let subject = |link: &Link| link.peer().unwrap().subject.clone();
    assert_eq!(
        subject(&pair.controller),
        Subject::Node { name: "pi".into() }
    );
    assert_eq!(subject(&pair.node), Subject::Controller { raft_id: 7 });
    assert_ne!(pair.node.id(), pair.controller.id());
    let has_address = pair.node.transport() != Transport::Memory;
    assert_eq!(pair.node.remote().is_some(), has_address);
    assert_eq!(pair.controller.remote().is_some(), has_address);
}

async fn either_side_opens_streams(pair: Pair) {
    for (opener, accepter) in [
        (&pair.node, &pair.controller),
        (&pair.controller, &pair.node),
    ] {
        for purpose in [Purpose::Grpc, Purpose::Invoke, Purpose::Logs] {
            // Nothing is written but the purpose: the stream must show up all the same.
            let mut here = opener.open(purpose).await.unwrap();
            let (announced, mut there) = accepter.accept().await.unwrap();
            assert_eq!(announced, purpose);
            send_all(&mut here, b"ping").await;
            assert_eq!(receive_all(&mut there).await, b"ping");
            send_all(&mut there, b"pong").await;
            assert_eq!(receive_all(&mut here).await, b"pong");
        }
    }
}

async fn megabytes_arrive_whole_in_both_directions_at_once(pair: Pair) {
    let (here, there) = stream(&pair).await;
    let exchange = |stream: Stream, sent: Vec<u8>| async move {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let (received, ()) = tokio::join!(receive_all(&mut reading), send_all(&mut writing, &sent));
        Sha256::digest(received)
    };
    let (up, down) = (noise(5_000_000, 1), noise(7_000_001, 2));
    let digests = [Sha256::digest(&down), Sha256::digest(&up)];
    let here = tokio::spawn(exchange(here, up));
    let there = tokio::spawn(exchange(there, down));
    assert_eq!([here.await.unwrap(), there.await.unwrap()], digests);
}

async fn a_finished_side_can_still_read(pair: Pair) {
    let (mut here, mut there) = stream(&pair).await;
    send_all(&mut here, b"question").await;
    assert_eq!(receive_all(&mut there).await, b"question");
    assert!(here.write_all(b"more").await.is_err());
    let answer = noise(1_000_000, 3);
    let (received, ()) = tokio::join!(receive_all(&mut here), send_all(&mut there, &answer));
    assert!(received == answer);
}

async fn the_end_is_seen_only_after_what_was_sent_before_it(pair: Pair) {
    let (mut here, mut there) = stream(&pair).await;
    let sent = noise(100_000, 4);
    send_all(&mut here, &sent).await;
    // Finished and gone before the peer has read a byte.
    drop(here);
    assert!(receive_all(&mut there).await == sent);
}

async fn a_stream_dropped_midway_is_no_clean_end(pair: Pair) {
    let (mut here, mut there) = stream(&pair).await;
    here.write_all(b"half a mess").await.unwrap();
    here.flush().await.unwrap();
    drop(here);
    there.read_to_end(&mut Vec::new()).await.unwrap_err();
    // The link is none the worse.
    let (mut here, mut there) = stream(&pair).await;
    send_all(&mut here, b"ping").await;
    assert_eq!(receive_all(&mut there).await, b"ping");
}

async fn write_until_error(stream: &mut Stream) {
    let chunk = [0; 16 * 1024];
    while stream.write_all(&chunk).await.is_ok() && stream.flush().await.is_ok() {}
}

async fn a_writer_learns_that_its_reader_left(pair: Pair) {
    let (here, mut there) = stream(&pair).await;
    drop(here);
    write_until_error(&mut there).await;
}

async fn a_reader_that_left_after_its_own_end_stops_the_writer(pair: Pair) {
    let (mut here, mut there) = stream(&pair).await;
    send_all(&mut here, b"everything, please").await;
    assert_eq!(receive_all(&mut there).await, b"everything, please");
    let writing = tokio::spawn(async move { write_until_error(&mut there).await });
    here.read_exact(&mut [0; 1000]).await.unwrap();
    drop(here);
    writing.await.unwrap();
}

async fn many_streams_at_once_keep_their_bytes_apart(pair: Pair) {
    const STREAMS: u64 = 100;
    let link = pair.controller.clone();
    let echo = tokio::spawn(async move {
        let mut echoes = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            let (_, stream) = link.accept().await.unwrap();
            echoes.spawn(async move {
                let (mut reading, mut writing) = tokio::io::split(stream);
                tokio::io::copy(&mut reading, &mut writing).await.unwrap();
                writing.shutdown().await.unwrap();
            });
        }
        echoes.join_all().await;
    });
    let mut callers = tokio::task::JoinSet::new();
    for seed in 0..STREAMS {
        let link = pair.node.clone();
        callers.spawn(async move {
            let stream = link.open(Purpose::Invoke).await.unwrap();
            let (mut reading, mut writing) = tokio::io::split(stream);
            let sent = noise(20_000 + 97 * seed as usize, seed);
            let (received, ()) =
                tokio::join!(receive_all(&mut reading), send_all(&mut writing, &sent));
            assert!(received == sent, "stream {seed}");
        });
    }
    callers.join_all().await;
    echo.await.unwrap();
    assert_eq!(pair.node.open_streams(), 0);
}

async fn a_stalled_stream_holds_up_no_other(pair: Pair) {
    let (mut stalled, unread) = stream(&pair).await;
    let stuck = tokio::spawn(async move { write_until_error(&mut stalled).await });
    for _ in 0..3 {
        let (mut here, mut there) = stream(&pair).await;
        let sent = noise(1_000_000, 5);
        let (received, ()) = tokio::join!(receive_all(&mut there), send_all(&mut here, &sent));
        assert!(received == sent);
    }
    assert!(!stuck.is_finished());
    drop(unread);
    stuck.await.unwrap();
}

async fn closing_reaches_the_peer_with_its_reason(pair: Pair) {
    let (_here, mut there) = stream(&pair).await;
    pair.node.close("moving house");
    let end = pair.controller.closed().await;
    assert!(
        matches!(&end, LinkError::ClosedByPeer { reason } if &**reason == "moving house"),
        "{end:?}"
    );
    there.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(pair.controller.accept().await.is_err());
    assert!(pair.controller.open(Purpose::Logs).await.is_err());
    assert!(matches!(pair.node.closed().await, LinkError::ClosedHere));
    assert!(pair.node.end().is_some());
}

async fn closing_ends_whoever_waits(pair: Pair) {
    let (here, _there) = stream(&pair).await;
    let (mut reading, mut writing) = tokio::io::split(here);
    let reader = tokio::spawn(async move { reading.read_u8().await });
    let writer = tokio::spawn(async move {
        let chunk = [0; 16 * 1024];
        while writing.write_all(&chunk).await.is_ok() {}
    });
    let link = pair.node.clone();
    let accepter = tokio::spawn(async move { link.accept().await.map(|_| ()) });
    // Let them all get to where they wait.
    tokio::task::yield_now().await;
    pair.node.shutdown("enough").await;
    assert!(reader.await.unwrap().is_err());
    writer.await.unwrap();
    assert!(matches!(
        accepter.await.unwrap(),
        Err(LinkError::ClosedHere)
    ));
    assert!(pair.node.open(Purpose::Logs).await.is_err());
}

async fn a_dropped_link_closes(pair: Pair) {
    drop(pair.node);
    assert!(matches!(
        pair.controller.closed().await,
        LinkError::ClosedByPeer { .. }
    ));
}

async fn a_stream_keeps_its_link(pair: Pair) {
    let (mut here, mut there) = stream(&pair).await;
    drop(pair.node);
    send_all(&mut here, b"still here").await;
    assert_eq!(receive_all(&mut there).await, b"still here");
    drop(here);
    pair.controller.closed().await;
}

async fn idle_waits_for_the_last_stream(pair: Pair) {
    pair.node.idle().await;
    let (here, there) = stream(&pair).await;
    assert_eq!(pair.node.open_streams(), 1);
    let link = pair.node.clone();
    let idle = tokio::spawn(async move { link.idle().await });
    tokio::task::yield_now().await;
    assert!(!idle.is_finished());
    drop((here, there));
    idle.await.unwrap();
}

async fn who_accepted_may_open_many_streams(pair: Pair) {
    let many = pair.controller.most_streams().min(1000);
    assert!(many > 256, "{many}");
    let link = pair.node.clone();
    let node = tokio::spawn(async move {
        let mut taken = Vec::new();
        for _ in 0..many {
            let (_, mut stream) = link.accept().await.unwrap();
            stream.write_all(b"?").await.unwrap();
            stream.flush().await.unwrap();
            taken.push(stream);
        }
        taken
    });
    let mut open = Vec::new();
    for _ in 0..many {
        open.push(pair.controller.open(Purpose::Tunnel).await.unwrap());
    }
    let mut taken = node.await.unwrap();
    assert_eq!(pair.controller.open_streams(), many);
    for stream in &mut open {
        assert_eq!(stream.read_u8().await.unwrap(), b'?');
        send_all(stream, b"all at once").await;
    }
    for stream in &mut taken {
        assert_eq!(receive_all(stream).await, b"all at once");
    }
}

/// Sends until one arrives: any may be lost.
async fn arrives(sender: &DatagramSender, at: &mut Datagrams) {
    loop {
        sender.send(b"hello").unwrap();
        let came = tokio::time::timeout(Duration::from_millis(100), at.receive());
        if let Ok(came) = came.await {
            assert_eq!(came, "hello");
            return;
        }
    }
}

async fn datagrams_arrive_where_there_are_any(pair: Pair) {
    let mut here = pair.controller.begin_flow();
    let mut there = pair.node.join_flow(here.id()).unwrap();
    let (to_node, to_controller) = (here.sender(), there.sender());
    if pair.node.transport() == Transport::Tcp {
        assert_eq!(to_node.send(b"hello"), Err(NotSent::TooLong));
        return;
    }
    arrives(&to_node, &mut there).await;
    arrives(&to_controller, &mut here).await;
    assert_eq!(to_node.send(&[0; 70_000]), Err(NotSent::TooLong));
    assert_ne!(pair.controller.begin_flow().id(), here.id());
    pair.node.close("enough");
    pair.controller.closed().await;
    assert_eq!(to_node.send(b"hello"), Err(NotSent::Ended));
}

async fn flows_carry_datagrams_of_every_size_over_every_transport(pair: Pair) {
    let own = pair.controller.begin_flow();
    let other = pair.node.join_flow(own.id());
    let (here, there) = tokio::join!(pair.controller.open(Purpose::TunnelUdp), pair.node.accept());
    let (purpose, there) = there.unwrap();
    assert_eq!(purpose, Purpose::TunnelUdp);
    let (mut reader, mut writer) = flow::split(here.unwrap(), Some(own));
    let (mut from_controller, mut to_controller) = flow::split(there, other);
    let echo = tokio::spawn(async move {
        while let Ok(datagram) = from_controller.receive().await {
            to_controller.send(&datagram).await.unwrap();
        }
    });
    for size in [0, 1, 1000, 1400, 9000, MAX_DATAGRAM] {
        let sent = noise(size, size as u64);
        loop {
            assert!(writer.send(&sent).await.unwrap());
            let came = tokio::time::timeout(Duration::from_secs(1), reader.receive());
            // One that was thought lost may still come, after the next was sent.
            if came.await.is_ok_and(|came| came.unwrap() == sent) {
                break;
            }
        }
    }
    writer.end().await.unwrap();
    echo.await.unwrap();
}
