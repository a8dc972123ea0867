//! The binary `hive-controller`.

use std::process::ExitCode;

use clap::Parser;
use hive_controller::config::ControllerCommand;

/// A write is many small allocations, some of them freed by other threads: with this allocator a controller
/// writes up to a quarter more (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hive_controller::command::start(ControllerCommand::parse(), &[])
}
