//! The life of one instance: it begins for a request, takes others, and ends when it is of no more use.
//!
//! The guest runs inside of wasmtime's event loop, where calls are begun. Whatever must happen in time happens
//! around it: nothing in there is polled while a guest computes, or waits in a call that holds the store.

use std::{
    future::{self, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use futures::{
    FutureExt, StreamExt, channel::oneshot, stream::FuturesUnordered, task::AtomicWaker,
};
use tokio::{
    sync::futures::Notified,
    time::{Instant, Sleep, sleep_until},
};
use wasmtime::{
    AsContextMut, Store,
    component::{Accessor, Func},
};
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{Prepared, Proxy},
};

use super::{
    Seats, Terms,
    board::{Arrived, Board, Next},
    job::Job,
    lane::{self, Pace},
};
use crate::{
    admission::Room,
    code,
    crowd::Member,
    guest::Guest,
    invoke::InvokeError,
    limits::{
        memory::Refusal,
        time::{Metered, Stopped, Stopwatch},
    },
    origin::{Origin, panicked},
    run::Failed,
};

/// Begins an instance with its first request. It ends by itself.
pub(crate) fn start(
    origin: Arc<Origin>,
    proxy: Arc<code::Proxy>,
    terms: Terms,
    seats: &Arc<Seats>,
    room: Room,
    job: Job,
) {
    let pace = Arc::new(Pace::among(origin.crowd.clone()));
    let lane = origin.runtime.lane.clone();
    let worker = Worker {
        stopwatch: Arc::new(Stopwatch::new(job.ticket.deadline, Default::default())),
        waker: Arc::default(),
        refusal: Arc::default(),
        pace: pace.clone(),
        instance: seats.instance(),
        seats: Arc::downgrade(seats),
        origin,
        proxy,
    };
    let life = Box::pin(worker.run(terms, room, job));
    tokio::spawn(lane::live(life, pace, lane));
}

struct Worker {
    origin: Arc<Origin>,
    proxy: Arc<code::Proxy>,
    stopwatch: Arc<Stopwatch>,
    waker: Arc<AtomicWaker>,
    refusal: Arc<Refusal>,
    pace: Arc<Pace>,
    instance: u64,
    seats: Weak<Seats>,
}

impl Worker {
    async fn run(self, terms: Terms, room: Room, job: Job) {
        let Room { slots, share } = room;
        let (log, refusal) = (job.ticket.run.log.clone(), self.refusal.clone());
        let stopwatch = self.stopwatch.clone();
        let mut store = self.origin.store(log, refusal, share, stopwatch.clone());
        let limits = &self.origin.limits;
        let board = Board::new(terms, limits, stopwatch, self.waker.clone(), job);
        let board = Mutex::new(board);
        // Of what panicked, nothing is used any more but to be dropped.
        let lived = AssertUnwindSafe(self.live(&mut store, &board));
        let failed = lived
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Some(panicked()));
        // Before the guest goes, and the bodies that it was writing end.
        lock(&board).end(failed);
        drop(store);
        drop(slots);
    }

    /// Returns why the instance ended, if it was not of itself.
    async fn live(&self, store: &mut Store<Guest>, board: &Mutex<Board>) -> Option<Failed> {
        let proxy = match self.instantiate(store).await {
            Ok(proxy) => proxy,
            Err(failed) => return Some(failed),
        };
        let guest = pin!(
            store
                .run_concurrent(async |accessor| self.guest(accessor, &proxy, board).await)
                .map(Result::flatten)
        );
        self.look_after(guest, board).await
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> Result<Proxy, Failed> {
        let _ticking = self.origin.runtime.ticker.run();
        let starting = pin!(self.proxy.instantiate_async(store));
        let total = &self.origin.meter.cpu_micros;
        match Metered::new(starting, self.stopwatch.clone(), total).await {
            Ok(started) => started.map_err(|error| self.origin.unable(&self.refusal, &error)),
            Err(stopped) => Err(self.origin.out_of(stopped).into()),
        }
    }

    /// In the event loop: hands requests to the guest, and sees what it has done.
    async fn guest(
        &self,
        accessor: &Accessor<Guest>,
        proxy: &Proxy,
        board: &Mutex<Board>,
    ) -> wasmtime::Result<()> {
        let handle = handle_of(proxy);
        let mut calls = FuturesUnordered::new();
        poll_fn(|cx| {
            loop {
                while let Poll::Ready(Some(call)) = calls.poll_next_unpin(cx) {
                    match call {
                        Ok(id) => lock(board).returned(id),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                let arrived = {
                    let mut board = lock(board);
                    if let Some(run) = board.changed() {
                        let log = match run {
                            Some(run) => run.log.clone(),
                            None => self.origin.log(None),
                        };
                        accessor.with(|mut store| store.get().speaks_for(log));
                    }
                    board.take_arrived()
                };
                if let Some(arrived) = arrived {
                    let Arrived { id, request, head } = arrived;
                    let request = self.origin.request(request);
                    let prepared = accessor.with(|mut store| {
                        let store = store.as_context_mut();
                        Prepared::new(store, proxy, request, Guest::http, head)
                    });
                    calls.push(async move {
                        prepared?.run(accessor, future::pending()).await?;
                        wasmtime::Result::Ok(id)
                    });
                    continue;
                }
                let is_idle = accessor.poll_no_interesting_tasks(cx).is_ready();
                let is_ready = accessor.poll_ready_for_concurrent_call(handle, cx);
                let mut board = lock(board);
                board.is_at_rest = calls.is_empty() && is_idle;
                board.is_ready = is_ready.is_ready();
                return Poll::Pending;
            }
        })
        .await
    }

    /// Around the event loop: polls it, keeps the time, and has other requests come.
    async fn look_after(
        &self,
        mut guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        board: &Mutex<Board>,
    ) -> Option<Failed> {
        let admission = &self.origin.runtime.admission;
        let mut wanted = pin!(None::<Notified<'_>>);
        let mut timer = pin!(None::<Sleep>);
        let mut seat = OfferedSeat::new(self);
        let mut member = Member::of(self.origin.crowd.clone());
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            loop {
                let (polled, stopped) = self.turn(guest.as_mut(), cx);
                if let Poll::Ready(Err(error)) = polled {
                    return Poll::Ready(Some(self.origin.trapped(&self.refusal, &error)));
                }
                let is_busy = self.stopwatch.has_yielded();
                self.pace.turn(is_busy);
                member.turn(&self.stopwatch);
                if let Some(Stopped::CpuTime) = stopped
                    && !is_busy
                {
                    return Poll::Ready(Some(self.origin.out_of(Stopped::CpuTime).into()));
                }
                if wanted.is_none() {
                    // Before it is asked: what is wanted from then on wakes this.
                    wanted.set(Some(admission.wanted()));
                }
                let mut board = lock(board);
                let next = board.next(Instant::now(), is_busy, admission.is_scarce());
                let until = match next {
                    Next::Wait { until, offer } => {
                        if offer {
                            seat.offer();
                        } else if let Some(job) = seat.withdraw() {
                            board.arrive(job);
                            continue;
                        }
                        until
                    }
                    Next::End => match seat.withdraw() {
                        Some(job) => {
                            board.arrive(job);
                            continue;
                        }
                        None => return Poll::Ready(None),
                    },
                    Next::Stop => return Poll::Ready(Some(board.timeout().into())),
                };
                match seat.poll(cx) {
                    Poll::Ready(Some(job)) => {
                        board.arrive(job);
                        continue;
                    }
                    Poll::Ready(None) => {
                        board.close();
                        continue;
                    }
                    Poll::Pending => {}
                }
                if board.is_idle() {
                    // Nothing that happens from now on is because of what was.
                    self.refusal.forget();
                    if let Some(notified) = wanted.as_mut().as_pin_mut()
                        && notified.poll(cx).is_ready()
                    {
                        wanted.set(None);
                        continue;
                    }
                }
                if is_busy {
                    // It goes on when it was everybody else's turn, and no timer comes before that.
                    return Poll::Pending;
                }
                ready!(at(timer.as_mut(), until, cx));
            }
        })
        .await
    }

    /// Polls the guest once, on its budget.
    fn turn(
        &self,
        guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        cx: &mut Context<'_>,
    ) -> (Poll<wasmtime::Result<()>>, Option<Stopped>) {
        // Only now can it compute.
        let _ticking = self.origin.runtime.ticker.run();
        self.stopwatch.start();
        let polled = guest.poll(cx);
        let (before, now, stopped) = self.stopwatch.stop();
        let total = &self.origin.meter.cpu_micros;
        total.fetch_add(now - before, std::sync::atomic::Ordering::Relaxed);
        (polled, stopped)
    }
}

/// The seat that an instance offers, if it offers one.
struct OfferedSeat<'a> {
    worker: &'a Worker,
    taken: Option<oneshot::Receiver<Job>>,
    /// There is nobody to offer it to, and that was not said yet.
    is_over: bool,
}

impl<'a> OfferedSeat<'a> {
    fn new(worker: &'a Worker) -> Self {
        Self {
            worker,
            taken: None,
            is_over: false,
        }
    }

    fn offer(&mut self) {
        if self.taken.is_none() {
            let seats = self.worker.seats.upgrade();
            self.is_over = seats.is_none();
            self.taken = seats.map(|seats| seats.offer(self.worker.instance));
        }
    }

    /// Takes it back; who came before that is returned.
    fn withdraw(&mut self) -> Option<Job> {
        let mut taken = self.taken.take()?;
        if let Some(seats) = self.worker.seats.upgrade() {
            seats.withdraw(self.worker.instance);
        }
        taken.close();
        taken.try_recv().ok().flatten()
    }

    /// Who has taken it; none if nobody ever will.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Job>> {
        while let Some(taken) = &mut self.taken {
            let job = ready!(taken.poll_unpin(cx));
            self.taken = None;
            match job {
                Ok(job) => return Poll::Ready(Some(job)),
                // Who took it went away, or the function is no more.
                Err(oneshot::Canceled) => self.offer(),
            }
        }
        match std::mem::take(&mut self.is_over) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}

impl Drop for OfferedSeat<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.withdraw() {
            // Nothing of it ran in the instance that ended by itself.
            job.ticket.run.fail(InvokeError::Overloaded);
        }
    }
}

/// Waits until then. A timer that comes early costs a look, so it is set anew only where it would be late.
fn at(mut timer: Pin<&mut Option<Sleep>>, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if timer.is_none() {
        timer.set(Some(sleep_until(until)));
    }
    let mut sleep = timer.as_pin_mut().expect("it was set if it was not there");
    if sleep.deadline() > until || sleep.is_elapsed() {
        sleep.as_mut().reset(until);
    }
    sleep.poll(cx)
}

fn handle_of(proxy: &Proxy) -> Func {
    match proxy {
        Proxy::P2(guest) => *guest.wasi_http_incoming_handler().func_handle().func(),
        Proxy::P3(guest) => *guest.wasi_http_handler().func_handle().func(),
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    // It is used by one task; what a panic leaves is only told of.
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
