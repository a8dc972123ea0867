//! What the tunnels lead to: it takes in, gives out, or sends back, as the first byte of a connection says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{PATIENCE, until};

/// Read and written at a time.
pub const PIECE: usize = 64 << 10;

/// What it does with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Habit {
    /// Counts what comes, and says nothing.
    Sink,
    /// Writes without end.
    Source,
    /// Sends everything back, from the first byte on.
    Echo,
}

impl Habit {
    /// What a client asks for it with.
    pub fn byte(self) -> u8 {
        match self {
            Self::Sink => b'i',
            Self::Source => b'o',
            Self::Echo => b'e',
        }
    }
}

/// Serves until the runtime ends.
pub struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    taken: AtomicU64,
    /// Connections on which something was said.
    open: AtomicUsize,
}

impl Target {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared: Arc<Shared> = Arc::default();
        let sharing = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = sharing.clone();
                // However it ends: who asked is told by that.
                tokio::spawn(async move { drop(serve(stream, &shared).await) });
            }
        });
        Ok(Self { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Bytes that sinks have taken.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Waits until all connections ended: nothing of a round goes on in the next.
    pub async fn quiet(&self) -> anyhow::Result<()> {
        until("all connections end", PATIENCE, async || {
            let open = self.shared.open.load(Ordering::Relaxed);
            ensure!(open == 0, "{open} are open at the target");
            Ok(())
        })
        .await
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    // Health checks, and the leader's tries, say nothing.
    if stream.read(&mut first).await? == 0 {
        return Ok(());
    }
    shared.open.fetch_add(1, Ordering::Relaxed);
    let served = follow(stream, first, &shared.taken).await;
    shared.open.fetch_sub(1, Ordering::Relaxed);
    served
}

/// Does what the first byte wants.
async fn follow(mut stream: TcpStream, first: [u8; 1], taken: &AtomicU64) -> io::Result<()> {
    match first[0] {
        byte if byte == Habit::Sink.byte() => {
            let mut buffer = vec![0; PIECE];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    read => taken.fetch_add(read as u64, Ordering::Relaxed),
                };
            }
        }
        byte if byte == Habit::Source.byte() => {
            let piece = vec![0; PIECE];
            loop {
                stream.write_all(&piece).await?;
            }
        }
        _ => {
            stream.write_all(&first).await?;
            // Small: thousands of them are kept.
            let mut buffer = [0; 256];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    read => stream.write_all(&buffer[..read]).await?,
                }
            }
        }
    }
}
