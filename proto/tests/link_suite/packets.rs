//! How long the packets of a link are.

use hive_proto::link::{Datagrams, NotSent, Purpose, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parties::{Pair, within};

/// Ethernet carries no such packet, and loopback does.
const LONG: [u8; 5000] = [7; 5000];

#[tokio::test]
async fn packets_become_as_long_as_the_way_carries() {
    let pair = Pair::over(Transport::Quic).await;
    let mut there = pair.controller.begin_flow();
    let mut here = pair.node.join_flow(there.id()).unwrap();
    pass(&there, &mut here).await;
    pass(&here, &mut there).await;

    // Many of them are handed to the system at once, and none is refused: packets would become short again.
    carry_much(&pair).await;
    assert_eq!(there.sender().send(&LONG), Ok(()));
}

/// Waits until one packet carries it.
async fn pass(from: &Datagrams, to: &mut Datagrams) {
    let sender = from.sender();
    within(async {
        while let Err(error) = sender.send(&LONG) {
            assert_eq!(error, NotSent::TooLong);
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(within(to.receive()).await, LONG[..]);
}

/// From the controller to the node.
async fn carry_much(pair: &Pair) {
    let opening = async { tokio::join!(pair.controller.open(Purpose::Tunnel), pair.node.accept()) };
    let (opened, accepted) = within(opening).await;
    let (mut sending, (_, mut receiving)) = (opened.unwrap(), accepted.unwrap());
    let (much, mut received) = (vec![7_u8; 4 << 20], Vec::new());
    let send = async {
        sending.write_all(&much).await.unwrap();
        sending.shutdown().await.unwrap();
    };
    within(async { tokio::join!(send, receiving.read_to_end(&mut received)) })
        .await
        .1
        .unwrap();
    assert!(received == much);
}
