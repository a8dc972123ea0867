//! Links that share one socket are as good as others: each its own peer's, each ended alone, and all of
//! them counted.

use hive_proto::link::{LinkSettings, Purpose, SharedSocket, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parties::{Swarm, link, settings, within};

#[tokio::test]
async fn many_links_over_one_socket_are_told_apart_and_counted() {
    let swarm = Swarm::new();
    let quic = settings(Transports::QuicOnly);
    let (first, second) = (
        swarm.listen(quic.clone()).await,
        swarm.listen(quic.clone()).await,
    );
    let socket = SharedSocket::toward(first.local_addr()).unwrap();
    let shared = LinkSettings {
        socket: Some(socket.clone()),
        ..quic
    };
    let mut ends = Vec::new();
    for listener in [&first, &first, &second] {
        let (here, there) = link(listener, swarm.client_config(), &shared).await;
        ends.push((here.unwrap(), there.unwrap()));
    }
    let ports: Vec<_> = ends
        .iter()
        .map(|(_, there)| there.remote().unwrap().port())
        .collect();
    assert_eq!(ports, [ports[0]; 3]);

    // The end of one is no end of the others.
    let (gone, its_other_end) = ends.remove(0);
    gone.close("enough");
    within(its_other_end.closed()).await;
    let before = socket.traffic();
    for (index, (here, there)) in ends.iter().enumerate() {
        let mut sent = here.open(Purpose::Logs).await.unwrap();
        sent.write_all(&[index as u8; 100]).await.unwrap();
        sent.shutdown().await.unwrap();
        let (_, mut received) = within(there.accept()).await.unwrap();
        let mut bytes = Vec::new();
        within(received.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes, [index as u8; 100]);
    }
    let travelled = socket.traffic() - before;
    assert!(
        travelled.bytes >= 200 && travelled.datagrams >= 4,
        "{travelled:?}"
    );
}
