//! A guest's work on one request: a future that changes hands.
//!
//! Who asks for the answer polls it until that is there: most guests have ended by then, and need no
//! task of their own. What is left goes on in one, and what takes long goes on in the slow [`lane`](crate::lane),
//! whenever it turns out to, or begins there where others of its function do ([`crowd`](crate::crowd)). Whoever has it
//! ends the guest by dropping it.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::task::JoinHandle;

use crate::{
    abort::AbortOnDrop,
    crowd::{Crowd, Member},
    lane::SlowLane,
    limits::time::Stopwatch,
};

pub(crate) struct Work {
    state: State,
    lane: Arc<SlowLane>,
}

enum State {
    Here(Life),
    InLane {
        task: JoinHandle<()>,
        end: AbortOnDrop,
    },
    Ended,
}

impl State {
    fn in_lane(lane: &SlowLane, life: Life) -> Self {
        let task = lane.spawn(life);
        let end = AbortOnDrop::new(task.abort_handle());
        Self::InLane { task, end }
    }
}

impl Work {
    /// Must be called on a tokio runtime.
    pub(crate) fn new(
        future: impl Future<Output = ()> + Send + 'static,
        stopwatch: Arc<Stopwatch>,
        lane: Arc<SlowLane>,
        crowd: Arc<Crowd>,
    ) -> Self {
        let begins_in_lane = crowd.is_there();
        let life = Life {
            future: Box::pin(future),
            stopwatch,
            member: Member::of(crowd),
        };
        let state = match begins_in_lane {
            true => State::in_lane(&lane, life),
            false => State::Here(life),
        };
        Self { state, lane }
    }

    /// Works until `answer` is there, which the work itself gives, or lets go of when it ends.
    pub(crate) async fn until<A: Future + Unpin>(&mut self, mut answer: A) -> A::Output {
        poll_fn(|cx| {
            let _ = self.poll(cx);
            // After the work, whose poll gives it.
            Pin::new(&mut answer).poll(cx)
        })
        .await
    }

    /// Works to the end.
    pub(crate) async fn end(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Leaves what is to be done to a task, which ends with what is returned.
    pub(crate) fn go_on(mut self) -> AbortOnDrop {
        match self.state {
            State::Here(_) => {
                let task = tokio::spawn(async move { self.end().await });
                AbortOnDrop::new(task.abort_handle())
            }
            State::InLane { end, .. } => end,
            State::Ended => AbortOnDrop::none(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Here(life) = &mut self.state {
            if Pin::new(&mut *life).poll(cx).is_ready() {
                self.state = State::Ended;
            } else if life.is_long()
                && let State::Here(life) = mem::replace(&mut self.state, State::Ended)
            {
                self.state = State::in_lane(&self.lane, life);
            } else {
                return Poll::Pending;
            }
        }
        if let State::InLane { task, .. } = &mut self.state {
            // However it ended: it has said so itself.
            let _ = ready!(Pin::new(task).poll(cx));
            self.state = State::Ended;
        }
        Poll::Ready(())
    }
}

/// What is polled, wherever that is.
struct Life {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Says what it has taken.
    stopwatch: Arc<Stopwatch>,
    member: Member,
}

impl Life {
    fn is_long(&self) -> bool {
        self.stopwatch.is_long() || self.member.is_crowded()
    }
}

impl Future for Life {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let life = &mut *self;
        let polled = life.future.as_mut().poll(cx);
        if polled.is_pending() {
            life.member.turn(&life.stopwatch);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use futures::{FutureExt, channel::oneshot};
    use tokio::{sync::Notify, time::Instant};

    use super::*;
    use crate::crowd::tests::computing;

    const LONG: Duration = Duration::from_secs(60);

    fn stopwatch() -> Arc<Stopwatch> {
        Arc::new(Stopwatch::new(Instant::now() + LONG, LONG))
    }

    struct Working {
        work: Work,
        answer: oneshot::Receiver<u32>,
        /// Lets the work end.
        rest: Arc<Notify>,
        /// 1 while the work lives.
        alive: Arc<AtomicU32>,
        ended: oneshot::Receiver<()>,
    }

    /// Answers at its second poll, and has something left to do.
    fn working() -> Working {
        let (head, answer) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (rest, alive) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(1)));
        let (until, guard) = (rest.clone(), Alive(alive.clone()));
        let future = async move {
            let _guard = guard;
            tokio::task::yield_now().await;
            head.send(7).unwrap();
            until.notified().await;
            let _ = end.send(());
        };
        let work = Work::new(future, stopwatch(), Arc::default(), Arc::default());
        Working {
            work,
            answer,
            rest,
            alive,
            ended,
        }
    }

    struct Alive(Arc<AtomicU32>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn what_is_left_after_the_answer_goes_on_by_itself() {
        let mut working = working();
        assert_eq!(working.work.until(working.answer).await, Ok(7));
        let mut guard = working.work.go_on();
        working.rest.notify_one();
        working.ended.await.unwrap();
        guard.release();
    }

    #[tokio::test]
    async fn who_drops_it_ends_it() {
        let mut early = working();
        let asked = Box::pin(early.work.until(early.answer));
        assert!(asked.now_or_never().is_none());
        drop(early.work);
        assert_eq!(early.alive.load(Ordering::Relaxed), 0);

        let mut late = working();
        late.work.until(late.answer).await.unwrap();
        drop(late.work.go_on());
        assert_eq!(late.ended.await, Err(oneshot::Canceled));
    }

    #[tokio::test]
    async fn work_that_ends_without_an_answer_is_told_by_the_answer() {
        let (head, answer) = oneshot::channel::<u32>();
        let future = async move { drop(head) };
        let mut work = Work::new(future, stopwatch(), Arc::default(), Arc::default());
        assert_eq!(work.until(answer).await, Err(oneshot::Canceled));
        work.end().await;
        work.go_on().release();
    }

    #[tokio::test]
    async fn work_begins_in_the_lane_where_others_of_the_function_compute() {
        for (members, in_lane) in [(0, false), (1, false), (2, true)] {
            let (crowd, _members) = computing(members);
            let (head, answer) = oneshot::channel();
            let future = async move {
                let name = thread::current().name().map(str::to_owned);
                head.send(name).unwrap();
            };
            let mut work = Work::new(future, stopwatch(), Arc::default(), crowd);
            let name = work.until(answer).await.unwrap();
            assert_eq!(name.as_deref() == Some("hive-slow"), in_lane, "{members}");
        }
    }

    #[tokio::test]
    async fn what_computes_goes_to_the_lane_after_a_turn_where_others_do() {
        for (members, in_lane) in [(0, false), (1, true)] {
            let (crowd, _members) = computing(members);
            let (head, answer) = oneshot::channel();
            let stopwatch = stopwatch();
            let timed = stopwatch.clone();
            let future = async move {
                timed.compute_a_turn();
                tokio::task::yield_now().await;
                let name = thread::current().name().map(str::to_owned);
                let is_long = timed.is_long();
                head.send((name, is_long)).unwrap();
            };
            let mut work = Work::new(future, stopwatch, Arc::default(), crowd);
            let (name, is_long) = work.until(answer).await.unwrap();
            // On a busy machine it took several tries, and so it is long by itself.
            let expected = in_lane || is_long;
            assert_eq!(name.as_deref() == Some("hive-slow"), expected, "{members}");
        }
    }

    #[tokio::test]
    async fn what_takes_long_goes_on_in_the_lane_and_still_ends_with_its_caller() {
        let (stopwatch, alive) = (stopwatch(), Arc::new(AtomicU32::new(1)));
        let (heard, hear) = oneshot::channel();
        let (head, answer) = oneshot::channel::<u32>();
        let (timed, guard) = (stopwatch.clone(), Alive(alive.clone()));
        let future = async move {
            let _held = (guard, head);
            while !timed.is_long() {
                timed.start();
                timed.stop();
            }
            tokio::task::yield_now().await;
            heard
                .send(thread::current().name().map(str::to_owned))
                .unwrap();
            std::future::pending::<()>().await;
        };
        let mut work = Work::new(future, stopwatch, Arc::default(), Arc::default());
        let caller = tokio::spawn(async move { work.until(answer).await });
        assert_eq!(hear.await.unwrap().as_deref(), Some("hive-slow"));
        assert_eq!(alive.load(Ordering::Relaxed), 1);
        caller.abort();
        let deadline = Instant::now() + LONG;
        while alive.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "it goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
