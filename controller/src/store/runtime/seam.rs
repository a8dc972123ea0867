//! Both: the simulated machines' clock and tasks inside a simulation, Tokio's everywhere else.

use std::convert::Infallible;
use std::fmt::{self, Debug, Display};
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use tokio::sync::oneshot;

use super::real;
use crate::store::simulation::world;

/// Where virtual time begins.
static EPOCH: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(tokio::time::Instant);

impl Instant {
    pub fn now() -> Self {
        match world::now() {
            Some(virtually) => Self(*EPOCH + virtually),
            None => Self(tokio::time::Instant::now()),
        }
    }

    fn virtually(self) -> Duration {
        self.0.saturating_duration_since(*EPOCH)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl openraft::Instant for Instant {
    fn now() -> Self {
        Instant::now()
    }
}

pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub fn sleep(duration: Duration) -> Sleep {
    if world::now().is_some() {
        // Not `Instant + duration`: some sleeps are for ever.
        Box::pin(world::Sleep::of(duration))
    } else {
        Box::pin(tokio::time::sleep(duration))
    }
}

fn sleep_until(deadline: Instant) -> Sleep {
    if world::now().is_some() {
        Box::pin(world::Sleep::until(deadline.virtually()))
    } else {
        Box::pin(tokio::time::sleep_until(deadline.0))
    }
}

pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

#[derive(Debug)]
pub struct Elapsed;

impl Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        self.sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        future: Box::pin(future),
        sleep: sleep(duration),
    }
}

pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout {
        future: Box::pin(future),
        sleep: sleep_until(deadline),
    }
}

pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    match world::host() {
        Some(host) => world::spawn_on(host, task),
        None => real::spawn(task),
    }
}

pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match world::now() {
        Some(_) => {
            world::Sleep::of(world::disk_latency()).await;
            Ok(work())
        }
        None => real::blocking(work).await,
    }
}

pub fn dedicated(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    match world::host() {
        Some(host) => {
            world::spawn_thread_on(host, task);
            Ok(())
        }
        None => real::dedicated(name, task),
    }
}

/// Ends when its task does; a task that was killed with its machine ends nobody's wait.
pub struct JoinHandle<T>(oneshot::Receiver<T>);

#[derive(Debug)]
pub struct Gone;

impl Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task panicked or was dropped")
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Gone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| Gone)
    }
}

/// From the seed inside a simulation: which bytes a torn write leaves must not depend on chance.
pub fn fill_random(into: &mut [u8]) {
    for chunk in into.chunks_mut(8) {
        match world::random() {
            Some(number) => chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]),
            None => real::fill_random(chunk),
        }
    }
}

/// Random numbers from the seed, or from the system.
pub struct Dice;

impl rand::TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.try_next_u64()? as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        use std::hash::{BuildHasher, RandomState};
        Ok(world::random().unwrap_or_else(|| RandomState::new().hash_one(0)))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        for chunk in into.chunks_mut(8) {
            let bytes = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

#[derive(Debug)]
pub struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = Gone;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Dice;
    type Mpsc = <real::Runtime as AsyncRuntime>::Mpsc;
    type Watch = <real::Runtime as AsyncRuntime>::Watch;
    type Oneshot = <real::Runtime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <real::Runtime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (done, result) = oneshot::channel();
        spawn(async move {
            // Nobody need wait for it.
            let _ = done.send(future.await);
        });
        JoinHandle(result)
    }

    fn sleep(duration: Duration) -> Sleep {
        sleep(duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Instant,
        future: F,
    ) -> Timeout<F> {
        timeout_at(deadline, future)
    }

    fn is_panic(_: &Gone) -> bool {
        false
    }

    fn thread_rng() -> Dice {
        Dice
    }

    fn new(_: usize) -> Self {
        unreachable!("Raft makes no runtime")
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, _: F) -> T {
        unreachable!("Raft blocks nowhere")
    }
}
