//! One loaded function: admits requests, has an instance answer each, counts.
//!
//! Requests come in, responses whose bodies stream go out. Whether an instance is made for a request
//! (`fresh`) or answers several (`reuse`) is said when the function is loaded.

use std::{
    convert::Infallible,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::channel::oneshot;
use http::{Method, StatusCode};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use wasmtime_wasi_http::handler::Response;

use crate::{
    abort::AbortOnDrop,
    admission::{Admission, Needs, Place, Room, Turn, Turns, Waited},
    code::{Code, Proxy},
    egress, fresh,
    host::HostServices,
    invoke::{BoxBody, InvokeError},
    limits::{EgressLimits, Limits, time::Stopwatch},
    logs::{LogSink, RequestLog},
    meter::{FunctionUsage, Meter, Tally},
    origin::Origin,
    request::request_id,
    response::{ResponseBody, announces_more_than},
    reuse::{self, Claim, Instances, Job, Seat, Seats, Terms, Ticket, Wish},
    run::{Failed, Run},
    runtime,
    trace::Trace,
    work::Work,
};

pub struct FunctionOptions {
    /// For logs: "namespace/name".
    pub name: String,
    pub limits: Limits,
    pub env: Vec<(String, String)>,
    /// See [`AllowedHosts`](crate::AllowedHosts); empty: no outgoing requests.
    pub allowed_hosts: Vec<String>,
    pub egress: EgressLimits,
    /// What it gets of the host besides WASI.
    pub services: HostServices,
    pub instances: Instances,
    pub logs: LogSink,
    /// What counts its requests, as those of its other copies.
    pub meter: Arc<Meter>,
}

/// Cheap to clone; all clones are one. Requests under way keep what they need when it is dropped.
#[derive(Clone)]
pub struct Function(Arc<Inner>);

struct Inner {
    origin: Arc<Origin>,
    code: Code,
    turns: Turns,
    /// None: each request has an instance of its own.
    shared: Option<Shared>,
    /// No request has come yet since its code was mapped.
    is_cold: AtomicBool,
}

/// A function, if it is still there.
#[derive(Clone)]
pub(crate) struct WeakFunction(Weak<Inner>);

impl WeakFunction {
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Gives back its code if nobody asked for it for that long.
    pub(crate) fn unmap(&self, idle: Duration) -> bool {
        let inner = self.0.upgrade();
        inner.is_some_and(|inner| inner.code.unmap(idle))
    }
}

/// How requests share instances.
struct Shared {
    terms: Terms,
    seats: Arc<Seats>,
}

/// A seat in an instance, and the slot for a stack of its own: a guest that waits for one request keeps that
/// one's while it goes on with another's.
struct Joined {
    seat: Seat,
    stack: Option<OwnedSemaphorePermit>,
}

impl Shared {
    fn join(&self, admission: &Admission) -> Option<Joined> {
        let stack = match self.terms.concurrent {
            1 => None,
            _ => Some(admission.try_slot()?),
        };
        let seat = self.seats.take()?;
        Some(Joined { seat, stack })
    }
}

/// What a request needs to begin.
struct Ready<'a> {
    turn: Turn,
    place: Admitted<'a>,
    proxy: Arc<Proxy>,
}

/// Where a request is answered whose turn it is.
enum Admitted<'a> {
    Alone(Room),
    Together(&'a Shared, Place<Joined>),
}

impl Function {
    pub(crate) fn new(
        runtime: Arc<runtime::Shared>,
        code: Code,
        needs: Needs,
        outgoing: Arc<egress::Client>,
        options: FunctionOptions,
    ) -> Self {
        let terms = options.instances.terms(code.is_0_2());
        Self(Arc::new(Inner {
            turns: Turns::new(options.limits.concurrency, needs),
            shared: terms.map(|terms| Shared {
                terms,
                seats: Arc::default(),
            }),
            origin: Arc::new(Origin {
                runtime,
                engine: code.engine().clone(),
                is_0_2: code.is_0_2(),
                name: options.name.into(),
                limits: options.limits,
                env: options.env,
                outgoing,
                services: options.services,
                logs: options.logs,
                meter: options.meter,
                crowd: Arc::default(),
            }),
            code,
            is_cold: AtomicBool::new(true),
        }))
    }

    pub(crate) fn downgrade(&self) -> WeakFunction {
        WeakFunction(Arc::downgrade(&self.0))
    }

    pub fn name(&self) -> &str {
        &self.0.origin.name
    }

    pub fn usage(&self) -> FunctionUsage {
        FunctionUsage {
            waiting: self.0.turns.waiting(),
            seats: self.0.shared.as_ref().map_or(0, |it| it.seats.offered()),
            ..self.0.origin.meter.read()
        }
    }

    /// Answers one request. Must be called on a tokio runtime.
    ///
    /// The body of the response streams while the guest still runs; if the guest is stopped then,
    /// the body ends with an [`InvokeError`]. Dropping the future or the body stops the guest. Where the
    /// request waited for its turn, its response has [`Waited`] in the extensions.
    pub async fn handle(
        &self,
        request: http::Request<BoxBody>,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let (inner, arrived) = (&self.0, Instant::now());
        match inner.admit(arrived, inner.origin.limits.queue).await {
            Ok(ready) => inner.answer(request, ready, arrived).await,
            Err(error) => {
                inner.origin.meter.refused();
                let log = inner.log(&request);
                Err(Failed::from(error).tell(&inner.origin.meter, &log))
            }
        }
    }

    /// As [`handle`](Self::handle), for a request that somebody else may be asked to answer: it
    /// waits for its turn for `patience` at most, and when none comes it was never here: it is
    /// neither counted nor logged.
    pub async fn handle_within(
        &self,
        patience: Duration,
        request: http::Request<BoxBody>,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let (inner, arrived) = (&self.0, Instant::now());
        let patience = patience.min(inner.origin.limits.queue);
        let ready = inner.admit(arrived, patience).await?;
        inner.answer(request, ready, arrived).await
    }
}

impl Inner {
    async fn admit(&self, arrived: Instant, patience: Duration) -> Result<Ready<'_>, InvokeError> {
        // Who waited any longer could not be answered in time.
        let patience = patience.min(self.origin.limits.timeout);
        let runtime = &self.origin.runtime;
        let (admission, turns) = (&runtime.admission, &self.turns);
        let (turn, place) = match &self.shared {
            None => {
                let no_seat = || None::<Infallible>;
                let admitted = admission.admit(turns, arrived, patience, no_seat);
                let (turn, Place::New(room)) = admitted.await?;
                (turn, Admitted::Alone(room))
            }
            Some(shared) => {
                let join = || shared.join(admission);
                let admitted = admission.admit(turns, arrived, patience, join);
                let (turn, place) = admitted.await?;
                (turn, Admitted::Together(shared, place))
            }
        };
        let mapped = self.code.proxy(arrived).await;
        let (proxy, is_new) = mapped.map_err(|error| InvokeError::Code(error.to_string()))?;
        if is_new {
            self.is_cold.store(true, Ordering::Relaxed);
        }
        Ok(Ready { turn, place, proxy })
    }

    fn log<B>(&self, request: &http::Request<B>) -> RequestLog {
        let trace = Trace::of(request.headers());
        self.origin.log(request_id(request)).within(trace)
    }

    async fn answer(
        &self,
        request: http::Request<BoxBody>,
        ready: Ready<'_>,
        arrived: Instant,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let origin = &self.origin;
        let tally = Tally::begin(origin.meter.clone(), arrived);
        // Read first: all requests but one only do that.
        if self.is_cold.load(Ordering::Relaxed) && self.is_cold.swap(false, Ordering::Relaxed) {
            origin.meter.started_cold();
        }
        let log = self.log(&request);
        let exchange = Exchange {
            deadline: arrived + origin.limits.timeout,
            to_head: request.method() == Method::HEAD,
            waited: ready.turn.waited(),
            run: Arc::new(Run::new(log, origin.meter.clone())),
            tally,
        };
        let Ready { turn, place, proxy } = ready;
        match place {
            Admitted::Alone(room) => self.alone(request, proxy, turn, room, exchange).await,
            Admitted::Together(shared, place) => {
                let (run, deadline) = (exchange.run.clone(), exchange.deadline);
                let (ticket, claim) = Ticket::new(run, deadline, turn);
                let (head, answered) = oneshot::channel();
                let job = Job {
                    request,
                    head,
                    ticket,
                };
                let seated = self.seat(shared, place, proxy, job);
                if timeout_at(deadline, seated).await.is_err() {
                    let timeout = InvokeError::Timeout(origin.limits.timeout);
                    return Err(exchange.run.fail(timeout));
                }
                self.together(claim, answered, exchange).await
            }
        }
    }

    /// In an instance that is made for it.
    async fn alone(
        &self,
        request: http::Request<BoxBody>,
        proxy: Arc<Proxy>,
        turn: Turn,
        room: Room,
        exchange: Exchange,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let (origin, run) = (&self.origin, exchange.run.clone());
        let (head, answered) = oneshot::channel();
        let cpu_time = origin.limits.cpu_time;
        let stopwatch = Arc::new(Stopwatch::new(exchange.deadline, cpu_time));
        let running = {
            let (origin, run, stopwatch) = (origin.clone(), run.clone(), stopwatch.clone());
            async move {
                let Room { slots, share } = room;
                fresh::run(&origin, &proxy, request, head, &run, share, stopwatch).await;
                drop((slots, turn));
            }
        };
        let (lane, crowd) = (origin.runtime.lane.clone(), origin.crowd.clone());
        let mut work = Work::new(running, stopwatch, lane, crowd);

        let failed = match work.until(answered).await {
            Ok(Ok(response)) => {
                let limit = origin.limits.response_bytes;
                return exchange.answered(response, limit, || work.go_on());
            }
            Ok(Err(error)) => origin.no_response(&run.memory, &error),
            Err(oneshot::Canceled) => InvokeError::NoResponse.into(),
        };
        if !matches!(failed.error, InvokeError::ErrorCode(_)) {
            // The guest's run is ending, and knows better why: a limit looks like a missing
            // response from here.
            work.end().await;
        }
        Err(run.fail(failed))
    }

    /// In an instance that answers others, too.
    async fn together(
        &self,
        claim: Claim,
        answered: oneshot::Receiver<wasmtime::Result<Response>>,
        exchange: Exchange,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let (origin, run) = (&self.origin, exchange.run.clone());
        let failed = match claim.head(answered).await {
            Ok(Ok(response)) => {
                let limit = origin.limits.response_bytes;
                return exchange.answered(response, limit, || AbortOnDrop::claim(claim));
            }
            Ok(Err(error)) => origin.no_response(&run.memory, &error),
            Err(oneshot::Canceled) => InvokeError::NoResponse.into(),
        };
        if matches!(failed.error, InvokeError::ErrorCode(_)) {
            return Err(run.fail(failed));
        }
        // As above.
        claim.returned().await;
        let error = run.fail(failed);
        claim.end(Wish::Spoilt);
        Err(error)
    }

    /// Hands a request to an instance.
    async fn seat(
        &self,
        shared: &Shared,
        mut place: Place<Joined>,
        proxy: Arc<Proxy>,
        mut job: Job,
    ) {
        loop {
            job = match place {
                Place::New(room) => {
                    let (origin, terms) = (self.origin.clone(), shared.terms);
                    return reuse::start(origin, proxy, terms, &shared.seats, room, job);
                }
                Place::Seat(Joined { seat, stack }) => {
                    job.ticket.holds(stack);
                    match seat.send(job) {
                        Ok(()) => return,
                        // The instance has just ended.
                        Err(job) => job,
                    }
                }
            };
            let admission = &self.origin.runtime.admission;
            let join = || shared.join(admission);
            place = admission.place(&self.turns, join).await;
        }
    }
}

/// One request, as far as it is the same wherever it is answered.
struct Exchange {
    deadline: Instant,
    to_head: bool,
    waited: Option<Waited>,
    run: Arc<Run>,
    tally: Tally,
}

impl Exchange {
    /// There is a head; `rest` is what the guest still does.
    fn answered(
        self,
        mut response: Response,
        limit: u64,
        rest: impl FnOnce() -> AbortOnDrop,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let Self {
            to_head,
            waited,
            run,
            tally,
            ..
        } = self;
        if let Some(waited) = waited {
            response.extensions_mut().insert(waited);
        }
        tally.answered(response.status());
        let is_read = !to_head && !has_no_body(response.status());
        if is_read && announces_more_than(limit, response.headers()) {
            return Err(run.fail(InvokeError::ResponseTooLarge(limit)));
        }
        let mut rest = rest();
        if !is_read {
            // The server drops the body unread: that is no caller who went away.
            rest.release();
        }
        Ok(response.map(|body| BoxBody::new(ResponseBody::new(body, limit, run, rest, tally))))
    }
}

/// Statuses whose responses end with their head.
fn has_no_body(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}
