//! A component run with wasmtime alone: pooled and a fresh instance for each request, as Hive does, but
//! compiled without epochs, and with nothing that limits, meters or counts. It is what limits are
//! compared with, and lives here: the product has no switch that turns them off.

use std::future;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use futures::channel::oneshot;
use hive_functions::BoxBody;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    AsContextMut, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{Prepared, ProxyPre};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView, p2,
    p3,
};

/// As in the runtime of agents.
const SLOTS: u32 = 1000;

#[derive(Clone)]
pub struct Bare(Arc<Prelinked>);

struct Prelinked {
    engine: Engine,
    proxy: ProxyPre<Host>,
}

pub struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Closed,
}

/// Nothing that is measured asks anybody.
struct Closed;

type Sent = Result<
    (
        Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttpHooks for Closed {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

impl Bare {
    pub fn load(component: &[u8]) -> anyhow::Result<Self> {
        Self::prepare(component).map_err(|error| anyhow!("{error:#}"))
    }

    fn prepare(component: &[u8]) -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(SLOTS)
            .total_memories(SLOTS)
            .total_core_instances(10 * SLOTS)
            .total_tables(4 * SLOTS)
            .total_stacks(2 * SLOTS)
            .table_elements(100_000);
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .wasm_component_model_async(true)
            .concurrency_support(true)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        p2::add_only_http_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        p3::add_to_linker(&mut linker)?;
        let instance = linker.instantiate_pre(&Component::new(&engine, component)?)?;
        let proxy = match p3::bindings::ServicePre::new(instance.clone()) {
            Ok(service) => ProxyPre::P3(service),
            Err(_) => ProxyPre::P2(p2::bindings::ProxyPre::new(instance)?),
        };
        Ok(Self(Arc::new(Prelinked { engine, proxy })))
    }

    pub async fn handle(&self, request: Request<BoxBody>) -> anyhow::Result<Response<BoxBody>> {
        let request = request.map(|body| {
            body.map_err(|error| Error::InternalError(Some(error.to_string())))
                .boxed_unsync()
        });
        let (head, answered) = oneshot::channel();
        let bare = self.clone();
        let task: JoinHandle<wasmtime::Result<()>> = tokio::spawn(async move {
            let host = Host {
                wasi: WasiCtx::builder().build(),
                http: WasiHttpCtx::new(),
                table: ResourceTable::new(),
                hooks: Closed,
            };
            let mut store = Store::new(&bare.0.engine, host);
            let proxy = bare.0.proxy.instantiate_async(&mut store).await?;
            let prepared =
                Prepared::new(store.as_context_mut(), &proxy, request, Host::http, head)?;
            store
                .run_concurrent(async |accessor| {
                    prepared.run(accessor, future::pending()).await?;
                    future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    wasmtime::Result::Ok(())
                })
                .await?
        });
        match answered.await {
            Ok(Ok(response)) => Ok(response.map(|body| BoxBody::new(body.map_err(Into::into)))),
            Ok(Err(error)) => Err(anyhow!("{error:#}")),
            Err(oneshot::Canceled) => match task.await? {
                Ok(()) => bail!("no response"),
                Err(error) => Err(anyhow!("{error:#}")),
            },
        }
    }
}
