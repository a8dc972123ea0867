//! Requests at a constant rate, whatever the answers: what users do while something breaks.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::web::{Connection, HttpError};

/// One request: where it went, when it began, and what became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub ingress: String,
    pub began: Instant,
    pub took: Duration,
    /// The status, or why there was none.
    pub answer: Result<u16, String>,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.answer == Ok(200)
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    senders: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Shape {
    pub method: Method,
    pub path: &'static str,
    /// More than 16 KiB stream through an ingress, which cannot send them again.
    pub body: Bytes,
}

impl Shape {
    pub fn get() -> Self {
        Self {
            method: Method::GET,
            path: "/",
            body: Bytes::new(),
        }
    }
}

impl Load {
    /// `rate` GETs a second at each of the ingresses (addresses), for one host.
    pub fn start(ingresses: &[String], host: &str, rate: u32) -> Self {
        Self::of(Shape::get(), ingresses, host, rate)
    }

    /// `rate` requests a second at each of the ingresses (addresses), for one host.
    pub fn of(shape: Shape, ingresses: &[String], host: &str, rate: u32) -> Self {
        Self::in_turn([shape].into(), ingresses, host, rate)
    }

    /// The same, of one shape after the other: as many of each at any time, however long a thread is held up.
    pub fn in_turn(shapes: Arc<[Shape]>, ingresses: &[String], host: &str, rate: u32) -> Self {
        let outcomes = Arc::<Mutex<Vec<Outcome>>>::default();
        let stop = watch::Sender::new(false);
        let mut senders = JoinSet::new();
        for ingress in ingresses {
            let sender = Sender {
                ingress: ingress.clone(),
                host: host.to_owned(),
                shapes: shapes.clone(),
                idle: Idle::default(),
                outcomes: outcomes.clone(),
            };
            senders.spawn(sender.run(rate, stop.subscribe()));
        }
        Self {
            outcomes,
            senders,
            stop,
        }
    }

    pub fn so_far(&self) -> Vec<Outcome> {
        self.outcomes.lock().expect("no holder panics").clone()
    }

    /// Stops, lets the requests under way end, and returns all outcomes.
    pub async fn stop(mut self) -> Vec<Outcome> {
        self.stop.send_replace(true);
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("sending requests does not panic");
        }
        self.so_far()
    }
}

/// Connections that wait for their next request.
type Idle = Arc<Mutex<Vec<Connection>>>;

/// Sends to one ingress.
#[derive(Clone)]
struct Sender {
    ingress: String,
    host: String,
    shapes: Arc<[Shape]>,
    idle: Idle,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Sender {
    async fn run(self, rate: u32, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        // A late tick is no reason for a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        let shapes = self.shapes.clone();
        for shape in shapes.iter().cycle() {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => break,
            }
            while under_way.try_join_next().is_some() {}
            // Not awaited: an answer that hangs must not hold the next request up.
            under_way.spawn(self.clone().request(shape.clone()));
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn request(self, shape: Shape) {
        let began = Instant::now();
        let answer = self
            .exchange(shape)
            .await
            .map_err(|error| error.to_string());
        let outcome = Outcome {
            ingress: self.ingress,
            began,
            took: began.elapsed(),
            answer,
        };
        self.outcomes
            .lock()
            .expect("no holder panics")
            .push(outcome);
    }

    async fn exchange(&self, shape: Shape) -> Result<u16, HttpError> {
        let kept = {
            let mut idle = self.idle.lock().expect("no holder panics");
            idle.retain(Connection::is_open);
            idle.pop()
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.ingress).await?,
        };
        let Shape { method, path, body } = shape;
        let answer = connection.send(method, &self.host, path, body).await?;
        self.idle.lock().expect("no holder panics").push(connection);
        Ok(answer.status)
    }
}

/// "1200 requests, 3 failed, p50 2.1 ms, p99 15.0 ms, slowest 120.0 ms".
pub fn summary(outcomes: &[Outcome]) -> String {
    let mut times: Vec<Duration> = outcomes
        .iter()
        .filter(|outcome| outcome.is_good())
        .map(|outcome| outcome.took)
        .collect();
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        let time = times.get(index.min(times.len().saturating_sub(1)));
        time.map_or(0.0, Duration::as_secs_f64) * 1000.0
    };
    format!(
        "{} requests, {} failed, p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
        outcomes.len(),
        outcomes.len() - times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
