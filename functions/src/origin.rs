//! What a function's instances are made of, and what their errors mean.
//!
//! Made once when a function is loaded; every instance begins as a store from here. It must keep
//! nothing of any request.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::{handler::Request, p2, p3};

use crate::{
    backtrace::Backtrace,
    crowd::Crowd,
    egress::{self, Egress},
    guest::{self, Guest},
    host::HostServices,
    invoke::{BoxBody, InvokeError},
    limits::{
        Limits,
        budget::Share,
        memory::{MemoryMeter, Refusal, RefusedBy},
        time::{Asked, Stopped, Stopwatch},
    },
    logs::{LogSink, RequestLog},
    meter::Meter,
    request::addressed,
    run::Failed,
    runtime::Shared,
};

/// The epoch's next tick, whenever it comes.
const TICKS_PER_TURN: u64 = 1;

pub(crate) struct Origin {
    pub runtime: Arc<Shared>,
    pub engine: Engine,
    pub is_0_2: bool,
    pub name: Arc<str>,
    pub limits: Limits,
    pub env: Vec<(String, String)>,
    pub outgoing: Arc<egress::Client>,
    pub services: HostServices,
    pub logs: LogSink,
    pub meter: Arc<Meter>,
    /// Of the function's guests, those that compute.
    pub crowd: Arc<Crowd>,
}

impl Origin {
    pub(crate) fn log(&self, request_id: Option<Arc<str>>) -> RequestLog {
        RequestLog::new(self.logs.clone(), self.name.clone(), request_id)
    }

    /// A store for one instance, whose guest is held to `stopwatch` and to its `share` of the memory.
    pub(crate) fn store(
        &self,
        log: RequestLog,
        refusal: Arc<Refusal>,
        share: Share,
        stopwatch: Arc<Stopwatch>,
    ) -> Store<Guest> {
        let egress = Egress::new(self.outgoing.clone(), log);
        let meter = self.meter.clone();
        let memory = MemoryMeter::new(self.limits.memory_bytes, share, refusal, meter);
        let services = self.services.clone();
        let guest = Guest::new(&self.env, self.limits.handles, services, egress, memory);
        let mut store = Store::new(&self.engine, guest);
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

    /// A request as guests take it; what comes of its body is counted.
    pub(crate) fn request(&self, request: http::Request<BoxBody>) -> Request {
        let meter = self.meter.clone();
        addressed(request).map(|body| {
            body.inspect_frame(move |frame| {
                meter.received(frame.data_ref().map_or(0, Bytes::len));
            })
            .map_err(|error| wasmtime_wasi_http::Error::InternalError(Some(error.to_string())))
            .boxed_unsync()
        })
    }

    pub(crate) fn out_of(&self, stopped: Stopped) -> InvokeError {
        match stopped {
            Stopped::Deadline => InvokeError::Timeout(self.limits.timeout),
            Stopped::CpuTime => InvokeError::CpuTimeout(self.limits.cpu_time),
        }
    }

    /// What an error comes to: what it says about the guest, or `otherwise`.
    pub(crate) fn failed(
        &self,
        refusal: &Refusal,
        error: &wasmtime::Error,
        otherwise: impl FnOnce() -> InvokeError,
    ) -> Failed {
        Failed {
            error: self.blame(refusal, error).unwrap_or_else(otherwise),
            backtrace: Backtrace::of(error),
            is_of_several: false,
        }
    }

    /// What an error says that came of running the guest.
    pub(crate) fn trapped(&self, refusal: &Refusal, error: &wasmtime::Error) -> Failed {
        self.failed(refusal, error, || {
            InvokeError::Trap(error.root_cause().to_string())
        })
    }

    /// What an error says that came before the guest ran.
    pub(crate) fn unable(&self, refusal: &Refusal, error: &wasmtime::Error) -> Failed {
        self.failed(refusal, error, || InvokeError::Host(format!("{error:#}")))
    }

    /// What an error says that a guest gave in a response's place.
    pub(crate) fn no_response(&self, refusal: &Refusal, error: &wasmtime::Error) -> Failed {
        self.failed(refusal, error, || match self.is_0_2 {
            // The only other error that comes this way.
            true => InvokeError::NoResponse,
            false => InvokeError::Trap(error.root_cause().to_string()),
        })
    }

    /// What an error says about the guest, if it says anything.
    fn blame(&self, refusal: &Refusal, error: &wasmtime::Error) -> Option<InvokeError> {
        use p2::bindings::http::types::ErrorCode as ErrorCode02;
        use p3::bindings::http::types::ErrorCode as ErrorCode03;

        if let Some(stopped) = error.downcast_ref::<Stopped>() {
            Some(self.out_of(*stopped))
        } else if let Some(by) = refusal.get() {
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

/// What is said of the host's own fault.
pub(crate) fn panicked() -> Failed {
    InvokeError::Host("the host panicked, see its own log".to_owned()).into()
}
