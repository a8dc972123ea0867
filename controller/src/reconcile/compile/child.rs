//! The process that compiles one component, and ends.
//!
//! Two file names and a target come in by its arguments, one line of JSON goes out. Components are
//! anybody's: what one makes the compiler do ends with this process. It never reads the swarm's state or keys.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use hive_functions::{CompileError, Compiler};
use hive_manifests::function::MAX_COMPILED_BYTES;
use serde::{Deserialize, Serialize};

/// Heartbeats and requests come first; on a machine that is busy with other things it still gets a third of
/// what each of those has.
const NICE: i32 = 5;

#[derive(Debug, Args)]
pub struct CompileWorkerArgs {
    #[arg(long)]
    pub target: String,
    #[arg(long)]
    pub source: PathBuf,
    #[arg(long)]
    pub output: PathBuf,
    /// Bytes that may be mapped: what grows faster than the controller looks ends here
    #[arg(long)]
    pub address_space: u64,
    /// Seconds that its threads may compute, together
    #[arg(long)]
    pub processor_seconds: u64,
}

/// What the process says, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is in the output file.
    Compiled,
    /// The component is at fault.
    Refused(String),
    /// Something else is.
    Hindered(String),
}

/// Compiles and answers.
pub fn work(args: &CompileWorkerArgs) -> ExitCode {
    stand_back(args);
    end_with_the_controller();
    let answer = compile(args);
    let line = serde_json::to_string(&answer).expect("an answer is JSON");
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What the system refuses of this is done without: the controller watches besides.
fn stand_back(args: &CompileWorkerArgs) {
    let _ = rustix::process::nice(NICE);
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        // Where memory runs out, the kernel takes this process first, and never the controller.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        for (resource, most) in [
            (Resource::As, args.address_space),
            (Resource::Cpu, args.processor_seconds),
            (Resource::Core, 0),
        ] {
            let limit = Rlimit {
                current: Some(most),
                // Of processor time the lower limit has a signal of its own, by which it is told.
                maximum: Some(most.saturating_add(5)),
            };
            let _ = setrlimit(resource, limit);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = args;
}

/// The controller holds the other end of standard input for as long as it wants a result. Not the signal
/// that Linux has for this: that one comes already when the thread ends that began the process.
fn end_with_the_controller() {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

fn compile(args: &CompileWorkerArgs) -> Answer {
    let component = match std::fs::read(&args.source) {
        Ok(component) => component,
        Err(error) => {
            return Answer::Hindered(format!("cannot read {}: {error}", args.source.display()));
        }
    };
    let compiled = match Compiler::new(&args.target).and_then(|c| c.compile(&component)) {
        Ok(compiled) => compiled,
        Err(
            error @ (CompileError::Target(_)
            | CompileError::Engine { .. }
            | CompileError::Component { .. }),
        ) => return Answer::Refused(error.to_string()),
    };
    let size = compiled.len() as u64;
    if size > MAX_COMPILED_BYTES {
        return Answer::Refused(format!(
            "compiled for {}, it has {size} bytes: {MAX_COMPILED_BYTES} are the most",
            args.target
        ));
    }
    match std::fs::write(&args.output, compiled) {
        Ok(()) => Answer::Compiled,
        Err(error) => Answer::Hindered(format!("cannot write {}: {error}", args.output.display())),
    }
}
