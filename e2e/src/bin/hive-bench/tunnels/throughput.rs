//! Bytes a second, one stream and sixteen, to the target and from it, and the processor time of both ends of a
//! contestant for each gigabyte. Counted where they arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::contestant::{Contestant, Role, hive_and_peers};
use super::target::{Habit, PIECE, Target};
use super::{ROUND, ROUNDS, median};
use crate::aims::Aims;

const STREAMS: [usize; 2] = [1, 16];

/// Windows grow before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Of rathole's.
const AIM: f64 = 1.0;

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToTarget,
    FromTarget,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::ToTarget => "to the target",
            Self::FromTarget => "from the target",
        }
    }

    fn habit(self) -> Habit {
        match self {
            Self::ToTarget => Habit::Sink,
            Self::FromTarget => Habit::Source,
        }
    }
}

/// What one of them found.
struct Round {
    bytes: u64,
    took: Duration,
    cpu: Duration,
}

pub async fn run(
    contestants: &[Contestant],
    target: &Target,
    aims: &mut Aims,
) -> anyhow::Result<()> {
    for streams in STREAMS {
        for direction in [Direction::ToTarget, Direction::FromTarget] {
            let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
            for _ in 0..ROUNDS {
                for (rounds, contestant) in rounds.iter_mut().zip(contestants) {
                    let found = round(contestant, target, streams, direction).await;
                    rounds.push(found.with_context(|| contestant.name.clone())?);
                }
            }
            tell(contestants, rounds, streams, direction, aims);
        }
    }
    Ok(())
}

fn tell(
    contestants: &[Contestant],
    rounds: Vec<Vec<Round>>,
    streams: usize,
    direction: Direction,
    aims: &mut Aims,
) {
    let what = match streams {
        1 => format!("1 stream {}", direction.name()),
        _ => format!("{streams} streams {}", direction.name()),
    };
    println!(
        "\nthroughput, {what}: medians of {ROUNDS} interleaved rounds of {} s",
        ROUND.as_secs()
    );
    println!("{:<22} {:>10} {:>12}", "", "MB/s", "CPU s/GB");
    let mut rates = Vec::new();
    for (contestant, rounds) in contestants.iter().zip(rounds) {
        let gigabytes = rounds.iter().map(|it| it.bytes).sum::<u64>() as f64 / 1e9;
        let cpu = rounds.iter().map(|it| it.cpu).sum::<Duration>();
        let cpu = match contestant.role {
            Role::Direct => "-".to_owned(),
            _ => format!("{:.2}", cpu.as_secs_f64() / gigabytes),
        };
        let rate = |round: &Round| round.bytes as f64 / 1e6 / round.took.as_secs_f64();
        let rate = median(rounds.iter().map(rate).collect());
        println!("{:<22} {rate:>10.0} {cpu:>12}", contestant.name);
        rates.push(rate);
    }
    let (hive, peers) = hive_and_peers(contestants);
    for peer in peers {
        let name = &contestants[peer].name;
        aims.at_least(
            &format!("{what}, bytes/s: Hive / {name}"),
            rates[hive] / rates[peer],
            AIM,
            "x",
        );
    }
}

/// A stream that ends fails the round: figures with errors in them compare nothing.
async fn round(
    contestant: &Contestant,
    target: &Target,
    streams: usize,
    direction: Direction,
) -> anyhow::Result<Round> {
    let received = Arc::<AtomicU64>::default();
    let mut moving: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..streams {
        let stream = contestant.open(direction.habit()).await?;
        match direction {
            Direction::ToTarget => moving.spawn(send(stream)),
            Direction::FromTarget => moving.spawn(receive(stream, received.clone())),
        };
    }
    let so_far = || match direction {
        Direction::ToTarget => target.taken(),
        Direction::FromTarget => received.load(Ordering::Relaxed),
    };
    tokio::time::sleep(WARM_UP).await;
    let (began, bytes, cpu) = (Instant::now(), so_far(), contestant.cpu()?);
    tokio::time::sleep(ROUND).await;
    let found = Round {
        bytes: so_far() - bytes,
        took: began.elapsed(),
        cpu: contestant.cpu()?.saturating_sub(cpu),
    };
    if let Some(ended) = moving.try_join_next() {
        ended??;
    }
    if found.bytes == 0 {
        bail!("nothing arrived");
    }
    drop(moving);
    target.quiet().await?;
    Ok(found)
}

async fn send(mut stream: TcpStream) -> anyhow::Result<()> {
    let piece = vec![0; PIECE];
    loop {
        stream.write_all(&piece).await?;
    }
}

async fn receive(mut stream: TcpStream, received: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer).await? {
            0 => bail!("the stream ended"),
            read => received.fetch_add(read as u64, Ordering::Relaxed),
        };
    }
}
