//! A request of 64 bytes and its answer of as many, over a connection that is open: what a tunnel adds to that.
//! At a modest rate: what is measured is the way, not a queue.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::contestant::{Contestant, Role, hive_and_peers};
use super::{ROUND, ROUNDS};
use crate::aims::Aims;
use crate::load::percentile;

const BYTES: usize = 64;

/// Two hundred a second.
const PAUSE: Duration = Duration::from_millis(5);

pub async fn run(contestants: &[Contestant], aims: &mut Aims) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    for contestant in contestants {
        streams.push(contestant.open_echo().await?);
    }
    let mut took: Vec<Vec<Duration>> = contestants.iter().map(|_| Vec::new()).collect();
    // The first round finds nothing as it is later: it is not counted.
    for counted in 0..=ROUNDS {
        for (index, contestant) in contestants.iter().enumerate() {
            let found = round(&mut streams[index]).await;
            let found = found.with_context(|| contestant.name.clone())?;
            if counted > 0 {
                took[index].extend(found);
            }
        }
    }
    println!(
        "\nlatency of {BYTES} bytes there and back, {} a second: all of {ROUNDS} interleaved rounds of {} s",
        1000 / PAUSE.as_millis(),
        ROUND.as_secs()
    );
    println!(
        "{:<22} {:>9} {:>9} {:>13} {:>13}",
        "", "p50 us", "p99 us", "added p50 us", "added p99 us"
    );
    let mut direct = [0.0; 2];
    let mut added = Vec::new();
    for (contestant, took) in contestants.iter().zip(&mut took) {
        took.sort_unstable();
        let us = |percent| percentile(took, percent).as_secs_f64() * 1e6;
        let [p50, p99] = [us(50), us(99)];
        if contestant.role == Role::Direct {
            direct = [p50, p99];
        }
        println!(
            "{:<22} {p50:>9.0} {p99:>9.0} {:>13.0} {:>13.0}",
            contestant.name,
            p50 - direct[0],
            p99 - direct[1]
        );
        added.push(p99 - direct[1]);
    }
    let (hive, peers) = hive_and_peers(contestants);
    for peer in peers {
        let what = format!("p99 added, us: Hive; aim: {}", contestants[peer].name);
        aims.at_most(&what, added[hive], added[peer].round(), "");
    }
    Ok(())
}

async fn round(stream: &mut TcpStream) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = tokio::time::interval(PAUSE);
    // A late tick is no reason for a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + ROUND;
    let mut took = Vec::new();
    let mut bytes = [7; BYTES];
    while Instant::now() < end {
        ticks.tick().await;
        let began = Instant::now();
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}
