//! A network between a dialer and a listener that can go dark without a word, which loopback can't.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Forwards TCP connections and UDP datagrams from its own port until it goes dark.
pub struct Relay {
    pub address: SocketAddr,
    dark: CancellationToken,
    /// Of UDP: towards the listener.
    far: Option<Arc<UdpSocket>>,
}

impl Relay {
    pub async fn tcp(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dark = CancellationToken::new();
        let relaying = dark.clone();
        tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(target).await.unwrap();
            let copying = tokio::io::copy_bidirectional(&mut near, &mut far);
            if relaying.run_until_cancelled(copying).await.is_none() {
                // Open and deaf, as a router without power leaves them.
                std::future::pending::<()>().await;
            }
            let _ = near.shutdown().await;
        });
        Self {
            address,
            dark,
            far: None,
        }
    }

    pub async fn udp(target: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(target).await.unwrap();
        let address = near.local_addr().unwrap();
        let dark = CancellationToken::new();
        let relaying = dark.clone();
        let towards = Some(far.clone());
        tokio::spawn(async move {
            let mut dialer = None;
            let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
            loop {
                tokio::select! {
                    received = near.recv_from(&mut up) => {
                        let (bytes, from) = received.unwrap();
                        dialer = Some(from);
                        if !relaying.is_cancelled() {
                            let _ = far.send(&up[..bytes]).await;
                        }
                    }
                    received = far.recv(&mut down) => {
                        if let (Ok(bytes), Some(dialer), false) = (received, dialer, relaying.is_cancelled()) {
                            let _ = near.send_to(&down[..bytes], dialer).await;
                        }
                    }
                }
            }
        });
        Self {
            address,
            dark,
            far: towards,
        }
    }

    /// Datagrams go to another listener from now on.
    pub async fn turn_to(&self, target: SocketAddr) {
        let far = self.far.as_ref().expect("a relay of UDP");
        far.connect(target).await.unwrap();
    }

    pub fn go_dark(&self) {
        self.dark.cancel();
    }
}
