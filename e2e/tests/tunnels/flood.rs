//! More than anybody should send: heads without end, tens of thousands of connections, clients that never come to the
//! point. Others are served meanwhile, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hive_e2e::load::Load;
use hive_e2e::{Steps, Swarm, web};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::declared::{declare, proven, target};
use crate::faults::{answered, ingresses, none_failed};
use crate::requests::within;
use crate::service::{Habit, Service};
use crate::site::Site;
use crate::tcp::{addresses, connect, is_ended, quiet, reaches, says};
use crate::weight::{memory, no_more_files, not_heavier, open_files};

const HOST: &str = "photos.localhost";

/// Requests a second of people, at each ingress.
const RATE: u32 = 20;

/// Three seconds of what the swarm is to bear a second; on a small machine they take longer.
const FLOOD: usize = 30_000;
const KNOCKERS: usize = 256;

/// Less than a kilobyte for each connection of a flood.
const LEAKED_KIB: u64 = 24 << 10;

const HEAD_BYTES: usize = 10 << 20;
const HEADS: usize = 64;
const HEADS_AT_ONCE: usize = 8;
/// What the heads of all clients together come to is forty times as much.
const HEADS_KIB: u64 = 16 << 10;

/// Clients that never come to the point.
const SLOW: usize = 300;
/// Between two bytes of a slow client: the next one always comes before anybody could call it silent.
const DRIP: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_stand_floods() {
    // On a machine that is busy to its limits, links live on.
    let builder = Swarm::builder().agents(1).apart().default_timing();
    let mut swarm = builder.start().await;
    let site_port = swarm.take_port();
    let _site = Site::start("one", site_port).await;
    let echo = Service::start(swarm.take_port(), Habit::Echo).await;
    let [flooded, steady, silent] = [(); 3].map(|()| swarm.take_port());
    let spec = json!({ "http": { "host": HOST }, "targets": [target("node-1", site_port)] });
    declare(&swarm, "photos", spec).await;
    // Most of the flood finds no place, and its node's link has room for others.
    let spec = tcp(flooded, &echo, json!({ "maxConnections": 96 }));
    declare(&swarm, "flooded", spec).await;
    declare(&swarm, "steady", tcp(steady, &echo, json!({}))).await;
    let spec = json!({ "maxConnections": 20, "idleTimeout": "5s" });
    declare(&swarm, "silent", tcp(silent, &echo, spec)).await;
    for name in ["photos", "flooded", "steady", "silent"] {
        proven(&swarm, name).await;
    }
    let [flooded, steady, silent] = [flooded, steady, silent].map(|it| addresses(&swarm, it));
    let ingress = swarm.controllers[0].ingress_address();
    let mut steps = Steps::new();

    steps
        .run("heads of 10 MB are refused, and nobody keeps them", async {
            heads(&swarm, &ingress).await;
        })
        .await;
    steps
        .run("a flood of TCP connections costs nobody else", async {
            let flooding = || flood(&flooded[0], knock_at_echo);
            others_are_served(&swarm, &steady[0], flooding).await;
            reaches(&flooded[0]).await;
            quiet(&echo).await;
        })
        .await;
    steps
        .run("a flood at the ingress costs nobody else", async {
            let flooding = || flood(&ingress, knock_at_ingress);
            others_are_served(&swarm, &steady[0], flooding).await;
        })
        .await;
    steps
        .run("who never finishes a request is shown out", async {
            slow(&swarm, &ingress).await;
        })
        .await;
    steps
        .run("who says nothing gives the place back", async {
            let mut places = Vec::new();
            // The swarm's own trials have one for a moment.
            while places.len() < 20 {
                places.push(reaches(&silent[1]).await);
            }
            is_ended(&mut connect(&silent[1]).await).await;
            for place in &mut places {
                is_ended(place).await;
            }
            reaches(&silent[1]).await;
        })
        .await;
    steps.finish();
}

fn tcp(port: u16, echo: &Service, more: Value) -> Value {
    let mut spec =
        json!({ "protocol": "TCP", "port": port, "targets": [target("node-1", echo.port())] });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

async fn heads(swarm: &Swarm, ingress: &str) {
    let start = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n");
    let long = format!("{start}x-long: {}", "a".repeat(HEAD_BYTES));
    let many = start + &"x-many: a\r\n".repeat(HEAD_BYTES / 11);
    let heads: Arc<[String]> = [long, many].into();
    let all = async |count: usize| {
        let mut refused = JoinSet::new();
        for number in 0..count {
            if refused.len() == HEADS_AT_ONCE {
                refused.join_next().await.unwrap().unwrap();
            }
            let (heads, ingress) = (heads.clone(), ingress.to_owned());
            refused.spawn(async move { is_refused(&ingress, &heads[number % heads.len()]).await });
        }
        while let Some(ended) = refused.join_next().await {
            ended.unwrap();
        }
    };
    // What is taken once and kept is there before it is weighed.
    all(HEADS_AT_ONCE).await;
    let before = memory(swarm);
    all(HEADS).await;
    not_heavier(swarm, &before, HEADS_KIB).await;
    let answer = web::get(ingress, HOST, "/").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// At once: though the head never ends, nobody waits for the rest.
async fn is_refused(ingress: &str, head: &str) {
    let mut stream = TcpStream::connect(ingress).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let exchange = async {
        let mut answer = Vec::new();
        // Both are broken off: what counts is what was said before.
        let (_, _) = tokio::join!(
            writing.write_all(head.as_bytes()),
            reading.read_to_end(&mut answer)
        );
        answer
    };
    let answer = within("a refusal", exchange).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}

/// Two floods, of which the second leaves no more behind than the first, while people ask at every ingress, and one
/// goes on talking on a connection that was open before.
async fn others_are_served<F: Future<Output = ()>>(
    swarm: &Swarm,
    steady: &str,
    flood: impl Fn() -> F,
) {
    let ingresses = ingresses(swarm);
    let mut kept = reaches(steady).await;
    let load = Load::start(&ingresses, HOST, RATE);
    answered(&load, &ingresses, Instant::now()).await;
    let files = open_files(swarm);
    flood().await;
    let weight = memory(swarm);
    flood().await;
    says(&mut kept, "still there").await.unwrap();
    answered(&load, &ingresses, Instant::now()).await;
    none_failed(&load.stop().await);
    no_more_files(swarm, &files).await;
    not_heavier(swarm, &weight, LEAKED_KIB).await;
    says(&mut kept, "and still").await.unwrap();
}

/// As many connections as fast as they can be made.
async fn flood<F>(address: &str, knock: impl Fn(TcpStream) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let left = Arc::new(AtomicUsize::new(FLOOD));
    let made = Arc::new(AtomicUsize::new(0));
    let mut knockers = JoinSet::new();
    for _ in 0..KNOCKERS {
        let (address, left, made) = (address.to_owned(), left.clone(), made.clone());
        let one_less = |left: usize| left.checked_sub(1);
        knockers.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                .is_ok()
            {
                let Ok(stream) = TcpStream::connect(&address).await else {
                    continue;
                };
                made.fetch_add(1, Ordering::Relaxed);
                // Ports of connections that end in peace stay taken for a minute: there are not enough of them.
                let _ = stream.set_zero_linger();
                knock(stream).await;
            }
        });
    }
    let all = async { while knockers.join_next().await.is_some() {} };
    within("the flood is over", all).await;
    let made = made.load(Ordering::Relaxed);
    let rate = made as f64 / began.elapsed().as_secs_f64();
    println!("  {made} of {FLOOD} connections, {rate:.0} a second");
    assert!(made > FLOOD / 2, "only {made} connections were made");
}

/// Every one wants something of the service, and waits for no answer.
async fn knock_at_echo(mut stream: TcpStream) {
    let _ = stream.write_all(b"is anybody there").await;
}

/// Asks for what is not there, and hears so.
async fn knock_at_ingress(mut stream: TcpStream) {
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: nobody.localhost\r\n\r\n");
    if asked.await.is_ok() {
        let _ = stream.read_u8().await;
    }
}

async fn slow(swarm: &Swarm, ingress: &str) {
    let files = open_files(swarm);
    let ingresses = ingresses(swarm);
    let load = Load::start(&ingresses, HOST, RATE);
    let mut clients = JoinSet::new();
    for number in 0..SLOW {
        let ingress = ingress.to_owned();
        // Some say nothing, some never finish a head, some never say which HTTP they speak.
        let said: &'static [u8] = match number % 3 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nhost: photos.localhost\r\nx-slow: ",
            _ => b"PRI * HTTP/2",
        };
        clients.spawn(async move {
            let mut stream = TcpStream::connect(ingress).await.unwrap();
            stream.write_all(said).await.unwrap();
            match number % 3 {
                1 => drips(&mut stream).await,
                _ => is_ended(&mut stream).await,
            }
        });
    }
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    };
    within("all of them are shown out", all).await;
    answered(&load, &ingresses, Instant::now()).await;
    none_failed(&load.stop().await);
    no_more_files(swarm, &files).await;
}

/// A byte at a time, until nobody listens any more.
async fn drips(stream: &mut TcpStream) {
    let (mut reading, mut writing) = stream.split();
    let writing = async {
        let mut ticks = tokio::time::interval(DRIP);
        loop {
            ticks.tick().await;
            if writing.write_all(b"a").await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let mut answer = Vec::new();
        let _ = reading.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    };
    let shown_out = async {
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    };
    within("who drips is shown out", shown_out).await;
}
