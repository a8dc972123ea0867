//! A request on its way to an instance, and what its caller and the instance tell each other then.
//!
//! The caller holds a [`Claim`], the instance a [`Ticket`]. The guest can't be told to let go of one
//! request: a claim that is dropped only says that nobody waits any more.

use std::{
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt, channel::oneshot, task::AtomicWaker};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use wasmtime_wasi_http::handler::Response;

use crate::{
    admission::Turn,
    fresh::Head,
    invoke::BoxBody,
    meter::{InFlight, Meter},
    run::Run,
};

pub(crate) struct Job {
    pub request: http::Request<BoxBody>,
    pub head: Head,
    pub ticket: Ticket,
}

/// The instance's side of a request.
pub(crate) struct Ticket {
    pub run: Arc<Run>,
    pub deadline: Instant,
    /// Its time was up, and its caller was told.
    pub is_expired: bool,
    shared: Arc<Shared>,
    _in_flight: InFlight<Arc<Meter>>,
    _turn: Turn,
    /// For the stack on which the guest works on it.
    stack_slot: Option<OwnedSemaphorePermit>,
}

/// The caller's side of it.
pub(crate) struct Claim {
    shared: Arc<Shared>,
    run: Arc<Run>,
}

struct Shared {
    /// What the caller wants.
    wish: AtomicU8,
    /// The guest's call has ended, or there is no instance.
    has_returned: AtomicBool,
    caller: AtomicWaker,
    /// Set when an instance has taken the request.
    instance: OnceLock<Arc<AtomicWaker>>,
}

/// What the caller still wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wish {
    /// The answer, or the rest of it.
    Answer,
    /// Nothing: it has all there is, and the guest may go on with what it does after that.
    Done,
    /// Nothing: it went away.
    Gone,
    /// Nothing, and nobody else should be answered by the same instance.
    Spoilt,
}

impl Wish {
    const ALL: [Self; 4] = [Self::Answer, Self::Done, Self::Gone, Self::Spoilt];
}

impl Ticket {
    pub(crate) fn new(run: Arc<Run>, deadline: Instant, turn: Turn) -> (Self, Claim) {
        let shared = Arc::new(Shared {
            wish: AtomicU8::new(Wish::Answer as u8),
            has_returned: AtomicBool::new(false),
            caller: AtomicWaker::new(),
            instance: OnceLock::new(),
        });
        let claim = Claim {
            shared: shared.clone(),
            run: run.clone(),
        };
        let ticket = Self {
            deadline,
            is_expired: false,
            shared,
            _in_flight: InFlight::new(run.meter.clone()),
            _turn: turn,
            stack_slot: None,
            run,
        };
        (ticket, claim)
    }

    /// Until the instance lets go of the request.
    pub(crate) fn holds(&mut self, stack: Option<OwnedSemaphorePermit>) {
        self.stack_slot = stack;
    }

    /// From now on the caller's wishes wake the instance.
    pub(super) fn belongs_to(&self, instance: &Arc<AtomicWaker>) {
        let _ = self.shared.instance.set(instance.clone());
    }

    pub(super) fn wish(&self) -> Wish {
        let wish = self.shared.wish.load(Ordering::Acquire);
        Wish::ALL[usize::from(wish)]
    }

    /// The guest's call has ended: what is left is its body, if anything.
    pub(super) fn returned(&self) {
        self.shared.has_returned.store(true, Ordering::Release);
        self.wake();
    }

    /// There is something in the run that the caller should see.
    pub(super) fn wake(&self) {
        self.shared.caller.wake();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.returned();
    }
}

impl Claim {
    /// Waits for the head of the answer, or until the request has failed without one.
    pub(crate) async fn head(
        &self,
        mut answered: oneshot::Receiver<wasmtime::Result<Response>>,
    ) -> Result<wasmtime::Result<Response>, oneshot::Canceled> {
        poll_fn(|cx| match answered.poll_unpin(cx) {
            Poll::Pending if self.has_failed(cx) => Poll::Ready(Err(oneshot::Canceled)),
            polled => polled,
        })
        .await
    }

    /// Waits until the request has failed or the guest's call has ended: by then it is known why, if the
    /// guest was stopped.
    pub(crate) async fn returned(&self) {
        poll_fn(|cx| {
            let has_failed = self.has_failed(cx);
            match has_failed || self.shared.has_returned.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Whether the request has failed; wakes whoever asked when it does.
    pub(crate) fn has_failed(&self, cx: &mut Context<'_>) -> bool {
        self.shared.caller.register(cx.waker());
        self.run.failure().is_some()
    }

    pub(crate) fn end(self, wish: Wish) {
        self.wish(wish);
    }

    fn wish(&self, wish: Wish) {
        let (from, to) = (Wish::Answer as u8, wish as u8);
        let (set, fetch) = (Ordering::AcqRel, Ordering::Relaxed);
        let first = self.shared.wish.compare_exchange(from, to, set, fetch);
        if first.is_ok()
            && let Some(instance) = self.shared.instance.get()
        {
            instance.wake();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.wish(Wish::Gone);
    }
}
