//! `hivectl`, the command line of a swarm: everything is in the library, which `hive ctl` shares.

use std::process::ExitCode;

fn main() -> ExitCode {
    hive_cli::main_from(std::env::args_os())
}
