//! Makes busy guests yield: one thread that advances an engine's epoch while requests run.
//!
//! Compiled code checks the epoch at every loop and call, and yields to the executor when it has
//! moved on. A thread, not a task: guests may hold every worker of the executor. It must not wake
//! an idle machine: with no request under way it sleeps until one comes.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// How long a guest runs before others get their turn. Shorter costs switches (about 1 µs each),
/// longer delays everybody else's I/O, which tokio looks at once in up to 61 turns.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(5);

pub(crate) struct Ticker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: usize,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it did, the counts would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let ticking = shared.clone();
        thread::Builder::new()
            .name("hive-epoch".to_owned())
            // It calls nothing deep.
            .stack_size(64 * 1024)
            .spawn(move || tick(&ticking, &engine))?;
        Ok(Self(shared))
    }

    /// Ticks for as long as what is returned lives.
    pub(crate) fn run(&self) -> Ticking {
        let mut state = self.0.state();
        state.requests += 1;
        if state.requests == 1 {
            self.0.changed.notify_one();
        }
        Ticking(self.0.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_one();
    }
}

pub(crate) struct Ticking(Arc<Shared>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.state().requests -= 1;
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    loop {
        {
            let mut state = shared.state();
            while state.requests == 0 && !state.closed {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            // Requests keep their runtime, and so this thread, alive: none are left.
            if state.closed {
                return;
            }
        }
        thread::sleep(EPOCH_TICK);
        engine.increment_epoch();
    }
}
