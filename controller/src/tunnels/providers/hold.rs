//! The process that becomes a provider's program, and ends with the controller that started it.
//!
//! A program that goes on without its controller would go on to take connections for it. Linux ends a process with
//! the thread that started it, if the process asks for that: so this one asks, and then becomes the program. Its
//! arguments are on the command line, for all to see; secrets are in its environment only.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

/// The subcommand that this is.
pub const SUBCOMMAND: &str = "hold";

#[derive(Debug, Args)]
pub struct HoldArgs {
    /// The process of the controller
    #[arg(long)]
    pub parent: u32,
    pub program: PathBuf,
    #[arg(last = true)]
    pub arguments: Vec<OsString>,
}

/// Returns only if the program cannot be run.
pub fn become_program(args: &HoldArgs) -> ExitCode {
    if !end_with(args.parent) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&args.program).args(&args.arguments).exec();
    eprintln!("cannot run {}: {error}", args.program.display());
    ExitCode::FAILURE
}

/// False if the controller has ended already.
fn end_with(parent: u32) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        // What the system refuses of this is done without: a controller that stops in order ends its children.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        // It may have ended before that was asked for.
        getppid().is_some_and(|id| id.as_raw_nonzero().get() as u32 == parent)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = parent;
        true
    }
}
