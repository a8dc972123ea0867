//! Where guests go on that compute for long: threads of their own, which leave the processor to everybody else.
//!
//! Work comes in that took longer than most requests ever do, or is of a function whose others do ([`crowd`](crate::crowd)),
//! and runs in turns of a tick. It has all that the others leave, and a small share when they leave nothing: what is
//! short never waits behind what is long, and what is long comes to its end.

use std::{num::NonZeroUsize, sync::OnceLock, thread};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// More would only wait for the same cores: as many as an agent's workers.
const MOST_THREADS: usize = 16;

/// Polls between two looks at sockets and timers, as few as an agent's: a turn takes a tick here.
const POLLS_PER_LOOK: u32 = 8;

/// A thread gets nine times the processor time of one that is nicer by 10 where both want all of it. More, and what
/// such a thread holds while it is kept from running (a lock of the pool's) would be held for long.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NICENESS: i32 = 10;

/// Whether threads give way to others by themselves. Elsewhere niceness is the whole process'.
const GIVES_WAY: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Started when the first long work comes: most nodes never see any.
#[derive(Default)]
pub(crate) struct SlowLane(OnceLock<Option<Runtime>>);

impl SlowLane {
    /// Must be called on a tokio runtime: on a machine that gives no more threads, work stays there.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match self.0.get_or_init(start) {
            Some(lane) => lane.spawn(work),
            None => tokio::spawn(work),
        }
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take().flatten() {
            // The last work may be what drops it, on one of its own threads: nobody waits for those.
            lane.shutdown_background();
        }
    }
}

fn start() -> Option<Runtime> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let lane = Builder::new_multi_thread()
        .worker_threads(threads(cores, GIVES_WAY))
        .max_blocking_threads(MOST_THREADS)
        .event_interval(POLLS_PER_LOOK)
        .thread_name("hive-slow")
        .on_thread_start(give_way)
        .enable_all()
        .build();
    lane.inspect_err(|error| tracing::warn!(%error, "cannot start threads for long requests"))
        .ok()
}

/// Where threads do not give way, one core is never theirs, if there are two.
fn threads(cores: usize, give_way: bool) -> usize {
    let most = if give_way {
        cores
    } else {
        cores.saturating_sub(1)
    };
    most.clamp(1, MOST_THREADS)
}

fn give_way() {
    // On Linux, of this thread only.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "cannot lower the priority of a thread for long requests");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_core_is_left_where_threads_do_not_give_way() {
        for (cores, give_way, expected) in [
            (1, true, 1),
            (2, true, 2),
            (64, true, 16),
            (1, false, 1),
            (2, false, 1),
            (8, false, 7),
            (64, false, 16),
        ] {
            assert_eq!(threads(cores, give_way), expected, "{cores} {give_way}");
        }
    }

    #[tokio::test]
    async fn it_is_started_once_and_may_end_in_its_own_work() {
        let lane = std::sync::Arc::new(SlowLane::default());
        let name = || thread::current().name().map(str::to_owned);
        let (heard, hear) = futures::channel::oneshot::channel();
        let last = lane.clone();
        let (go, gone) = futures::channel::oneshot::channel::<()>();
        let work = lane.spawn(async move {
            let _ = gone.await;
            heard.send(name()).unwrap();
            drop(last);
        });
        drop(lane);
        go.send(()).unwrap();
        assert_eq!(hear.await.unwrap().as_deref(), Some("hive-slow"));
        // It may have ended with its threads.
        let _ = work.await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_give_way_and_no_others() {
        let lane = SlowLane::default();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let (heard, hear) = futures::channel::oneshot::channel();
        let before = niceness();
        lane.spawn(async move { heard.send(niceness()).unwrap() });
        assert_eq!(hear.await.unwrap(), (before + NICENESS).min(19));
        assert_eq!(niceness(), before);
    }
}
