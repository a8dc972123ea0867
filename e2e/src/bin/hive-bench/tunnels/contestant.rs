//! What stands between a client and the target: where clients connect, and whose processor time it costs.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::Habit;
use super::{PATIENCE, until};
use crate::process::{self, Process};

/// For a new connection to be answered. One that takes longer has failed.
const ANSWER: Duration = Duration::from_secs(10);

/// What Hive's figures are compared with it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing between.
    Direct,
    Hive,
    /// Another tunnel that encrypts.
    Peer,
    /// A tunnel that does not: shown, not aimed at.
    Reference,
}

/// Ends with this value.
pub struct Contestant {
    pub name: String,
    pub role: Role,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Of its processes, both ends.
    pub pids: Vec<u32>,
    /// What ends when it is dropped.
    _running: Box<dyn Any>,
}

impl Contestant {
    pub fn direct(target: SocketAddr) -> Self {
        Self::new("direct", Role::Direct, target, Vec::new(), ())
    }

    pub fn new(
        name: &str,
        role: Role,
        address: SocketAddr,
        pids: Vec<u32>,
        running: impl Any,
    ) -> Self {
        Self {
            name: name.to_owned(),
            role,
            address,
            pids,
            _running: Box::new(running),
        }
    }

    /// A tunnel of processes that were started here, and the directory that they read.
    pub fn of_processes(
        name: &str,
        role: Role,
        address: SocketAddr,
        processes: Vec<Process>,
        dir: Option<TempDir>,
    ) -> Self {
        let pids = processes.iter().map(Process::pid).collect();
        Self::new(name, role, address, pids, (processes, dir))
    }

    /// A new connection, of which the target is told what to do with it.
    pub async fn open(&self, habit: Habit) -> anyhow::Result<TcpStream> {
        let connecting = TcpStream::connect(self.address).await;
        let mut stream = connecting.with_context(|| format!("cannot connect to {}", self.name))?;
        stream.set_nodelay(true)?;
        stream.write_all(&[habit.byte()]).await?;
        Ok(stream)
    }

    /// A new connection on which the target has answered.
    pub async fn open_echo(&self) -> anyhow::Result<TcpStream> {
        let opening = async {
            let mut stream = self.open(Habit::Echo).await?;
            let answer = stream.read_u8().await.context("no answer")?;
            ensure!(answer == Habit::Echo.byte(), "the echo says {answer}");
            Ok(stream)
        };
        let opened = timeout(ANSWER, opening).await;
        opened.with_context(|| format!("no answer through {} in {ANSWER:?}", self.name))?
    }

    /// Waits until it does; then it is the same.
    pub async fn carries(self) -> anyhow::Result<Self> {
        let what = format!("{} carries a byte there and back", self.name);
        until(&what, PATIENCE, async || self.open_echo().await.map(drop)).await?;
        Ok(self)
    }

    /// Processor time of both ends so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.pids.iter().map(|pid| process::cpu(*pid)).sum()
    }
}

/// Where Hive is among them, and where its peers are.
pub fn hive_and_peers(contestants: &[Contestant]) -> (usize, Vec<usize>) {
    let at = |role: Role| -> Vec<usize> {
        let indexes = 0..contestants.len();
        indexes.filter(|it| contestants[*it].role == role).collect()
    };
    (at(Role::Hive)[0], at(Role::Peer))
}
