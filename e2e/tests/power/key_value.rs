//! Power of a node is cut while a function writes to its store: what callers were told is done is there
//! afterwards, batches are whole, and the quota counts what is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;
use hive_e2e::faults::disk::Disk;
use hive_e2e::faults::{Seed, sandbox};
use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::{self, Connection};
use hive_e2e::{Swarm, Turn, guests};
use http::Method;
use rustix::process::Signal;
use serde_json::json;

use super::number;

/// In `cargo test`, besides the one while the store is made.
const CUTS: u64 = 3;

const WRITERS: u64 = 4;

const FUNCTION: &str = "services";

/// `spec.keyValue.sizeLimit` of 1Mi.
const QUOTA: usize = 1 << 20;

/// What an entry counts besides its key and its value.
const ENTRY_BYTES: usize = 64;

#[tokio::test]
async fn no_power_cut_loses_what_a_function_keeps() {
    if !sandbox::is_permitted("power cuts of a node") {
        return;
    }
    let asked = number("HIVE_POWER_CUTS");
    let _turn = match asked {
        None => Some(Turn::take().await),
        Some(_) => None,
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("HIVE_SEED").unwrap_or(clock.as_secs() % 1_000_000);
    let cuts = asked.unwrap_or(CUTS);
    println!("{cuts} cuts, HIVE_SEED={seed}");
    sandbox::run(
        "key_value::cuts_in_a_sandbox",
        &[
            ("HIVE_SEED", seed.to_string()),
            ("HIVE_POWER_CUTS", cuts.to_string()),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started in its sandbox by the test above"]
async fn cuts_in_a_sandbox() {
    if !sandbox::is_inside() {
        return;
    }
    let mut seed = Seed::new(number("HIVE_SEED").unwrap());
    let cuts = number("HIVE_POWER_CUTS").unwrap();
    let mut node = Node::start().await;

    // While the file is made. Nothing was kept yet, so nothing may be in the way of starting anew.
    let spec = json!({ "keyValue": { "sizeLimit": "1Mi" } });
    let manifest = node
        .swarm
        .manifest(FUNCTION, &guests::services(), spec)
        .display()
        .to_string();
    node.swarm.ctl(&["apply", "-f", &manifest]).await.ok();
    node.store_begins().await;
    node.lose_power(&AtomicBool::default()).await;
    node.function_ready().await;
    println!("power lost while the store was made");

    let address = node.swarm.agents[0].address();
    let writer = |number| Writer::new(format!("w{number}"), address.clone(), seed.fork());
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    for cut in 1..=cuts {
        let done = Arc::new(AtomicUsize::new(0));
        let is_off = Arc::new(AtomicBool::new(false));
        let writing = writers
            .into_iter()
            .map(|writer| tokio::spawn(writer.write(done.clone(), is_off.clone())));
        let writing: Vec<_> = writing.collect();
        // In the middle of things, at a moment of the seed's choice.
        let enough = seed.between(20, 150) as usize;
        until("writes are answered", PATIENCE, async || {
            let done = done.load(Ordering::Relaxed);
            holds(done >= enough, format!("{done} writes"))
        })
        .await;
        node.lose_power(&is_off).await;
        writers = join_all(writing).await.into_iter().flatten().collect();
        assert_eq!(writers.len() as u64, WRITERS, "writers do not panic");

        node.function_ready().await;
        let mut used = 0;
        let mut unsure = 0;
        for writer in &mut writers {
            unsure += u64::from(writer.unsure.is_some());
            writer.compare().await;
            used += writer.used();
        }
        quota_counts(&address, used).await;
        println!(
            "cut {cut:>3}: {} writes were done, {unsure} unknown; {used} bytes are kept",
            done.load(Ordering::Relaxed)
        );
    }
}

/// A controller, and one agent whose data is on a disk that loses power.
struct Node {
    swarm: Swarm,
    disk: Disk,
}

impl Node {
    async fn start() -> Self {
        let mut swarm = Swarm::builder().controllers(1).agents(0).start().await;
        let disk = Disk::create(swarm.path(), "node");
        let directory = disk.path.file_name().unwrap().to_string_lossy();
        let token = swarm.token(&[]).await;
        let mut agent = swarm.new_agent(&directory, &token);
        agent.member.start();
        swarm.agents.push(agent);
        swarm.wait_ready().await;
        Self { swarm, disk }
    }

    /// Looks without rest, and stops the agent there and then, since making it takes a millisecond. What
    /// it has done until then reaches the disk as far as another file's sync takes it there.
    async fn store_begins(&self) {
        let is_there = || {
            let entries = std::fs::read_dir(&self.disk.path).unwrap();
            entries.flatten().any(|entry| {
                let is_its = entry.file_name().to_string_lossy().starts_with("keyvalue");
                is_its && entry.metadata().is_ok_and(|file| file.len() > 0)
            })
        };
        let looked = tokio::time::timeout(PATIENCE, async {
            while !is_there() {
                tokio::task::yield_now().await;
            }
        });
        looked.await.expect("a function with a store makes it");
        self.swarm.agents[0].member.signal(Signal::STOP);
        File::open(&self.disk.path).unwrap().sync_all().unwrap();
    }

    /// And starts again on what the disk kept. `is_off` is true from before the power goes.
    async fn lose_power(&mut self, is_off: &AtomicBool) {
        is_off.store(true, Ordering::SeqCst);
        self.disk.power_off();
        self.swarm.agents[0].member.kill9().await;
        self.disk.power_on().await;
        self.swarm.agents[0].member.start();
    }

    async fn function_ready(&mut self) {
        let agent = &mut self.swarm.agents[0];
        let address = agent.address();
        until("the function answers", PATIENCE, async || {
            assert!(agent.member.is_running(), "{}", agent.member.tail());
            let answer = web::get(&address, &host(FUNCTION), "/").await;
            let answer = answer.map_err(|error| error.to_string());
            answer
                .and_then(web::Answer::ok)
                .map_err(|error| format!("{error}\n{}", agent.member.tail()))
        })
        .await;
        // An ordinary end, even without power, is no damage.
        let said = agent.member.log_of_this_run();
        assert!(!said.contains("damaged"), "{said}");
    }
}

/// Values by keys, as the function shows them.
type Kept = BTreeMap<String, String>;

/// Who writes to keys that are its own, one write after the other.
struct Writer {
    name: String,
    /// Of the agent itself: nobody in between who would ask a second time.
    address: String,
    seed: Seed,
    number: usize,
    /// By all that was answered.
    kept: Kept,
    /// With the write that was not.
    unsure: Option<Kept>,
}

impl Writer {
    fn new(name: String, address: String, seed: Seed) -> Self {
        Self {
            name,
            address,
            seed,
            number: 0,
            kept: Kept::new(),
            unsure: None,
        }
    }

    fn key(&self, part: impl std::fmt::Display) -> String {
        format!("{}-{part}", self.name)
    }

    fn keys(&self) -> Vec<String> {
        let plain = (0..6).map(|number| self.key(number));
        plain.chain([self.key("sum"), self.key("large")]).collect()
    }

    /// A write: its path, its answer, and what is kept after it.
    fn next(&mut self) -> (String, String, Kept) {
        self.number += 1;
        let number = self.number;
        let mut after = self.kept.clone();
        let some = self.seed.below(6);
        let key = self.key(some);
        let mut answer = "done".to_owned();
        let path = match self.seed.below(6) {
            0 => {
                after.remove(&key);
                format!("/kv/draft/delete?key={key}")
            }
            1 => {
                let key = self.key("sum");
                let before = after.get(&key).map_or(0, |sum| sum.parse().unwrap());
                answer = (before + 1_u64).to_string();
                let path = format!("/kv/draft2/increment?key={key}");
                after.insert(key, answer.clone());
                path
            }
            2 => {
                let bytes = 1000 + number;
                let key = self.key("large");
                let path = format!("/kv/draft/set?key={key}&bytes={bytes}");
                after.insert(key, format!("{bytes} bytes"));
                path
            }
            3 => {
                let [a, b, c] = [0, 2, 4].map(|number| self.key(number));
                let path = format!("/kv/draft/set-many?key={a}&key={b}&key={c}&value={number}");
                after.extend([a, b, c].map(|key| (key, number.to_string())));
                path
            }
            _ => {
                let path = format!("/kv/draft2/set?key={key}&value={number}");
                after.insert(key, number.to_string());
                path
            }
        };
        (path, answer, after)
    }

    /// Writes until one is not answered as it should be, or after the power went. A machine without power answers
    /// nobody; this one may be told by ext4, while that is shut down, that a sync is done which is not.
    async fn write(mut self, done: Arc<AtomicUsize>, is_off: Arc<AtomicBool>) -> Self {
        let Ok(mut connection) = Connection::open(&self.address).await else {
            return self;
        };
        let host = host(FUNCTION);
        loop {
            let (path, answer, after) = self.next();
            let answered = connection.send(Method::GET, &host, &path, Bytes::new());
            match answered.await {
                Ok(it)
                    if it.status == 200
                        && it.text().trim_end() == answer
                        && !is_off.load(Ordering::SeqCst) =>
                {
                    self.kept = after;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    self.unsure = Some(after);
                    return self;
                }
            }
        }
    }

    /// What is there must be what was answered, or that and the whole of the write that was not.
    async fn compare(&mut self) {
        let keys = self.keys().join("&key=");
        let path = format!("/kv/draft2/get-many?key={keys}");
        let told = ask(&self.address, &path).await;
        let pairs = told.split(',').map(|pair| {
            let pair = pair.split_once('=');
            pair.unwrap_or_else(|| panic!("{}: {told}", self.name))
        });
        let found: Kept = pairs
            .filter(|(_, value)| *value != "nothing")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let unsure = self.unsure.take();
        assert!(
            found == self.kept || unsure.as_ref() == Some(&found),
            "{} finds {found:?}\nwas told {:?}\nand perhaps {unsure:?}",
            self.name,
            self.kept
        );
        self.kept = found;
    }

    fn used(&self) -> usize {
        let bytes = |value: &str| match value.strip_suffix(" bytes") {
            Some(bytes) => bytes.parse().unwrap(),
            None => value.len(),
        };
        let entries = self.kept.iter();
        let entries = entries.map(|(key, value)| ENTRY_BYTES + key.len() + bytes(value));
        entries.sum()
    }
}

/// To the byte: what is left can be written, and no more.
async fn quota_counts(address: &str, used: usize) {
    let left = QUOTA - used - ENTRY_BYTES - "rest".len();
    let set = |bytes| format!("/kv/draft/set?key=rest&bytes={bytes}");
    let more = ask(address, &set(left + 1)).await;
    assert!(more.contains("spec.keyValue.sizeLimit"), "{more}");
    assert_eq!(ask(address, &set(left)).await, "done");
    assert_eq!(ask(address, "/kv/draft/delete?key=rest").await, "done");
}

async fn ask(address: &str, path: &str) -> String {
    let answer = web::get(address, &host(FUNCTION), path).await.unwrap();
    let answer = answer
        .ok()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    answer.text().trim_end().to_owned()
}
