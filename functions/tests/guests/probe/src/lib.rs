//! A function whose behaviour its caller chooses: the path names it, the query says how much.
//!
//! Requests of the tests come in, each to one of the paths in `behaviour`; README.md lists them. It
//! must misbehave only where its path says so, or a test would blame the runtime for it.

mod batch;
mod behaviour;
mod busy;
mod egress;
mod files;
mod handles;
mod network;
mod query;
mod reply;

use std::{
    env,
    hint::black_box,
    io::{self, Read, Write},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{IncomingRequest, Method, ResponseOutparam},
};

use crate::{behaviour::Behaviour, reply::Reply};

/// What one write of a body carries.
const CHUNK: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;
/// A WebAssembly page is 64 KiB, but native memory is backed by pages of this size.
const HOST_PAGE: usize = 4096;

struct Probe;

wasip2::http::proxy::export!(Probe);

impl Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let reply = Reply::to(out);
        let answered = match Behaviour::of(&target) {
            Ok(behaviour) => show(behaviour, &request, reply),
            Err(bad) => reply.text(400, &format!("{bad}\n")),
        };
        if let Err(error) = answered {
            eprintln!("the answer to {target} did not arrive: {error}");
        }
    }
}

/// Fails when the caller has gone away.
fn show(behaviour: Behaviour, request: &IncomingRequest, reply: Reply) -> io::Result<()> {
    match behaviour {
        Behaviour::Hello => reply.text(200, "hello\n"),
        Behaviour::Echo => echo(request, reply),
        Behaviour::Environment => reply.text(200, &environment()),
        Behaviour::Count => reply.text(200, &format!("{}\n", count())),
        Behaviour::Status { code } => reply.text(code, &format!("status {code}\n")),
        Behaviour::Silent => Ok(()),
        Behaviour::Error { text } => {
            reply.error(text);
            Ok(())
        }
        Behaviour::Exit { code } => process::exit(code.into()),
        Behaviour::Trap => trap(),
        Behaviour::Cut => cut(reply),
        Behaviour::Log { lines, text } => {
            log(lines, &text);
            reply.text(200, &format!("logged {lines} lines\n"))
        }
        Behaviour::Stream { chunks, pause } => stream(reply, chunks, pause),
        Behaviour::Slow { pause } => {
            thread::sleep(pause);
            reply.text(200, &format!("slept {} ms\n", pause.as_millis()))
        }
        Behaviour::Large { kib, declared } => large(reply, kib, declared),
        Behaviour::Batch { fail } => {
            let batch = read(request)?;
            reply.json(&batch::taken(&batch, fail))
        }
        Behaviour::Stdin => reply.outcome(stdin()),

        Behaviour::Spin => busy::spin(),
        Behaviour::Busy { time } => {
            busy::for_time(time);
            reply.text(200, &format!("computed for {} ms\n", time.as_millis()))
        }
        Behaviour::After { time } => {
            reply.text(200, "answered\n")?;
            match time {
                Some(time) => busy::for_time(time),
                None => busy::spin(),
            }
            Ok(())
        }
        Behaviour::Compute { turns } => reply.text(200, &format!("{:x}\n", busy::compute(turns))),
        Behaviour::Poll { time } => {
            reply.text(200, &format!("polled {} times\n", busy::poll(time)))
        }
        Behaviour::Recurse => reply.text(200, &format!("{}\n", busy::recurse(0))),

        Behaviour::Memory { mib } => {
            touch(mib);
            reply.text(200, &format!("touched {mib} MiB\n"))
        }
        Behaviour::Grow => reply.text(200, &format!("grew by {} pages\n", grow())),
        Behaviour::Handles { kind, count } => reply.outcome(handles::hold(kind, count)),
        Behaviour::Headers { kib } => reply.outcome(handles::headers(kib)),
        Behaviour::Argument { kib } => reply.outcome(handles::argument(kib)),
        Behaviour::Random { bytes } => reply.text(200, &(handles::random(bytes) + "\n")),

        Behaviour::Egress(asked) => reply.text(200, &sent(egress::get(&asked))),
        Behaviour::Follow(asked) => reply.text(200, &sent(egress::follow(asked))),
        Behaviour::Many { asked, count } => reply.text(200, &egress::many(&asked, count)),
        Behaviour::Files(deed) => reply.outcome(deed.done()),
        Behaviour::Steps(deeds) => reply.text(200, &files::all(deeds)),
        Behaviour::Network(deed) => reply.outcome(deed.done()),
        Behaviour::Unknown { path } => reply.text(404, &format!("no behaviour at {path}\n")),
    }
}

fn sent(outcome: Result<String, String>) -> String {
    outcome.unwrap_or_else(|error| format!("error {error}\n"))
}

/// The request's body as it came, its headers with `echo-` before their names.
fn echo(request: &IncomingRequest, reply: Reply) -> io::Result<()> {
    let mut headers = vec![
        ("echo-method".to_owned(), method(request).into_bytes()),
        (
            "echo-path".to_owned(),
            request.path_with_query().unwrap_or_default().into_bytes(),
        ),
    ];
    for (name, value) in request.headers().entries() {
        headers.push((format!("echo-{name}"), value));
    }
    let body = request.consume().expect("the body was not taken before");
    let mut from = body.stream().expect("nor was its stream");
    let mut to = reply.start(200, &headers);
    let mut chunk = [0; CHUNK];
    loop {
        // Named in full: the stream has a method of WASI with this name.
        match Read::read(&mut from, &mut chunk)? {
            0 => return to.finish(),
            length => to.write_all(&chunk[..length])?,
        }
        to.flush()?;
    }
}

fn method(request: &IncomingRequest) -> String {
    match request.method() {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    }
    .to_owned()
}

fn environment() -> String {
    let mut lines: Vec<_> = env::vars()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    lines.sort();
    lines.concat()
}

/// How many requests this instance has counted: 1 always, where each gets an instance of its own.
fn count() -> u64 {
    static COUNTED: AtomicU64 = AtomicU64::new(0);
    COUNTED.fetch_add(1, Ordering::Relaxed) + 1
}

/// By its name, which a backtrace shows.
#[inline(never)]
fn trap() -> ! {
    panic!("asked to trap")
}

/// Allocates and writes to each page, so that the memory is used and not only reserved.
fn touch(mib: usize) {
    let mut held = Vec::new();
    for _ in 0..mib {
        let mut block = Vec::with_capacity(MIB);
        block.resize(MIB, 0u8);
        for byte in block.iter_mut().step_by(HOST_PAGE) {
            *byte = 1;
        }
        held.push(black_box(block));
    }
}

/// Traps in the middle of a body.
fn cut(reply: Reply) -> io::Result<()> {
    let mut body = reply.start(200, &[]);
    body.write_all(b"the first half\n")?;
    body.flush()?;
    panic!("asked to trap within the body");
}

fn log(lines: u64, text: &str) {
    for line in 0..lines {
        println!("{text} {line} to stdout");
        eprintln!("{text} {line} to stderr");
    }
}

fn stream(reply: Reply, chunks: u64, pause: Duration) -> io::Result<()> {
    let mut body = reply.start(200, &[]);
    for chunk in 0..chunks {
        if chunk > 0 && !pause.is_zero() {
            thread::sleep(pause);
        }
        writeln!(body, "chunk {chunk}")?;
        body.flush()?;
    }
    body.finish()
}

/// The body of a request, whole.
fn read(request: &IncomingRequest) -> io::Result<String> {
    let body = request.consume().expect("the body was not taken before");
    let mut from = body.stream().expect("nor was its stream");
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn stdin() -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = io::stdin().read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    Ok(format!("read {} bytes", bytes.len()))
}

/// Grows its memory page by page until it gets no more.
fn grow() -> usize {
    let mut pages = 0;
    while core::arch::wasm32::memory_grow(0, 1) != usize::MAX {
        pages += 1;
    }
    pages
}

/// A body of lines of the alphabet, of exactly `kib` KiB, whatever its head declares.
fn large(reply: Reply, kib: u64, declared: Option<u64>) -> io::Result<()> {
    const LINE: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz01234\n";
    let block = LINE.repeat(1024 / LINE.len());
    let length = declared.map(|bytes| ("content-length".to_owned(), bytes.to_string().into()));
    let mut body = reply.start(200, &Vec::from_iter(length));
    for _ in 0..kib {
        body.write_all(&block)?;
    }
    body.finish()
}
