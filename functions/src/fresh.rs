//! An instance for one request, which dies with it: nothing of the request is ever seen by another.
//!
//! The guest is polled by whoever asks for its answer (see `work`).

use std::{
    future::{self, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
};

use futures::{FutureExt, channel::oneshot};
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{Prepared, Response},
};

use crate::{
    code::Proxy,
    guest::Guest,
    invoke::BoxBody,
    limits::{
        budget::Share,
        time::{Metered, Stopwatch},
    },
    meter::InFlight,
    origin::{Origin, panicked},
    run::{Failed, Run},
};

/// Where the head of the answer goes, or what came in its place.
pub(crate) type Head = oneshot::Sender<wasmtime::Result<Response>>;

/// Runs one request in its own instance, to the end of what the guest does for it.
pub(crate) async fn run(
    origin: &Origin,
    proxy: &Proxy,
    request: http::Request<BoxBody>,
    head: Head,
    run: &Run,
    share: Share,
    stopwatch: Arc<Stopwatch>,
) {
    let _in_flight = InFlight::new(&*origin.meter);
    let _ticking = origin.runtime.ticker.run();
    let (log, refusal) = (run.log.clone(), run.memory.clone());
    let mut store = origin.store(log, refusal, share, stopwatch.clone());
    let serving = pin!(serve(origin, proxy, &mut store, request, head, run));
    let total = &origin.meter.cpu_micros;
    let mut guest = pin!(Metered::new(serving, stopwatch, total));
    // Of what panicked, nothing is used any more but to be dropped.
    let failed = match AssertUnwindSafe(guest.as_mut()).catch_unwind().await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(failed))) => failed,
        // While it waited.
        Ok(Err(stopped)) => origin.out_of(stopped).into(),
        Err(_) => panicked(),
    };
    // Before the guest goes, and the body that it was writing ends.
    run.fail(failed);
}

async fn serve(
    origin: &Origin,
    proxy: &Proxy,
    store: &mut Store<Guest>,
    request: http::Request<BoxBody>,
    head: Head,
    run: &Run,
) -> Result<(), Failed> {
    let unable = |error: wasmtime::Error| origin.unable(&run.memory, &error);
    let proxy = proxy.instantiate_async(&mut *store).await.map_err(unable)?;
    let request = origin.request(request);
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
        .map_err(|error| origin.trapped(&run.memory, &error))
}
