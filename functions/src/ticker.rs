//! Makes busy guests yield: one thread that advances the engines' epochs while requests run.
//!
//! Compiled code checks the epoch at every loop and call, and yields to the executor when it has
//! moved on. A thread, not a task: guests may hold every worker of the executor. It must not wake
//! an idle machine: with no request under way it sleeps until one comes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::Duration,
};

/// How long a guest runs before others get their turn. Shorter costs switches (about 1 µs each),
/// longer delays everybody else's I/O, which tokio looks at once in up to 61 turns.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(5);

pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Sequentially consistent throughout: whoever adds the first request sees that the thread is about
/// to sleep, or the thread sees the request.
#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    is_asleep: AtomicBool,
    is_closed: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(advance: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ticking = shared.clone();
        let thread = thread::Builder::new()
            .name("hive-epoch".to_owned())
            // It calls nothing deep.
            .stack_size(64 * 1024)
            .spawn(move || tick(&ticking, advance))?;
        Ok(Self {
            shared,
            thread: thread.thread().clone(),
        })
    }

    /// Ticks for as long as what is returned lives.
    pub(crate) fn run(&self) -> Ticking<'_> {
        self.shared.requests.fetch_add(1, SeqCst);
        // Waking is a system call: only one request in thousands needs it on a busy machine.
        if self.shared.is_asleep.load(SeqCst) && self.shared.is_asleep.swap(false, SeqCst) {
            self.thread.unpark();
        }
        Ticking(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, SeqCst);
        self.thread.unpark();
    }
}

pub(crate) struct Ticking<'a>(&'a Shared);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

fn tick(shared: &Shared, advance: impl Fn()) {
    loop {
        while shared.requests.load(SeqCst) == 0 {
            // Requests keep their runtime, and so this thread, alive: none are left.
            if shared.is_closed.load(SeqCst) {
                return;
            }
            shared.is_asleep.store(true, SeqCst);
            if shared.requests.load(SeqCst) == 0 {
                // Returns at once when it was woken since it looked.
                thread::park();
            }
            shared.is_asleep.store(false, SeqCst);
        }
        thread::sleep(EPOCH_TICK);
        advance();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ticker() -> (Ticker, mpsc::Receiver<()>) {
        let shared = Arc::new(Shared::default());
        let (ticked, ticks) = mpsc::channel();
        let ticking = shared.clone();
        let thread = thread::spawn(move || tick(&ticking, || ticked.send(()).unwrap_or(())));
        let thread = thread.thread().clone();
        (Ticker { shared, thread }, ticks)
    }

    #[test]
    fn it_ticks_for_every_request_however_it_had_slept() {
        let (ticker, ticks) = ticker();
        for request in 0..100 {
            let running = ticker.run();
            // One may be of the request before: the thread was just about to advance.
            for _ in 0..2 {
                assert!(ticks.recv_timeout(LONG).is_ok(), "request {request}");
            }
            drop(running);
        }
    }

    #[test]
    fn it_ends_with_the_runtime() {
        let (ticker, ticks) = ticker();
        drop(ticker.run());
        drop(ticker);
        // The other end goes with the thread.
        while ticks.recv_timeout(LONG).is_ok() {}
        assert_eq!(ticks.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
