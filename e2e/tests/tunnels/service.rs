//! A TCP service behind a tunnel, in this process.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::noise::Sum;

/// What it does with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Habit {
    /// Sends back what comes, and ends when that ends.
    Echo,
    /// Answers when the client has said all: how many bytes that were, and their SHA-256.
    Digest,
    /// Says hello and ends its own side; what comes after that is told by [`Service::heard`].
    Greet,
}

pub const GREETING: &str = "hello";

/// Ends when it is dropped, with its connections.
#[derive(Debug)]
pub struct Service {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    open: AtomicUsize,
    heard: Mutex<Vec<String>>,
}

impl Service {
    pub async fn start(port: u16, habit: Habit) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.expect("nobody took its port");
        let shared: Arc<Shared> = Arc::default();
        let sharing = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, habit, sharing.clone()));
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

    /// What came on each connection that said anything after the greeting.
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a connection while it is there, however it ends.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whatever breaks ends the connection: who asked is told by that.
async fn serve(mut stream: TcpStream, habit: Habit, shared: Arc<Shared>) {
    let open = Open::new(shared);
    let _ = match habit {
        Habit::Echo => echo(&mut stream).await,
        Habit::Digest => digest(&mut stream).await,
        Habit::Greet => greet(&mut stream, &open.0).await,
    };
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    let (mut reading, mut writing) = stream.split();
    tokio::io::copy(&mut reading, &mut writing).await?;
    writing.shutdown().await
}

async fn digest(stream: &mut TcpStream) -> std::io::Result<()> {
    let (mut sum, mut buffer) = (Sum::default(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => sum.add(&buffer[..read]),
        }
    }
    stream.write_all(sum.text().as_bytes()).await?;
    stream.shutdown().await
}

async fn greet(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.write_all(GREETING.as_bytes()).await?;
    stream.shutdown().await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    if !said.is_empty() {
        shared.heard.lock().unwrap().push(said);
    }
    Ok(())
}
