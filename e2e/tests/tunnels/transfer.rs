//! A service in this process that gives or takes much, and tells how that ended.

use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::noise::Noise;

/// More than anybody takes at a gulp.
pub const WHOLE: usize = 256 << 20;

/// No head of a request that is sent here is longer.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What it does with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Writes all of it, and ends.
    Gives,
    /// The same, as the answer to a request of HTTP/1.1 that ends where the connection does: nothing but that says
    /// whether it is whole.
    Answers,
    /// Reads until the end, or until it breaks.
    Takes,
}

/// Ends when it is dropped, with its connections.
#[derive(Debug)]
pub struct Transfer {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    open: AtomicUsize,
    taken: Mutex<Vec<std::result::Result<usize, String>>>,
}

impl Transfer {
    pub async fn start(port: u16, way: Way) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.expect("nobody took its port");
        let shared: Arc<Shared> = Arc::default();
        let sharing = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let shared = sharing.clone();
                connections.spawn(async move {
                    shared.open.fetch_add(1, Ordering::Relaxed);
                    // However it ends: who asked is told by that.
                    let _ = serve(stream, way, &shared).await;
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { port, shared, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that it has.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Of each connection on which something came how many bytes that were to its end, or how it broke.
    pub fn taken(&self) -> Vec<std::result::Result<usize, String>> {
        self.shared.taken.lock().unwrap().clone()
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, way: Way, shared: &Shared) -> Result<()> {
    match way {
        Way::Gives => give(&mut stream).await,
        Way::Answers => {
            head(&mut stream).await?;
            let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            stream.write_all(head).await?;
            give(&mut stream).await
        }
        Way::Takes => {
            let mut bytes = 0;
            let ended = take(&mut stream, &mut bytes).await;
            if bytes > 0 {
                let ended = ended.map(|()| bytes).map_err(|error| error.to_string());
                shared.taken.lock().unwrap().push(ended);
            }
            Ok(())
        }
    }
}

async fn give(stream: &mut TcpStream) -> Result<()> {
    for piece in Noise::new(WHOLE) {
        stream.write_all(&piece).await?;
    }
    stream.shutdown().await
}

/// Reads a request's.
async fn head(stream: &mut TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(Error::other("a head without an end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

async fn take(stream: &mut TcpStream, bytes: &mut usize) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => *bytes += read,
        }
    }
}
