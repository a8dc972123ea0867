//! One loaded function: admits requests, runs each in an instance of its own, counts.
//!
//! Requests come in, responses whose bodies stream go out. Every request gets a fresh instance, in
//! both WASI versions, and the instance dies with it: nothing of one request is ever seen by
//! another. (wasmtime's own server does the same for 0.2 and reuses instances for 0.3; a pooled
//! instance costs microseconds, leaked state costs more.)

use std::{
    future::{self, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot};
use http::{
    Method, StatusCode, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::BodyExt;
use tokio::time::Instant;
use wasmtime::{AsContextMut, PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{Prepared, ProxyPre},
    p2, p3,
};

use crate::{
    admission::{Admitted, Needs, Turns},
    backtrace::Backtrace,
    code::{Code, Proxy},
    egress::{self, Egress},
    guest::{self, Guest},
    host::HostServices,
    invoke::{BoxBody, InvokeError},
    limits::{
        EgressLimits, Limits,
        budget::Share,
        memory::{MemoryMeter, RefusedBy},
        time::{Asked, Metered, Stopped, Stopwatch},
    },
    logs::{LogSink, RequestLog},
    meter::{FunctionUsage, InFlight, Meter, Tally},
    response::{ResponseBody, announces_more_than},
    run::{Failed, Run},
    runtime::Shared,
    work::Work,
};

/// The epoch's next tick, whenever it comes.
const TICKS_PER_TURN: u64 = 1;

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
    pub logs: LogSink,
    /// What counts its requests, as those of its other copies.
    pub meter: Arc<Meter>,
}

/// Cheap to clone; all clones are one. Requests under way keep what they need when it is dropped.
#[derive(Clone)]
pub struct Function(Arc<Inner>);

struct Inner {
    runtime: Arc<Shared>,
    code: Code,
    turns: Turns,
    name: Arc<str>,
    limits: Limits,
    env: Vec<(String, String)>,
    outgoing: Arc<egress::Client>,
    services: HostServices,
    logs: LogSink,
    meter: Arc<Meter>,
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

/// What a request needs to begin.
struct Ready {
    admitted: Admitted,
    proxy: Arc<Proxy>,
}

type Head = oneshot::Sender<wasmtime::Result<wasmtime_wasi_http::handler::Response>>;

impl Function {
    pub(crate) fn new(
        runtime: Arc<Shared>,
        code: Code,
        needs: Needs,
        outgoing: Arc<egress::Client>,
        options: FunctionOptions,
    ) -> Self {
        Self(Arc::new(Inner {
            runtime,
            code,
            turns: Turns::new(options.limits.concurrency, needs),
            name: options.name.into(),
            limits: options.limits,
            env: options.env,
            outgoing,
            services: options.services,
            logs: options.logs,
            meter: options.meter,
            is_cold: AtomicBool::new(true),
        }))
    }

    pub(crate) fn downgrade(&self) -> WeakFunction {
        WeakFunction(Arc::downgrade(&self.0))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn usage(&self) -> FunctionUsage {
        FunctionUsage {
            waiting: self.0.turns.waiting(),
            ..self.0.meter.read()
        }
    }

    /// Answers one request. Must be called on a tokio runtime.
    ///
    /// The body of the response streams while the guest still runs; if the guest is stopped then,
    /// the body ends with an [`InvokeError`]. Dropping the future or the body stops the guest.
    pub async fn handle(
        &self,
        request: http::Request<BoxBody>,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let (inner, arrived) = (&self.0, Instant::now());
        match inner.admit(arrived, inner.limits.queue).await {
            Ok(ready) => inner.answer(request, ready, arrived).await,
            Err(error) => {
                inner.meter.refused();
                let log = inner.log(&request);
                Err(Failed::from(error).tell(&inner.meter, &log))
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
        let patience = patience.min(inner.limits.queue);
        let ready = inner.admit(arrived, patience).await?;
        inner.answer(request, ready, arrived).await
    }
}

impl Inner {
    async fn admit(&self, arrived: Instant, patience: Duration) -> Result<Ready, InvokeError> {
        // Who waited any longer could not be answered in time.
        let patience = patience.min(self.limits.timeout);
        let admission = &self.runtime.admission;
        let admitted = admission.admit(&self.turns, arrived, patience).await?;
        let mapped = self.code.proxy(&self.runtime, arrived).await;
        let (proxy, is_new) = mapped.map_err(|error| InvokeError::Code(error.to_string()))?;
        if is_new {
            self.is_cold.store(true, Ordering::Relaxed);
        }
        Ok(Ready { admitted, proxy })
    }

    fn log<B>(&self, request: &http::Request<B>) -> RequestLog {
        RequestLog::new(self.logs.clone(), self.name.clone(), request_id(request))
    }

    async fn answer(
        self: &Arc<Self>,
        request: http::Request<BoxBody>,
        ready: Ready,
        arrived: Instant,
    ) -> Result<http::Response<BoxBody>, InvokeError> {
        let tally = Tally::begin(self.meter.clone(), arrived);
        // Read first: all requests but one only do that.
        if self.is_cold.load(Ordering::Relaxed) && self.is_cold.swap(false, Ordering::Relaxed) {
            self.meter.started_cold();
        }
        let deadline = arrived + self.limits.timeout;
        let log = self.log(&request);
        let run = Arc::new(Run::new(log, self.meter.clone()));
        let to_head = request.method() == Method::HEAD;
        let (head, answered) = oneshot::channel();
        let stopwatch = Arc::new(Stopwatch::new(deadline, self.limits.cpu_time));
        let is_0_2 = matches!(*ready.proxy, ProxyPre::P2(_));
        let running = {
            let (inner, run, stopwatch) = (self.clone(), run.clone(), stopwatch.clone());
            async move {
                let Ready { admitted, proxy } = ready;
                let Admitted { places, share } = admitted;
                let guest = inner.run(&proxy, request, head, &run, share, stopwatch);
                guest.await;
                drop(places);
            }
        };
        let mut work = Work::new(running, stopwatch, self.runtime.lane.clone());

        let failed = match work.until(answered).await {
            Ok(Ok(response)) => {
                tally.answered(response.status());
                let limit = self.limits.response_bytes;
                let is_read = !to_head && !has_no_body(response.status());
                if is_read && announces_more_than(limit, response.headers()) {
                    return Err(run.fail(InvokeError::ResponseTooLarge(limit)));
                }
                let mut rest = work.go_on();
                if !is_read {
                    // The server drops the body unread: that is no caller who went away.
                    rest.release();
                }
                return Ok(response
                    .map(|body| BoxBody::new(ResponseBody::new(body, limit, run, rest, tally))));
            }
            Ok(Err(error)) => self.failed(&run, &error, || match is_0_2 {
                // The only other error that comes this way.
                true => InvokeError::NoResponse,
                false => InvokeError::Trap(error.root_cause().to_string()),
            }),
            Err(oneshot::Canceled) => InvokeError::NoResponse.into(),
        };
        if !matches!(failed.error, InvokeError::ErrorCode(_)) {
            // The guest's run is ending, and knows better why: a limit looks like a missing
            // response from here.
            work.end().await;
        }
        Err(run.fail(failed))
    }

    /// Runs one request in its own instance, to the end of what the guest does for it.
    async fn run(
        &self,
        proxy: &Proxy,
        request: http::Request<BoxBody>,
        head: Head,
        run: &Run,
        share: Share,
        stopwatch: Arc<Stopwatch>,
    ) {
        let _in_flight = InFlight::new(&self.meter);
        let _ticking = self.runtime.ticker.run();
        let mut store = self.store(run, share, stopwatch.clone());
        let serving = pin!(self.serve(proxy, &mut store, request, head, run));
        let total = &self.meter.cpu_micros;
        let mut guest = pin!(Metered::new(serving, stopwatch, total));
        // Of what panicked, nothing is used any more but to be dropped.
        let failed = match AssertUnwindSafe(guest.as_mut()).catch_unwind().await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(failed))) => failed,
            // While it waited.
            Ok(Err(stopped)) => self.out_of(stopped).into(),
            Err(_) => InvokeError::Host("the host panicked, see its own log".to_owned()).into(),
        };
        // Before the guest goes, and the body that it was writing ends.
        run.fail(failed);
    }

    fn store(&self, run: &Run, share: Share, stopwatch: Arc<Stopwatch>) -> Store<Guest> {
        let egress = Egress::new(self.outgoing.clone(), run.log.clone());
        let memory = MemoryMeter::new(
            self.limits.memory_bytes,
            share,
            run.memory.clone(),
            self.meter.clone(),
        );
        let services = self.services.clone();
        let guest = Guest::new(&self.env, self.limits.handles, services, egress, memory);
        let mut store = Store::new(&self.runtime.engine, guest);
        store.limiter(|guest| &mut guest.memory);
        guest::bound(&mut store, self.limits.handles);
        store.set_epoch_deadline(TICKS_PER_TURN);
        store.epoch_deadline_callback(move |_| match stopwatch.ask() {
            Asked::GoesOn => Ok(UpdateDeadline::Continue(TICKS_PER_TURN)),
            // It ends where it is, which the backtrace names.
            Asked::Stops(stopped) => Err(stopped.into()),
            // wasmtime's own way to yield would be the worker's next turn, before everybody else.
            Asked::Yields => Ok(UpdateDeadline::YieldCustom(
                TICKS_PER_TURN,
                Box::pin(tokio::task::yield_now()),
            )),
        });
        store
    }

    fn out_of(&self, stopped: Stopped) -> InvokeError {
        match stopped {
            Stopped::Deadline => InvokeError::Timeout(self.limits.timeout),
            Stopped::CpuTime => InvokeError::CpuTimeout(self.limits.cpu_time),
        }
    }

    async fn serve(
        &self,
        proxy: &Proxy,
        store: &mut Store<Guest>,
        request: http::Request<BoxBody>,
        head: Head,
        run: &Run,
    ) -> Result<(), Failed> {
        let unable = |error: wasmtime::Error| {
            self.failed(run, &error, || InvokeError::Host(format!("{error:#}")))
        };
        let proxy = proxy.instantiate_async(&mut *store).await.map_err(unable)?;
        let meter = self.meter.clone();
        let request = addressed(request).map(|body| {
            body.inspect_frame(move |frame| {
                meter.received(frame.data_ref().map_or(0, Bytes::len));
            })
            .map_err(|error| wasmtime_wasi_http::Error::InternalError(Some(error.to_string())))
            .boxed_unsync()
        });
        let prepared = Prepared::new(store.as_context_mut(), &proxy, request, Guest::http, head)
            .map_err(unable)?;
        store
            .run_concurrent(async |accessor| {
                prepared.run(accessor, future::pending()).await?;
                // What is left of the guest: it may still write its body, or work after that.
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                wasmtime::Result::Ok(())
            })
            .await
            .flatten()
            .map_err(|error| {
                self.failed(run, &error, || {
                    InvokeError::Trap(error.root_cause().to_string())
                })
            })
    }

    /// What an error comes to: what it says about the guest, or `otherwise`.
    fn failed(
        &self,
        run: &Run,
        error: &wasmtime::Error,
        otherwise: impl FnOnce() -> InvokeError,
    ) -> Failed {
        Failed {
            error: self.blame(run, error).unwrap_or_else(otherwise),
            backtrace: Backtrace::of(error),
        }
    }

    /// What an error says about the guest, if it says anything.
    fn blame(&self, run: &Run, error: &wasmtime::Error) -> Option<InvokeError> {
        use p2::bindings::http::types::ErrorCode as ErrorCode02;
        use p3::bindings::http::types::ErrorCode as ErrorCode03;

        if let Some(stopped) = error.downcast_ref::<Stopped>() {
            Some(self.out_of(*stopped))
        } else if let Some(by) = run.memory.get() {
            Some(match by {
                RefusedBy::Limit => InvokeError::MemoryLimit(self.limits.memory_bytes),
                RefusedBy::Node => InvokeError::NodeMemory,
            })
        } else if error.is::<PoolConcurrencyLimitError>() {
            Some(InvokeError::Overloaded)
        } else if guest::is_out_of_handles(error) {
            Some(InvokeError::HandleLimit(self.limits.handles))
        } else if error.is::<Trap>() || error.is::<I32Exit>() {
            Some(InvokeError::Trap(error.root_cause().to_string()))
        } else if let Some(code) = error.downcast_ref::<ErrorCode02>() {
            Some(InvokeError::ErrorCode(format!("{code:?}")))
        } else {
            error
                .downcast_ref::<ErrorCode03>()
                .map(|code| InvokeError::ErrorCode(format!("{code:?}")))
        }
    }
}

/// Statuses whose responses end with their head.
fn has_no_body(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

fn request_id<B>(request: &http::Request<B>) -> Option<Arc<str>> {
    /// Longer ones are not ids, and would be repeated in every line.
    const LONGEST: usize = 128;
    let id = request.headers().get("x-request-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= LONGEST).then(|| id.into())
}

/// A request whose URI is whole: guests of both versions expect scheme and authority, HTTP/1.1
/// sends neither.
fn addressed<B>(request: http::Request<B>) -> http::Request<B> {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.into_parts();
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    if uri.authority.is_none() {
        let host = head.headers.get(header::HOST);
        uri.authority = host
            .and_then(|host| Authority::try_from(host.as_bytes()).ok())
            .or(Some(Authority::from_static("localhost")));
    }
    head.uri = Uri::from_parts(uri).expect("scheme, authority and path are all there");
    http::Request::from_parts(head, body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_request_gets_the_address_it_was_sent_to() {
        let cases = [
            (
                "/a?b",
                Some("example.com:8080"),
                "http://example.com:8080/a?b",
            ),
            ("/", None, "http://localhost/"),
            ("/", Some("not a host"), "http://localhost/"),
            ("https://a.b/c", Some("d.e"), "https://a.b/c"),
            ("*", Some("a.b"), "http://a.b*"),
        ];
        for (uri, host, expected) in cases {
            let mut request = http::Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let uri = addressed(request.body(()).unwrap()).into_parts().0.uri;
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn only_short_printable_ids_are_kept() {
        let id = |value: &[u8]| {
            request_id(
                &http::Request::builder()
                    .header("x-request-id", value)
                    .body(())
                    .unwrap(),
            )
        };
        assert_eq!(id(b"abc-1").as_deref(), Some("abc-1"));
        assert_eq!(id(b""), None);
        assert_eq!(id(b"\xff"), None);
        assert_eq!(id(&[b'a'; 129]), None);
    }
}
