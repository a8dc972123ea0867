//! Where an instance is polled: on everybody's threads, and in the slow lane for as long as it computes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
};

use crate::{abort::AbortOnDrop, crowd::Crowd, lane::SlowLane};

/// Turns in a row, of a tick each, after which an instance is one that computes.
const SHORT: u32 = 2;

/// How long an instance has been computing.
pub(super) struct Pace {
    turns: AtomicU32,
    crowd: Arc<Crowd>,
}

impl Pace {
    /// Where others compute, it begins as one that does.
    pub(super) fn among(crowd: Arc<Crowd>) -> Self {
        let turns = if crowd.is_there() { SHORT } else { 0 };
        Self {
            turns: AtomicU32::new(turns),
            crowd,
        }
    }

    /// A turn has ended in the middle of something, or not.
    pub(super) fn turn(&self, is_busy: bool) {
        let turns = self.turns.load(Ordering::Relaxed);
        let turns = if is_busy { turns.saturating_add(1) } else { 0 };
        self.turns.store(turns, Ordering::Relaxed);
    }

    fn is_long(&self) -> bool {
        let turns = self.turns.load(Ordering::Relaxed);
        turns >= SHORT || (turns > 0 && self.crowd.is_there())
    }
}

pub(super) type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Lives a life to its end.
pub(super) async fn live(mut life: Life, pace: Arc<Pace>, lane: Arc<SlowLane>) {
    while pace.is_long() || !ends(&mut life, || pace.is_long()).await {
        let there = pace.clone();
        let away = lane.spawn(async move {
            let has_ended = ends(&mut life, || !there.is_long()).await;
            (!has_ended).then_some(life)
        });
        let _end = AbortOnDrop::new(away.abort_handle());
        match away.await {
            Ok(Some(back)) => life = back,
            Ok(None) | Err(_) => return,
        }
    }
}

/// Whether it has ended, rather than that it is to go on elsewhere.
async fn ends(life: &mut Life, elsewhere: impl Fn() -> bool) -> bool {
    poll_fn(|cx| match life.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if elsewhere() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;
    use crate::crowd::tests::computing;

    #[tokio::test]
    async fn it_goes_on_elsewhere_while_it_computes_and_at_once_where_others_do() {
        let turns = [false, true, true, true, false, true, true];
        for (members, expected) in [
            (0, [false, false, false, true, true, false, false]),
            (2, [true, false, true, true, true, false, true]),
        ] {
            let (crowd, _members) = computing(members);
            let pace = Arc::new(Pace::among(crowd));
            let (heard, mut hear) = futures::channel::mpsc::unbounded();
            let own = pace.clone();
            let life = Box::pin(async move {
                for is_busy in turns {
                    let name = thread::current().name().map(str::to_owned);
                    heard.unbounded_send(name.unwrap()).unwrap();
                    own.turn(is_busy);
                    tokio::task::yield_now().await;
                }
            });
            live(life, pace, Arc::default()).await;
            let mut names = Vec::new();
            while let Ok(name) = hear.try_recv() {
                names.push(name == "hive-slow");
            }
            assert_eq!(names, expected, "{members}");
        }
    }
}
