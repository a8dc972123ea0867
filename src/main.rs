//! The binary `hive`: everything in one file. Invoked as `hivectl` it is hivectl.

mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A write is many small allocations, some of them freed by other threads: with this allocator a controller
/// writes up to a quarter more (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One server swarm of the machines you already own
#[derive(Debug, Parser)]
#[command(name = "hive", version, arg_required_else_help = true)]
struct Hive {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Down(up::DownArgs),
    /// Make or run a controller
    Controller(hive_controller::config::ControllerCommand),
    /// Run a node's agent
    Agent(hive_agent::AgentArgs),
    /// Use a swarm: the same as hivectl
    #[command(disable_help_flag = true)]
    Ctl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print a completion script for a shell
    Completion {
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let invoked_as = arguments.next().unwrap_or_default();
    if Path::new(&invoked_as)
        .file_stem()
        .is_some_and(|name| name == "hivectl")
    {
        return hive_cli::main_from(std::iter::once(invoked_as).chain(arguments));
    }
    match Hive::parse().command {
        Command::Up(args) => run(up::up(args)),
        Command::Down(args) => run(up::down(args)),
        Command::Controller(command) => hive_controller::command::start(command, &["controller"]),
        Command::Agent(args) => hive_agent::start(args),
        Command::Ctl { arguments } => {
            hive_cli::main_from(std::iter::once(OsString::from("hivectl")).chain(arguments))
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Hive::command(), "hive", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Hive::command().debug_assert();
    }
}
