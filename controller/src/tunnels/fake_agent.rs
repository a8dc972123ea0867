//! For tests: the other end of a node's link. It connects to what it is asked for, as an agent does.

use hive_proto::flow;
use hive_proto::frame;
use hive_proto::link::{Link, Purpose, Stream, memory};
use hive_proto::tunnel::REFUSED;
use hive_proto::v1::{TunnelOpen, TunnelOpened};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UdpSocket};

use crate::gateway::Links;

/// Links a node whose agent connects to whatever it is asked for. Returned is the controller's end.
pub fn join(links: &Links, node: &str) -> Link {
    let (here, there) = memory::pair(None, None);
    links.add(node, here.clone());
    tokio::spawn(async move {
        while let Ok((purpose, stream)) = there.accept().await {
            match purpose {
                Purpose::TunnelUdp => tokio::spawn(answer_flow(stream)),
                _ => tokio::spawn(answer(stream)),
            };
        }
    });
    here
}

/// Links a node whose streams are handed out as they come. They end with what is returned.
pub fn join_by_hand(links: &Links, node: &str) -> Link {
    let (here, there) = memory::pair(None, None);
    links.add(node, here);
    there
}

/// The next stream that a controller opens, and what it asks for.
pub async fn asked(agent: &Link) -> (Stream, TunnelOpen) {
    let (purpose, mut stream) = agent.accept().await.expect("the link lives");
    assert_eq!(purpose, Purpose::Tunnel);
    let open = frame::read(&mut stream, 1 << 10).await;
    let open = open.expect("a message").expect("before the end");
    (stream, open)
}

async fn answer(mut stream: Stream) {
    let Ok(Some(open)) = frame::read::<TunnelOpen>(&mut stream, 1 << 10).await else {
        return;
    };
    let port = u16::try_from(open.port).expect("a port");
    match TcpStream::connect((&*open.host, port)).await {
        Ok(mut target) => {
            if frame::write(&mut stream, &TunnelOpened::default())
                .await
                .is_ok()
            {
                let _ = copy_bidirectional(&mut stream, &mut target).await;
            }
        }
        Err(error) => {
            let refused = TunnelOpened {
                reason: REFUSED.into(),
                message: format!("{}:{port}: {error}", open.host),
            };
            let _ = frame::write(&mut stream, &refused).await;
        }
    }
}

/// Sends to whatever it is asked for, and says what the system says of that.
async fn answer_flow(mut stream: Stream) {
    let Ok(Some(open)) = frame::read::<TunnelOpen>(&mut stream, 1 << 10).await else {
        return;
    };
    let datagrams = open.flow.and_then(|id| stream.link().join_flow(id));
    let port = u16::try_from(open.port).expect("a port");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    socket
        .connect((&*open.host, port))
        .await
        .expect("an address");
    if frame::write(&mut stream, &TunnelOpened::default())
        .await
        .is_err()
    {
        return;
    }
    let (mut reader, mut writer) = flow::split(stream, datagrams);
    let inward = async {
        while let Ok(datagram) = reader.receive().await {
            let _ = socket.send(&datagram).await;
        }
        None
    };
    let outward = async {
        loop {
            match hive_tunnels::udp::receive(&socket).await {
                Ok(datagram) => {
                    if writer.send(&datagram).await.is_err() {
                        return None;
                    }
                }
                Err(error) => return Some(error),
            }
        }
    };
    let refused = tokio::select! {
        refused = inward => refused,
        refused = outward => refused,
    };
    if let Some(error) = refused {
        let why = TunnelOpened {
            reason: REFUSED.into(),
            message: format!("{}:{port}: {error}", open.host),
        };
        let _ = writer.refuse(&why).await;
    }
}
