//! Closed-loop rounds: so many clients, each with one call under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::connection::{Call, Connection, Refused, Version};
use super::{Calls, System};
use crate::load::percentile;

/// With HTTP/2 clients share connections, as client libraries do: so many to each member.
const CONNECTIONS_TO_EACH: usize = 2;

/// Before a call that was refused is sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// Which members are asked.
#[derive(Clone, Copy)]
pub enum Place {
    At(usize),
    All,
}

pub enum Work {
    Write,
    Read {
        group: &'static str,
        keys: u64,
    },
    /// Until there are so many.
    Fill {
        group: &'static str,
        next: AtomicU64,
        count: u64,
    },
}

/// So that no key is written twice in one run of this program.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Work {
    fn next(&self, calls: &dyn Calls) -> Option<Call> {
        match self {
            Self::Write => Some(calls.write("write", NEXT.fetch_add(1, Ordering::Relaxed))),
            Self::Read { group, keys } => {
                let number = NEXT.fetch_add(1, Ordering::Relaxed) % keys;
                Some(calls.read(group, number))
            }
            Self::Fill { group, next, count } => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                (number < *count).then(|| calls.write(group, number))
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub refused: u64,
}

impl Figures {
    /// Of calls that one client made one after the other.
    pub fn of(mut latencies: Vec<Duration>) -> Self {
        let total: Duration = latencies.iter().sum();
        latencies.sort_unstable();
        Self {
            per_second: latencies.len() as f64 / total.as_secs_f64(),
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
            refused: 0,
        }
    }
}

/// Any failed call fails the round: figures with errors in them compare nothing.
pub async fn round(
    system: &impl System,
    clients: usize,
    place: Place,
    version: Version,
    length: Duration,
    work: &Arc<Work>,
) -> anyhow::Result<Figures> {
    let calls = system.calls();
    let shared = version == Version::Http2;
    let version = match calls.is_grpc() {
        true => Version::Http2,
        false => version,
    };
    let members: Vec<usize> = match place {
        Place::At(member) => vec![member],
        Place::All => (0..system.members().len()).collect(),
    };
    let needed = match shared {
        true => clients.min(members.len() * CONNECTIONS_TO_EACH),
        false => clients,
    };
    let mut connections = Vec::new();
    for number in 0..needed {
        let member = &system.members()[members[number % members.len()]];
        connections.push(Connection::open(member, version).await?);
    }
    let refused = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let mut connection = connections[client % connections.len()].clone();
            let (calls, work, refused) = (calls.clone(), work.clone(), refused.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < length {
                    let Some(call) = work.next(&*calls) else {
                        break;
                    };
                    let sent = Instant::now();
                    until_taken(&mut connection, call, &refused).await?;
                    latencies.push(sent.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await?.with_context(|| system.name())?);
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Ok(Figures {
        per_second: latencies.len() as f64 / elapsed,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        refused: refused.load(Ordering::Relaxed),
    })
}

/// Sends a call again for as long as the server has too much to do.
async fn until_taken(
    connection: &mut Connection,
    call: Call,
    refused: &AtomicU64,
) -> anyhow::Result<()> {
    loop {
        match connection.call(call.clone()).await {
            Err(error) if error.is::<Refused>() => {
                refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            other => return other.map(drop),
        }
    }
}

/// Each figure's median by itself.
pub fn median(rounds: &[Figures]) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        per_second: middle(|f| f.per_second),
        p50: Duration::from_secs_f64(middle(|f| f.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(middle(|f| f.p99.as_secs_f64())),
        refused: rounds.iter().map(|f| f.refused).sum(),
    }
}
