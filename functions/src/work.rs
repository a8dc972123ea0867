//! A guest's work on one request: a future that changes hands.
//!
//! Who asks for the answer polls it until that is there: most guests have ended by then, and need no
//! task of their own. What is left goes on in one. Whoever has it ends the guest by dropping it.

use std::{future::poll_fn, pin::Pin};

use crate::abort::AbortOnDrop;

pub(crate) struct Work(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Work {
    pub(crate) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }

    /// Works until `answer` is there, which the work itself gives, or lets go of when it ends.
    pub(crate) async fn until<A: Future + Unpin>(&mut self, mut answer: A) -> A::Output {
        poll_fn(|cx| {
            if let Some(future) = &mut self.0
                && future.as_mut().poll(cx).is_ready()
            {
                self.0 = None;
            }
            // After the work, whose poll gives it.
            Pin::new(&mut answer).poll(cx)
        })
        .await
    }

    /// Works to the end.
    pub(crate) async fn end(&mut self) {
        if let Some(future) = &mut self.0 {
            future.as_mut().await;
            self.0 = None;
        }
    }

    /// Leaves what is to be done to a task, which ends with what is returned.
    pub(crate) fn go_on(self) -> AbortOnDrop {
        match self.0 {
            Some(future) => AbortOnDrop::new(tokio::spawn(future).abort_handle()),
            None => AbortOnDrop::none(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use futures::{FutureExt, channel::oneshot};
    use tokio::sync::Notify;

    use super::*;

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
        let work = Work::new(async move {
            let _guard = guard;
            tokio::task::yield_now().await;
            head.send(7).unwrap();
            until.notified().await;
            let _ = end.send(());
        });
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
        let mut work = Work::new(async move { drop(head) });
        assert_eq!(work.until(answer).await, Err(oneshot::Canceled));
        work.end().await;
        work.go_on().release();
    }
}
