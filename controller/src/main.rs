//! The binary `hive-controller`.

use std::process::ExitCode;

use clap::Parser;
use hive_controller::config::ControllerCommand;

fn main() -> ExitCode {
    hive_controller::command::start(ControllerCommand::parse())
}
