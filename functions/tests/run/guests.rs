//! Guests to test with, and what it takes to run one.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hive_functions::{
    BoxBody, Compiler, EgressLimits, Function, FunctionOptions, HostServices, Instances, Limits,
    LogRecord, LogSink, LogStream, Reuse, Runtime, RuntimeOptions, VerifiedArtifact, host_target,
};
use http_body_util::{BodyExt, Empty};
use sha2::{Digest, Sha256};

pub const RUST_0_2: &[u8] = include_bytes!("../fixtures/rust-hello-p2.wasm");
pub const JAVASCRIPT_0_3: &[u8] = include_bytes!("../fixtures/js-hello-p3.wasm");

/// A guest of WASI 0.2 with these core functions; see `guest-0-2.wat`.
pub fn guest(main: &str) -> Vec<u8> {
    guest_with_memory(1, main)
}

pub fn guest_with_memory(pages: u32, main: &str) -> Vec<u8> {
    component(include_str!("guest-0-2.wat"), pages, main)
}

/// The same, with instances of other modules in its component.
pub fn handler_beside(modules: &str, body: &str) -> Vec<u8> {
    let text = include_str!("guest-0-2.wat").trim_end();
    let open = text.strip_suffix(')').unwrap();
    let main = format!(r#"(func (export "handle") (param $request i32) (param $out i32) {body})"#);
    component(&format!("{open} {modules})"), 1, &main)
}

/// A guest of WASI 0.3 with these core functions; see `guest-0-3.wat`.
pub fn guest_0_3(main: &str) -> Vec<u8> {
    component(include_str!("guest-0-3.wat"), 1, main)
}

/// A guest of WASI 0.3 that takes several requests at once; see `guest-shared.wat`.
pub fn shared_guest(turn: &str) -> Vec<u8> {
    let text = include_str!("guest-shared.wat")
        .replace("ERROR-CODE\n", include_str!("error-code.wat"))
        .replace("TURN)", &format!("{turn})"));
    wat::parse_str(text).unwrap()
}

/// A guest of WASI 0.3 whose `handle` does this.
pub fn handler_0_3(body: &str) -> Vec<u8> {
    guest_0_3(&format!(
        r#"(func (export "handle") (param $request i32) (result i32) {body})"#
    ))
}

/// Guests of either WASI that have these core functions, and answer nothing.
pub fn silent(functions: &str) -> [Vec<u8>; 2] {
    [
        guest(&format!(
            r#"{functions} (func (export "handle") (param i32 i32))"#
        )),
        guest_0_3(&format!(
            r#"{functions} (func (export "handle") (param i32) (result i32) unreachable)"#
        )),
    ]
}

fn component(text: &str, pages: u32, main: &str) -> Vec<u8> {
    let text = text
        .replace("ERROR-CODE\n", include_str!("error-code.wat"))
        .replace("MAIN)", &format!("{main})"))
        .replace("PAGES)", &format!("{pages})"));
    wat::parse_str(text).unwrap()
}

/// `handle` that does this, with its two parameters in scope.
pub fn handler(body: &str) -> Vec<u8> {
    guest(&format!(
        r#"(func (export "handle") (param $request i32) (param $out i32) {body})"#
    ))
}

pub fn looping() -> Vec<u8> {
    handler("(loop (br 0))")
}

/// One runtime for every test that needs no other: the pool is large.
pub static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::start(RuntimeOptions::default()).unwrap());

/// Everything a function has logged.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<LogRecord>>>);

impl Logs {
    pub fn sink(&self) -> LogSink {
        let records = self.0.clone();
        Arc::new(move |record| records.lock().unwrap().push(record))
    }

    pub fn of(&self, stream: LogStream) -> Vec<String> {
        self.records()
            .into_iter()
            .filter(|record| record.stream == stream)
            .map(|record| record.text)
            .collect()
    }

    pub fn records(&self) -> Vec<LogRecord> {
        self.0.lock().unwrap().clone()
    }
}

/// A timeout that a test waits for. A machine that is held up for seconds has begun the guest by then all the same, and
/// has had what it answers at once.
pub const TIMEOUT: Duration = Duration::from_secs(4);

/// Beyond what anything here waits or computes on however busy a machine: who means a limit sets it.
const UNREACHED: Duration = Duration::from_secs(300);

pub fn limits() -> Limits {
    Limits {
        memory_bytes: 64 << 20,
        timeout: UNREACHED,
        concurrency: 100,
        queue: UNREACHED,
        cpu_time: UNREACHED,
        response_bytes: Limits::RESPONSE_BYTES,
        handles: Limits::HANDLES,
    }
}

pub fn options(limits: Limits, logs: &Logs) -> FunctionOptions {
    FunctionOptions {
        name: "default/test".to_owned(),
        limits,
        env: Vec::new(),
        allowed_hosts: Vec::new(),
        egress: EgressLimits::default(),
        services: HostServices::default(),
        // Whichever WASI it is of: what is left of a request is another test's to see.
        instances: Instances {
            reuse: Some(Reuse::Fresh),
            ..Instances::default()
        },
        logs: logs.sink(),
        meter: Arc::default(),
    }
}

/// `bytes` on disk as an agent has them. The directory must outlive what is loaded from it.
pub fn verified(bytes: &[u8]) -> (tempfile::TempDir, VerifiedArtifact) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("artifact");
    std::fs::write(&path, bytes).unwrap();
    let artifact = VerifiedArtifact::verify(&path, &Sha256::digest(bytes).into()).unwrap();
    (directory, artifact)
}

pub fn compiled(component: &[u8]) -> Vec<u8> {
    Compiler::new(host_target())
        .unwrap()
        .compile(component)
        .unwrap()
}

pub struct Loaded {
    pub function: Function,
    pub logs: Logs,
    /// Of its file.
    pub directory: tempfile::TempDir,
}

pub fn load(component: &[u8], limits: Limits) -> Loaded {
    load_with(component, |logs| options(limits, logs))
}

pub fn load_with(component: &[u8], options: impl FnOnce(&Logs) -> FunctionOptions) -> Loaded {
    load_compiled(&compiled(component), options)
}

pub fn load_compiled(code: &[u8], options: impl FnOnce(&Logs) -> FunctionOptions) -> Loaded {
    load_on(&RUNTIME, code, options)
}

/// In a runtime of its own, with the usual options but for what `change` does.
pub fn load_compiled_on(
    runtime: &Runtime,
    code: &[u8],
    change: impl FnOnce(&mut FunctionOptions),
) -> Loaded {
    load_on(runtime, code, |logs| {
        let mut options = options(limits(), logs);
        change(&mut options);
        options
    })
}

fn load_on(
    runtime: &Runtime,
    code: &[u8],
    options: impl FnOnce(&Logs) -> FunctionOptions,
) -> Loaded {
    let (directory, artifact) = verified(code);
    let logs = Logs::default();
    let function = runtime.load(&artifact, options(&logs)).unwrap();
    Loaded {
        function,
        logs,
        directory,
    }
}

pub fn get() -> http::Request<BoxBody> {
    get_of("/path?query")
}

pub fn get_of(target: &str) -> http::Request<BoxBody> {
    http::Request::get(format!("http://test.local{target}"))
        .header("x-request-id", "request-1")
        .body(BoxBody::new(
            Empty::<Bytes>::new().map_err(|never| match never {}),
        ))
        .unwrap()
}

/// Waits until `condition` holds; fails when it never does.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
