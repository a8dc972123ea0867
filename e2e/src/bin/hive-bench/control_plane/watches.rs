//! Thousands of watches of Hive: what each takes in the controllers, and how late its events are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::connection::{Connection, Version};
use super::hive::{Hive, path};
use super::{Calls, System};
use crate::load::percentile;
use crate::ms;
use crate::process;

/// Watches on one connection: half of what an HTTP/2 server allows by default.
const TO_A_CONNECTION: usize = 100;

const EVENTS: u64 = 100;

/// Between two writes; each reaches every watch.
const PACE: Duration = Duration::from_millis(200);

const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(hive: &mut Hive, count: usize) -> anyhow::Result<()> {
    let members = hive.members().len();
    let before = memory(hive)?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    for first in (0..count).step_by(TO_A_CONNECTION) {
        let member = &hive.members()[first / TO_A_CONNECTION % members];
        let connection = Connection::open(member, Version::Http2).await?;
        for _ in first..count.min(first + TO_A_CONNECTION) {
            let mut connection = connection.clone();
            let call = hive.hive_calls().get(&format!(
                "{}?watch=true&resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
                path("watched")
            ));
            let (arrived, open) = (arrived.clone(), open.clone());
            tokio::spawn(async move {
                let response = connection.send(call.request).await?;
                if !response.status().is_success() {
                    bail!("a watch was answered {}", response.status());
                }
                open.fetch_add(1, Ordering::Relaxed);
                let mut body = response.into_body();
                while let Some(frame) = body.frame().await {
                    if let Some(data) = frame?.data_ref() {
                        let events = data.iter().filter(|byte| **byte == b'\n').count();
                        arrived.send((Instant::now(), events))?;
                    }
                }
                Ok(())
            });
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while open.load(Ordering::Relaxed) < count {
        if Instant::now() > deadline {
            let open = open.load(Ordering::Relaxed);
            println!("watches: only {open} of {count} were opened");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let opened = memory(hive)?;
    let mut writer = Connection::open(&hive.members()[0], Version::Http2).await?;
    let mut latencies = Vec::new();
    for number in 0..EVENTS {
        let written = Instant::now();
        writer
            .call(hive.hive_calls().write("watched", number))
            .await?;
        let mut missing = count;
        while missing > 0 {
            let next = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
            let (at, events) = next
                .context("an event did not arrive")?
                .context("watches ended")?;
            missing = missing.checked_sub(events).context("an event too many")?;
            latencies.push(at - written);
        }
        tokio::time::sleep(PACE).await;
    }
    let after = memory(hive)?;
    latencies.sort_unstable();
    println!(
        "{count} watches over {} connections: {:.1} KB each when opened, {:.1} KB after {EVENTS} events; events p50 {:.1} ms, p99 {:.1} ms after the write was sent",
        count.div_ceil(TO_A_CONNECTION),
        (opened - before) / count as f64,
        (after - before) / count as f64,
        ms(percentile(&latencies, 50)),
        ms(percentile(&latencies, 99)),
    );
    Ok(())
}

/// Of all controllers, in KiB.
fn memory(hive: &Hive) -> anyhow::Result<f64> {
    let mut sum = 0;
    for pid in hive.processes() {
        sum += process::memory(pid)?.0;
    }
    Ok(sum as f64)
}
