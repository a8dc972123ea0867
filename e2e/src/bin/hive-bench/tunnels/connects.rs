//! New connections a second: each is opened, says a byte, hears it back, and is closed; 64 at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::contestant::{Contestant, Role, hive_and_peers};
use super::target::Target;
use super::{ROUND, ROUNDS, median};
use crate::aims::Aims;

const AT_ONCE: usize = 64;

/// Of rathole's.
const AIM: f64 = 1.0;

struct Round {
    connections: u64,
    failed: u64,
    took: Duration,
    cpu: Duration,
}

pub async fn run(
    contestants: &[Contestant],
    target: &Target,
    aims: &mut Aims,
) -> anyhow::Result<()> {
    let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
    // The first is not counted.
    for counted in 0..=ROUNDS {
        for (rounds, contestant) in rounds.iter_mut().zip(contestants) {
            let found = round(contestant).await?;
            target.quiet().await?;
            if counted > 0 {
                rounds.push(found);
            }
        }
    }
    println!(
        "\nnew connections, {AT_ONCE} at a time: medians of {ROUNDS} interleaved rounds of {} s",
        ROUND.as_secs()
    );
    println!(
        "{:<22} {:>14} {:>9} {:>18}",
        "", "connections/s", "failed", "CPU us/connection"
    );
    let (mut rates, mut failures) = (Vec::new(), Vec::new());
    for (contestant, rounds) in contestants.iter().zip(rounds) {
        let rate = |round: &Round| round.connections as f64 / round.took.as_secs_f64();
        let rate = median(rounds.iter().map(rate).collect());
        let failed = rounds.iter().map(|it| it.failed).sum::<u64>();
        let connections = rounds.iter().map(|it| it.connections).sum::<u64>();
        let cpu = rounds.iter().map(|it| it.cpu).sum::<Duration>();
        let cpu = match contestant.role {
            Role::Direct => "-".to_owned(),
            _ => format!("{:.0}", cpu.as_secs_f64() * 1e6 / connections as f64),
        };
        println!("{:<22} {rate:>14.0} {failed:>9} {cpu:>18}", contestant.name);
        rates.push(rate);
        failures.push(failed);
    }
    let (hive, peers) = hive_and_peers(contestants);
    for peer in peers {
        aims.at_least(
            &format!("new connections/s: Hive / {}", contestants[peer].name),
            rates[hive] / rates[peer],
            AIM,
            "x",
        );
    }
    let failed = failures[hive] as f64;
    aims.at_most("new connections through Hive that failed", failed, 0.0, "");
    Ok(())
}

async fn round(contestant: &Contestant) -> anyhow::Result<Round> {
    let (connections, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), contestant.cpu()?);
    let end = began + ROUND;
    join_all((0..AT_ONCE).map(|_| async {
        while Instant::now() < end {
            let counter = match contestant.open_echo().await {
                Ok(_) => &connections,
                Err(_) => &failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }))
    .await;
    Ok(Round {
        connections: connections.into_inner(),
        failed: failed.into_inner(),
        took: began.elapsed(),
        cpu: contestant.cpu()?.saturating_sub(cpu),
    })
}
