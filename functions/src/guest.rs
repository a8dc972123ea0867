//! The state of one instance, and what it can reach.
//!
//! A guest gets clocks, randomness, its environment, stdout and stderr, and HTTP through `egress`.
//! It must never get files, sockets or this process's own environment.

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::{
    egress::Egress,
    limits::memory::MemoryMeter,
    logs::{GuestOutput, LogStream},
};

/// Handles that a guest may hold at once (streams, headers, bodies): each costs the host up to some
/// hundred bytes, or the 128 KiB that wasmtime allows one set of headers.
const HANDLES: usize = 10_000;

pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    egress: Egress,
    pub(crate) memory: MemoryMeter,
}

impl Guest {
    pub(crate) fn new(env: &[(String, String)], egress: Egress, memory: MemoryMeter) -> Self {
        let output = |stream| GuestOutput::new(egress.log.clone(), stream);
        let wasi = WasiCtx::builder()
            .envs(env)
            .stdout(output(LogStream::Stdout))
            .stderr(output(LogStream::Stderr))
            // Refused already for want of an allowed address; said here so that it stays so.
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        Self {
            wasi,
            http: WasiHttpCtx::new(),
            table,
            egress,
            memory,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.egress,
        }
    }
}

/// Everything a guest may import, of both WASI versions. `inspect` refuses what is not here.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)
}
