//! Streams that nobody reads: whatever they are filled with, the node's session and all other streams go on, and who
//! reads again is served.

use hive_proto::link::{Link, Purpose, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split};
use tokio::task::JoinHandle;

use crate::parties::Pair;

/// Streams that are filled with as much as they take: more than are full before others feel it.
const GREEDY: usize = 64;

/// Streams of which each must take [`MODEST_BYTES`] besides: all together more than the windows of 32 streams.
const MODEST: usize = 600;

/// Little less than what is every stream's own.
const MODEST_BYTES: usize = 15 * 1024;

/// Beyond the window of a stream.
const MUCH: usize = 1_000_000;

pub async fn streams_that_nobody_reads_hold_up_no_other(pair: Pair) {
    let mut unread = Vec::new();
    for _ in 0..GREEDY {
        let (here, there) = stream(&pair.controller, &pair.node, Purpose::Tunnel).await;
        unread.push((fill(here), fill(there)));
    }
    let mut modest = Vec::new();
    for _ in 0..MODEST.min(pair.controller.most_streams() - 2 * GREEDY) {
        let (mut here, mut there) = stream(&pair.controller, &pair.node, Purpose::Invoke).await;
        for end in [&mut here, &mut there] {
            end.write_all(&[1; MODEST_BYTES]).await.unwrap();
            end.flush().await.unwrap();
        }
        modest.push((here, there));
    }

    let session = stream(&pair.node, &pair.controller, Purpose::Grpc).await;
    let tunnel = stream(&pair.controller, &pair.node, Purpose::Tunnel).await;
    for (mut here, mut there) in [session, tunnel] {
        carry_much(&mut here, &mut there).await;
        carry_much(&mut there, &mut here).await;
    }

    let ((mut here, _), _) = unread.swap_remove(0);
    here.read_exact(&mut vec![0; MUCH]).await.unwrap();

    // Who leaves stops whoever waits for him to read.
    let ((_here, filling), (there, its_filling)) = unread.swap_remove(0);
    its_filling.abort();
    assert!(its_filling.await.unwrap_err().is_cancelled());
    drop(there);
    filling.await.unwrap();

    pair.node.close("enough");
    for ((_here, filling), (_there, its_filling)) in unread {
        filling.await.unwrap();
        its_filling.await.unwrap();
    }
}

/// At both ends.
async fn stream(from: &Link, to: &Link, purpose: Purpose) -> (Stream, Stream) {
    let (here, there) = tokio::join!(from.open(purpose), to.accept());
    let (announced, there) = there.unwrap();
    assert_eq!(announced, purpose);
    (here.unwrap(), there)
}

/// Writes as long as there is a stream.
fn fill(stream: Stream) -> (ReadHalf<Stream>, JoinHandle<()>) {
    let (reading, mut writing) = split(stream);
    let filling = tokio::spawn(async move {
        let chunk = [0; 16 * 1024];
        while writing.write_all(&chunk).await.is_ok() && writing.flush().await.is_ok() {}
    });
    (reading, filling)
}

async fn carry_much(from: &mut Stream, to: &mut Stream) {
    let sent = vec![7; MUCH];
    let mut received = vec![0; MUCH];
    let sending = async {
        from.write_all(&sent).await.unwrap();
        from.flush().await.unwrap();
    };
    let ((), read) = tokio::join!(sending, to.read_exact(&mut received));
    read.unwrap();
    assert!(received == sent);
}
