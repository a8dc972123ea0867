//! `hive-bench control-plane`: three controllers beside three members of etcd, on the same disk,
//! both with TLS and fsync, driven in turns by this one process through the same HTTP client.
//!
//! Hive is asked through its JSON API with a bearer token; etcd through gRPC. Values have 1 KB.

pub mod connection;
mod etcd;
pub mod hive;
mod rounds;
mod watches;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::bail;

use connection::{Call, Connection, Member, Version};
use etcd::Etcd;
use hive::Hive;
use rounds::{Figures, Place, Work, median, round};

use super::ms;
use super::process;

/// Long enough that a snapshot falls into most rounds of the many.
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 5;

const MANY: usize = 256;
const READERS: usize = 64;

/// Keys that are read.
const READ_KEYS: u64 = 1_000;

const LISTED: u64 = 10_000;
const LISTS: usize = 20;

const OBJECTS: u64 = 100_000;

const WATCHES: usize = 5_000;

/// What can be asked of a store.
pub trait Calls: Send + Sync {
    fn is_grpc(&self) -> bool;

    /// A durable write of 1 KB under a key that no other has.
    fn write(&self, group: &str, number: u64) -> Call;

    /// A linearizable read.
    fn read(&self, group: &str, number: u64) -> Call;

    /// All of a group.
    fn list(&self, group: &str) -> Call;
}

/// One of the two stores under measurement.
pub trait System {
    fn name(&self) -> &'static str;

    fn calls(&self) -> Arc<dyn Calls>;

    fn members(&self) -> &[Member];

    /// Process ids of the members.
    fn processes(&self) -> Vec<u32>;

    /// Which member leads.
    fn leader(&mut self) -> impl Future<Output = anyhow::Result<usize>>;

    /// Ends a member and starts it again; the time until it serves.
    fn restart(&mut self, member: usize) -> impl Future<Output = anyhow::Result<Duration>>;
}

/// Runs the parts that `chosen` names, or all of them.
pub async fn run(chosen: &[String]) -> anyhow::Result<()> {
    const PARTS: [&str; 6] = ["writer", "writers", "reads", "list", "objects", "watches"];
    if let Some(unknown) = chosen.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("{unknown} is no part: there are {}", PARTS.join(", "));
    }
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|c| c == part);
    let mut hive = Hive::start().await?;
    let mut etcd = match Etcd::find() {
        Some(program) => Some(Etcd::start(&program).await?),
        None => {
            println!("SKIPPED: etcd (apt-get install etcd-server, or name the program in ETCD)");
            None
        }
    };
    println!(
        "{:<44} {:>10} {:>8} {:>8}   {:>10} {:>8} {:>8}   {:>6}",
        "", "hive /s", "p50 ms", "p99 ms", "etcd /s", "p50 ms", "p99 ms", "ratio"
    );
    for (part, clients) in [("writer", 1), ("writers", MANY)] {
        if wanted(part) {
            writes(&mut hive, etcd.as_mut(), clients).await?;
        }
    }
    if wanted("reads") {
        reads(&hive, etcd.as_ref()).await?;
    }
    if wanted("list") {
        lists(&hive, etcd.as_ref()).await?;
    }
    if wanted("watches") {
        watches::run(&mut hive, WATCHES).await?;
    }
    if wanted("objects") {
        drop(hive);
        drop(etcd);
        println!(
            "\n{OBJECTS} objects of 1 KB{:<24} {:>28} {:>14}",
            "", "RSS MiB of each", "restart s"
        );
        objects(Hive::start().await?).await?;
        if let Some(program) = Etcd::find() {
            objects(Etcd::start(&program).await?).await?;
        }
    }
    Ok(())
}

async fn writes(hive: &mut Hive, mut etcd: Option<&mut Etcd>, wanted: usize) -> anyhow::Result<()> {
    let leads = hive.leader().await?;
    let etcd_leads = match &mut etcd {
        Some(etcd) => etcd.leader().await?,
        None => 0,
    };
    let etcd = etcd.as_deref();
    let other = |leader: usize| (leader + 1) % 3;
    for (name, clients, places, version) in [
        (
            "writes, 1 client, at the leader",
            1,
            [Place::At(leads), Place::At(etcd_leads)],
            Version::Http2,
        ),
        (
            "writes, 1 client, at a follower",
            1,
            [Place::At(other(leads)), Place::At(other(etcd_leads))],
            Version::Http2,
        ),
        (
            "writes, 256 clients, at the leader",
            MANY,
            [Place::At(leads), Place::At(etcd_leads)],
            Version::Http2,
        ),
        (
            "writes, 256 clients, at all three",
            MANY,
            [Place::All, Place::All],
            Version::Http2,
        ),
        (
            "  the same, a HTTP/1.1 connection each",
            MANY,
            [Place::All, Place::All],
            Version::Http1,
        ),
    ] {
        if clients != wanted {
            continue;
        }
        let work = Arc::new(Work::Write);
        compare(name, hive, etcd, clients, places, version, &work).await?;
    }
    Ok(())
}

async fn reads(hive: &Hive, etcd: Option<&Etcd>) -> anyhow::Result<()> {
    fill(hive, "read", READ_KEYS).await?;
    if let Some(etcd) = etcd {
        fill(etcd, "read", READ_KEYS).await?;
    }
    for (name, clients, version) in [
        ("linearizable reads, 1 client", 1, Version::Http2),
        ("linearizable reads, 64 clients", READERS, Version::Http2),
        ("linearizable reads, 256 clients", MANY, Version::Http2),
        (
            "  the same, a HTTP/1.1 connection each",
            MANY,
            Version::Http1,
        ),
    ] {
        let work = Arc::new(Work::Read {
            group: "read",
            keys: READ_KEYS,
        });
        let places = [Place::All, Place::All];
        compare(name, hive, etcd, clients, places, version, &work).await?;
    }
    Ok(())
}

async fn lists(hive: &Hive, etcd: Option<&Etcd>) -> anyhow::Result<()> {
    fill(hive, "list", LISTED).await?;
    if let Some(etcd) = etcd {
        fill(etcd, "list", LISTED).await?;
    }
    let mut of_hive = Vec::new();
    let mut of_etcd = Vec::new();
    for _ in 0..LISTS {
        of_hive.push(one_list(hive).await?);
        if let Some(etcd) = etcd {
            of_etcd.push(one_list(etcd).await?);
        }
    }
    let name = format!("list of {LISTED}, 1 client");
    print(
        &name,
        &Figures::of(of_hive),
        etcd.is_some().then(|| Figures::of(of_etcd)).as_ref(),
    );
    Ok(())
}

async fn one_list(system: &impl System) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(&system.members()[0], Version::Http2).await?;
    let started = Instant::now();
    let bytes = connection.call(system.calls().list("list")).await?;
    let took = started.elapsed();
    if (bytes.len() as u64) < LISTED * 1_000 {
        bail!("{} listed {} bytes only", system.name(), bytes.len());
    }
    Ok(took)
}

async fn objects(mut system: impl System) -> anyhow::Result<()> {
    let started = Instant::now();
    fill(&system, "many", OBJECTS).await?;
    let filled = started.elapsed();
    // What was freed while it was filled is not what it holds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut sizes = Vec::new();
    for pid in system.processes() {
        sizes.push(format!("{:.0}", process::memory(pid)?.0 as f64 / 1024.0));
    }
    let follower = (system.leader().await? + 1) % 3;
    let restart = system.restart(follower).await?;
    let pid = system.processes()[follower];
    println!(
        "{:<44} {:>28} {:>14.2}   (filled in {:.1} s; after the restart {:.0} MiB)",
        system.name(),
        sizes.join(" "),
        restart.as_secs_f64(),
        filled.as_secs_f64(),
        process::memory(pid)?.0 as f64 / 1024.0
    );
    Ok(())
}

/// Writes as many as there should be, as fast as it goes.
async fn fill(system: &impl System, group: &'static str, count: u64) -> anyhow::Result<()> {
    let work = Arc::new(Work::Fill {
        group,
        next: AtomicU64::new(0),
        count,
    });
    round(
        system,
        MANY,
        Place::All,
        Version::Http2,
        Duration::MAX,
        &work,
    )
    .await?;
    Ok(())
}

async fn compare(
    name: &str,
    hive: &Hive,
    etcd: Option<&Etcd>,
    clients: usize,
    places: [Place; 2],
    version: Version,
    work: &Arc<Work>,
) -> anyhow::Result<()> {
    let [at_hive, at_etcd] = places;
    let (mut of_hive, mut of_etcd) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_hive.push(round(hive, clients, at_hive, version, ROUND, work).await?);
        if let Some(etcd) = etcd {
            // gRPC is HTTP/2: one connection for each client is the nearest to HTTP/1.1 there is.
            of_etcd.push(round(etcd, clients, at_etcd, version, ROUND, work).await?);
        }
    }
    let etcd = etcd.map(|_| median(&of_etcd));
    print(name, &median(&of_hive), etcd.as_ref());
    Ok(())
}

fn print(name: &str, hive: &Figures, etcd: Option<&Figures>) {
    let shown = |figures: &Figures| {
        format!(
            "{:>10.0} {:>8.2} {:>8.2}",
            figures.per_second,
            ms(figures.p50),
            ms(figures.p99)
        )
    };
    let refused = match hive.refused {
        0 => String::new(),
        refused => format!("   ({refused} answered 429 and sent again)"),
    };
    match etcd {
        Some(etcd) => println!(
            "{name:<44} {}   {}   {:>6.2}{refused}",
            shown(hive),
            shown(etcd),
            hive.per_second / etcd.per_second
        ),
        None => println!("{name:<44} {}{refused}", shown(hive)),
    }
}
