//! Several things at once.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

/// What came of each, in their order, when the last is done.
pub async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.into_iter().map(|it| Some(Box::pin(it))).collect();
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, done) in pending.iter_mut().zip(&mut done) {
            let polled = future.as_mut().map(|it| it.as_mut().poll(context));
            if let Some(Poll::Ready(output)) = polled {
                *done = Some(output);
                *future = None;
            }
        }
        match done.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Begun, and left under way: it goes on with whoever holds it.
pub async fn begun<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    future
}
