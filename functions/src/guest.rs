//! The state of one instance, and what it can reach.
//!
//! A guest gets clocks, randomness, its environment, stdout and stderr, HTTP through `egress`, and
//! what `host` has for it.
//! It must never get sockets, this process's own environment, or files but those of its own directory.

use wasmtime::Store;
use wasmtime::component::{Linker, ResourceTable, ResourceTableError};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::{
    egress::Egress,
    host::{self, Directory, HostServices},
    limits::memory::MemoryMeter,
    logs::{GuestOutput, LogStream, RequestLog},
};

/// What the host keeps of one set of headers, at most. Twice what proxies let through; a handle
/// costs the host some hundred bytes, or this.
const HEADER_BYTES: usize = 64 << 10;

/// Random bytes asked for at once: the host has them in memory before the guest does.
const RANDOM_BYTES: u64 = 1 << 20;

/// What one call of the guest may hand to the host, which copies it: the largest that WASI lets it
/// write is 1 MiB, the rest is lists and headers.
const CALL_BYTES: usize = 8 << 20;

/// The host's entries for a handle of WASI 0.3: a stream or future has one for each end and one for
/// itself. The handles themselves are to run out first.
const ENTRIES_PER_HANDLE: usize = 4;

pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
    egress: Egress,
    outputs: [GuestOutput; 2],
    pub(crate) services: HostServices,
    /// Once it has asked for it.
    pub(crate) scratch: Option<Directory>,
    pub(crate) memory: MemoryMeter,
}

impl Guest {
    pub(crate) fn new(
        env: &[(String, String)],
        handles: u32,
        services: HostServices,
        egress: Egress,
        memory: MemoryMeter,
    ) -> Self {
        let output = |stream| GuestOutput::new(egress.log.clone(), stream);
        let [stdout, stderr] = [LogStream::Stdout, LogStream::Stderr].map(output);
        let wasi = WasiCtx::builder()
            .envs(env)
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(RANDOM_BYTES)
            // Refused already for want of an allowed address; said here so that it stays so.
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles as usize);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADER_BYTES);
        Self {
            wasi,
            http,
            table,
            egress,
            outputs: [stdout, stderr],
            services,
            scratch: None,
            memory,
        }
    }

    /// What it says and sends from now on is another request's.
    pub(crate) fn speaks_for(&mut self, log: RequestLog) {
        for output in &self.outputs {
            output.speaks_for(log.clone());
        }
        self.egress.speaks_for(log);
    }

    pub(crate) fn log(&self) -> &RequestLog {
        &self.egress.log
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

/// Bounds what the host holds for the guest besides its memory: wasmtime's own bounds are for guests
/// that have a machine to themselves.
pub(crate) fn bound(store: &mut Store<Guest>, handles: u32) {
    let handles = handles as usize;
    store.set_max_component_handles(handles);
    store.set_hostcall_fuel(CALL_BYTES);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(handles.saturating_mul(ENTRIES_PER_HANDLE));
    }
}

/// Whether a guest was stopped for holding more handles than it may.
pub(crate) fn is_out_of_handles(error: &wasmtime::Error) -> bool {
    // wasmtime has no type for the second; a test knows when its words change.
    matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    ) || error
        .root_cause()
        .to_string()
        .contains("handle limit exceeded")
}

/// Everything a guest may import, of both WASI versions. `inspect` refuses what is not here.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    host::link(linker)
}
