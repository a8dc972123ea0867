//! The agent's own binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use hive_agent::AgentArgs;

/// Runs what a Hive swarm wants of this machine.
#[derive(Parser)]
#[command(name = "hive-agent", version)]
struct Command {
    #[command(flatten)]
    args: AgentArgs,
}

fn main() -> ExitCode {
    hive_agent::start(Command::parse().args)
}
