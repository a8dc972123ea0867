//! A closed-loop HTTP/1.1 load: so many connections, each with one request under way at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What one round of load found.
#[derive(Clone, Debug)]
pub struct Round {
    pub requests_per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub host: String,
}

pub async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request; its whole answer must come, and be a success.
pub async fn get(sender: &mut SendRequest<Empty<Bytes>>, host: &str) -> anyhow::Result<()> {
    let request = Request::get("/").header("host", host).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if !status.is_success() {
        bail!("answered {status}");
    }
    Ok(())
}

/// Runs `connections` for `length`. Any failed request fails the round: figures with errors in
/// them compare nothing.
pub async fn round(target: &Target, connections: usize, length: Duration) -> anyhow::Result<Round> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let mut sender = connect(target.address)
            .await
            .with_context(|| format!("cannot connect to {}", target.address))?;
        let (stop, host) = (stop.clone(), target.host.clone());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                get(&mut sender, &host).await?;
                latencies.push(started.elapsed());
            }
            anyhow::Ok(latencies)
        }));
    }
    let started = Instant::now();
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    if latencies.is_empty() {
        bail!("{} answered nothing", target.address);
    }
    Ok(Round {
        requests_per_second: latencies.len() as f64 / elapsed,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
    })
}

/// Of sorted values; the nearest rank.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Of the rounds, each figure's median by itself.
pub fn median(rounds: &[Round]) -> Round {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |figure: fn(&Round) -> f64| middle(rounds.iter().map(figure).collect());
    Round {
        requests_per_second: of(|r| r.requests_per_second),
        p50: Duration::from_secs_f64(of(|r| r.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(of(|r| r.p99.as_secs_f64())),
    }
}
