//! Machines with tasks, one thread, one virtual clock: every choice follows from the seed.
//!
//! A task belongs to the host that spawned it, so that a crash takes all of a host's tasks between
//! two polls. Which of the ready tasks runs next is drawn from the seed: the order in which
//! channels wake their waiters is not theirs to decide, and interleavings vary with the seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::store::disk::simulated::Random;

/// Clients and the faults' schedule live on no machine that can fail.
pub const OUTSIDE: u64 = 0;

/// For one write and sync, of a disk that is well.
const DISK_LATENCY_US: u64 = 3_000;

/// Twenty times what a run takes: beyond it, tasks wake each other for ever.
const MAX_STEPS: u64 = 1_000_000;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

struct World {
    now: Duration,
    random: Random,
    host: u64,
    hosts: BTreeMap<u64, Host>,
    tasks: BTreeMap<u64, Slot>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    /// By when they are due.
    timers: BTreeMap<(Duration, u64), (u64, Waker)>,
    next: u64,
    trace: u64,
    steps: u64,
}

#[derive(Default)]
struct Host {
    /// Stopped in the middle of whatever it does, as by SIGSTOP.
    paused_until: Duration,
    /// How far its clock is ahead.
    ahead: Duration,
    /// Of its disk, if it is slow.
    latency_us: Option<u64>,
}

struct Slot {
    host: u64,
    /// Empty while it is polled.
    task: Option<Task>,
    /// A thread that waits for the disk: its turn comes only after a while.
    thread: bool,
    not_before: Option<Duration>,
}

struct Ready {
    task: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.ready
            .lock()
            .expect("no panics inside")
            .insert(self.task);
    }
}

fn with<T>(act: impl FnOnce(&mut World) -> T) -> Option<T> {
    WORLD
        .try_with(|world| world.borrow_mut().as_mut().map(act))
        .ok()?
}

/// The clock of the host whose task asks; nothing outside of a simulation.
pub fn now() -> Option<Duration> {
    with(|world| {
        world.now
            + world
                .hosts
                .get(&world.host)
                .map_or(Duration::ZERO, |h| h.ahead)
    })
}

/// The same for everyone: what histories are ordered by.
pub fn true_time() -> Duration {
    with(|world| world.now).expect("inside a simulation")
}

pub fn host() -> Option<u64> {
    with(|world| world.host)
}

pub fn random() -> Option<u64> {
    with(|world| world.random.next())
}

/// Below `bound`.
pub fn below(bound: u64) -> u64 {
    random().expect("inside a simulation") % bound
}

pub fn chance(percent: u64) -> bool {
    below(100) < percent
}

pub fn steps() -> u64 {
    with(|world| world.steps).unwrap_or(0)
}

pub fn disk_latency() -> Duration {
    with(World::disk_latency).unwrap_or_default()
}

/// Makes what happened part of the trace.
pub fn record(what: &[u8]) {
    with(|world| world.mix(what));
}

pub fn spawn_on(host: u64, task: impl Future<Output = ()> + Send + 'static) {
    with(|world| world.spawn(host, Box::pin(task), false));
}

pub fn spawn_thread_on(host: u64, task: impl Future<Output = ()> + Send + 'static) {
    with(|world| world.spawn(host, Box::pin(task), true));
}

pub fn pause(host: u64, duration: Duration) {
    with(|world| {
        let until = world.now + duration;
        world.hosts.entry(host).or_default().paused_until = until;
    });
}

/// The host's clock jumps ahead: what waited for it is due sooner.
pub fn jump(host: u64, by: Duration) {
    let due: Option<Vec<Waker>> = with(|world| {
        world.hosts.entry(host).or_default().ahead += by;
        let of_host = |(owner, waker): &(u64, Waker)| (*owner == host).then(|| waker.clone());
        world.timers.values().filter_map(of_host).collect()
    });
    due.into_iter().flatten().for_each(Waker::wake);
}

pub fn slow_disk(host: u64, latency: Option<Duration>) {
    with(|world| {
        world.hosts.entry(host).or_default().latency_us = latency.map(|l| l.as_micros() as u64);
    });
}

/// Takes all tasks of a host, wherever they are.
pub fn kill(host: u64) {
    let dead: Option<Vec<Slot>> = with(|world| {
        let ids: Vec<u64> = world
            .tasks
            .iter()
            .filter(|(_, t)| t.host == host)
            .map(|(id, _)| *id)
            .collect();
        let ahead = world.hosts.get(&host).map(|h| h.ahead);
        world.hosts.insert(
            host,
            Host {
                ahead: ahead.unwrap_or_default(),
                ..Host::default()
            },
        );
        ids.into_iter()
            .filter_map(|id| world.tasks.remove(&id))
            .collect()
    });
    // Their ends may wake others, or give timers back.
    drop(dead);
}

/// Runs `main` and all that it starts. `after_step` is called after each step with its host.
/// Returns with the hash of everything that happened.
pub fn run<T: Send + 'static>(
    seed: u64,
    main: impl Future<Output = T> + Send + 'static,
    mut after_step: impl FnMut(u64),
) -> (T, u64) {
    /// Leaves the thread clean also when a check fails.
    struct Cleared;
    impl Drop for Cleared {
        fn drop(&mut self) {
            let world = WORLD.with(|world| world.borrow_mut().take());
            drop(world);
        }
    }
    let world = World::new(seed);
    let ready = world.ready.clone();
    WORLD.with(|current| *current.borrow_mut() = Some(world));
    let _cleared = Cleared;

    let result = Arc::new(Mutex::new(None));
    let into = result.clone();
    spawn_on(OUTSIDE, async move {
        let done = main.await;
        *into.lock().expect("no panics inside") = Some(done);
    });
    loop {
        let Some((id, host, mut task)) = with(World::choose).flatten() else {
            continue;
        };
        let (steps, now) = with(|world| (world.steps, world.now)).expect("inside a simulation");
        assert!(
            steps < MAX_STEPS,
            "nothing comes to an end after {now:?} and {steps} steps"
        );
        let waker = Arc::new(Ready {
            task: id,
            ready: ready.clone(),
        })
        .into();
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        // A task that ended is dropped as its host, and outside of the world's borrow.
        let ended = with(|world| match polled {
            Poll::Ready(()) => {
                world.tasks.remove(&id);
                Some(task)
            }
            Poll::Pending => match world.tasks.get_mut(&id) {
                Some(slot) => {
                    slot.task = Some(task);
                    None
                }
                None => Some(task),
            },
        });
        drop(ended);
        with(|world| world.host = OUTSIDE);
        after_step(host);
        if let Some(done) = result.lock().expect("no panics inside").take() {
            let trace = with(|world| world.trace).expect("inside a simulation");
            return (done, trace);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            random: Random::new(seed),
            host: OUTSIDE,
            hosts: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ready: Arc::default(),
            timers: BTreeMap::new(),
            next: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            steps: 0,
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn spawn(&mut self, host: u64, task: Task, thread: bool) {
        self.next += 1;
        let slot = Slot {
            host,
            task: Some(task),
            thread,
            not_before: None,
        };
        self.tasks.insert(self.next, slot);
        self.ready
            .lock()
            .expect("no panics inside")
            .insert(self.next);
    }

    fn disk_latency(&mut self) -> Duration {
        let known = self.hosts.get(&self.host).and_then(|h| h.latency_us);
        Duration::from_micros(self.random.below(known.unwrap_or(DISK_LATENCY_US)))
    }

    /// A task that may run now; none if the clock had to go on first.
    fn choose(&mut self) -> Option<(u64, u64, Task)> {
        let mut candidates = Vec::new();
        let mut soonest = self.timers.first_key_value().map(|((due, _), _)| *due);
        let mut later = |at: Duration| soonest = Some(soonest.map_or(at, |known| known.min(at)));
        let ready: Vec<u64> = self
            .ready
            .lock()
            .expect("no panics inside")
            .iter()
            .copied()
            .collect();
        for id in ready {
            let Some(slot) = self.tasks.get_mut(&id) else {
                self.ready.lock().expect("no panics inside").remove(&id);
                continue;
            };
            let host = self.hosts.entry(slot.host).or_default();
            if host.paused_until > self.now {
                later(host.paused_until);
                continue;
            }
            if slot.thread {
                let at = *slot.not_before.get_or_insert_with(|| {
                    let latency = host.latency_us.unwrap_or(DISK_LATENCY_US);
                    self.now + Duration::from_micros(self.random.below(latency))
                });
                if at > self.now {
                    later(at);
                    continue;
                }
            }
            candidates.push(id);
        }
        if candidates.is_empty() {
            let due = soonest.expect("somebody waits for something, or all are stuck for ever");
            self.now = self.now.max(due);
            while let Some(timer) = self.timers.first_entry()
                && timer.key().0 <= self.now
            {
                timer.remove().1.wake();
            }
            return None;
        }
        let id = candidates[self.random.below(candidates.len() as u64) as usize];
        self.ready.lock().expect("no panics inside").remove(&id);
        let slot = self.tasks.get_mut(&id).expect("a candidate is there");
        slot.not_before = None;
        let task = slot.task.take().expect("nobody polls it now");
        let host = slot.host;
        self.host = host;
        self.steps += 1;
        let mut what = id.to_le_bytes().to_vec();
        what.extend(self.now.as_nanos().to_le_bytes());
        self.mix(&what);
        Some((id, host, task))
    }
}

/// A wait by the clock of the host that waits.
pub struct Sleep {
    deadline: Duration,
    timer: Option<(Duration, u64)>,
}

impl Sleep {
    pub fn of(duration: Duration) -> Self {
        Self::until(now().unwrap_or_default().saturating_add(duration))
    }

    pub fn until(deadline: Duration) -> Self {
        Self {
            deadline,
            timer: None,
        }
    }

    fn give_back(&mut self) {
        if let Some(timer) = self.timer.take() {
            drop(with(|world| world.timers.remove(&timer)));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.give_back();
        let now = now().expect("inside a simulation");
        let Some(left) = self
            .deadline
            .checked_sub(now)
            .filter(|left| !left.is_zero())
        else {
            return Poll::Ready(());
        };
        let deadline = self.deadline;
        self.timer = with(|world| {
            let due = if deadline == Duration::MAX {
                deadline
            } else {
                world.now.saturating_add(left)
            };
            world.next += 1;
            let key = (due, world.next);
            world.timers.insert(key, (world.host, cx.waker().clone()));
            key
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.give_back();
    }
}
