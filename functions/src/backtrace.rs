//! Where in a guest it went wrong, in names that people know.
//!
//! wasmtime's backtrace comes in, lines for the log and a few words for an Event go out. The names are
//! the component's own: what was stripped of them has numbers. It must not grow with what a guest
//! calls itself.

use wasmtime::{FrameInfo, WasmBacktrace};

/// Frames of one backtrace, the innermost first: a panic in Rust has some eight of its own.
pub(crate) const FRAMES: usize = 32;

/// Of one name; those of generic code can be of any length.
const NAME_BYTES: usize = 200;

/// Frames that an Event tells.
const FRAMES_TOLD: usize = 3;

/// How names of functions begin that allocate, or stop a program, for another: the one to look at.
const PLUMBING: [&str; 15] = [
    "abort",
    "_abort",
    "__rust",
    "__rustc",
    "rust_panic",
    "rust_begin_unwind",
    "alloc::alloc::",
    "alloc::raw_vec::",
    "core::panicking::",
    "core::option::",
    "core::result::unwrap_failed",
    "std::alloc::",
    "std::panicking::",
    "std::process::",
    "std::sys::",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backtrace(Vec<Frame>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    module: Option<String>,
    function: String,
}

impl Backtrace {
    /// None where nothing of the guest was running.
    pub(crate) fn of(error: &wasmtime::Error) -> Option<Self> {
        let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
        (!frames.is_empty()).then(|| Self(frames.iter().map(Frame::of).collect()))
    }

    /// A line for each frame.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|frame| match &frame.module {
            Some(module) => format!("    at {module}!{}", frame.function),
            None => format!("    at {}", frame.function),
        })
    }

    /// The innermost functions that are the program's own: `parse < handle < main`.
    pub(crate) fn place(&self) -> String {
        let all = || self.0.iter().map(|frame| frame.function.as_str());
        let is_own = |name: &&str| !PLUMBING.iter().any(|start| name.starts_with(start));
        let mut told: Vec<&str> = all().filter(is_own).take(FRAMES_TOLD).collect();
        if told.is_empty() {
            told = all().take(FRAMES_TOLD).collect();
        }
        told.join(" < ")
    }
}

impl Frame {
    fn of(frame: &FrameInfo) -> Self {
        Self {
            module: frame.module().name().map(|name| cut(name.to_owned())),
            function: match frame.func_name() {
                Some(name) => cut(readable(name)),
                None => format!("wasm function {}", frame.func_index()),
            },
        }
    }
}

/// As it stands in the source, without Rust's hashes. Names of other languages stay as they are.
fn readable(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        Ok(name) => format!("{name:#}"),
        Err(_) => name.to_owned(),
    }
}

fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(NAME_BYTES));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backtrace(functions: &[&str]) -> Backtrace {
        let frame = |name: &&str| Frame {
            module: Some("app".to_owned()),
            function: cut(readable(name)),
        };
        Backtrace(functions.iter().map(frame).collect())
    }

    #[test]
    fn the_program_s_own_functions_are_told() {
        let panic = [
            "abort",
            "_ZN3std7process5abort17h0123456789abcdefE",
            "rust_begin_unwind",
            "core::panicking::panic_fmt",
            "_ZN3app5parse17h0123456789abcdefE",
            "app::handle",
            "main",
            "start",
        ];
        assert_eq!(backtrace(&panic).place(), "app::parse < app::handle < main");
        assert_eq!(backtrace(&["abort"]).place(), "abort");
        let lines: Vec<_> = backtrace(&panic).lines().skip(4).take(1).collect();
        assert_eq!(lines, ["    at app!app::parse"]);
    }

    #[test]
    fn long_names_are_cut() {
        let name = "ä".repeat(NAME_BYTES);
        let place = backtrace(&[&name]).place();
        assert_eq!(place.len(), NAME_BYTES);
    }
}
