//! hivectl: the command line of a swarm, with kubectl's words, flags and output.
//!
//! Arguments flow in; requests flow to whichever controller of the kubeconfig answers; text flows
//! out. It speaks the public API only, like any other client, and knows nothing of controllers'
//! or agents' insides.

pub mod age;
mod api_error;
mod arguments;
mod artifact;
mod cluster;
mod commands;
mod failure;
#[cfg(test)]
mod fuzz;
mod jsonpath;
mod kubeconfig;
mod manifest;
mod object;
mod oidc;
mod output;
mod progress;
mod selection;
mod selector;
mod session;
mod spin;
mod suggest;
mod table;
mod threeway;
mod tunnel;
mod watch;
mod world;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{FromArgMatches, Parser};

pub use arguments::command;
pub use failure::Failure;
pub use world::{Environment, World};

/// Runs one command with this process's streams and environment.
///
/// The first argument is the name hivectl was called by, as in `argv`.
pub fn main_from(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // One thread is enough: a command does one thing at a time and mostly waits.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the asynchronous runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut world = World::of_process();
    ExitCode::from(runtime.block_on(run(arguments, &mut world)))
}

/// Runs one command in `world` and returns its exit code: 0 success, 1 failure, 2 wrong usage
/// (`diff`: 1 when there are differences, more than 1 on failure).
pub async fn run(arguments: impl IntoIterator<Item = OsString>, world: &mut World) -> u8 {
    let parsed = command()
        .try_get_matches_from(arguments)
        .and_then(|matches| arguments::Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return print_usage(&error, world),
    };
    let mut session = session::Session::new(world, arguments.globals);
    match commands::run(arguments.command, &mut session).await {
        Ok(()) => 0,
        Err(failure) => failure.report(world),
    }
}

/// Applies one manifest, uploading the component that it names, and prints nothing: what
/// `hive up` does with its example.
pub async fn apply_file(kubeconfig: &Path, manifest: &Path) -> Result<(), Failure> {
    let arguments = [
        OsStr::new("hivectl"),
        OsStr::new("apply"),
        OsStr::new("--kubeconfig"),
        kubeconfig.as_os_str(),
        OsStr::new("--filename"),
        manifest.as_os_str(),
    ];
    let arguments = arguments::Arguments::try_parse_from(arguments).map_err(Failure::usage)?;
    let mut world = World {
        input: Box::new(io::empty()),
        out: Box::new(io::sink()),
        err: Box::new(io::sink()),
        out_colour: false,
        err_colour: false,
        interactive: false,
        environment: Environment::default(),
    };
    let mut session = session::Session::new(&mut world, arguments.globals);
    commands::run(arguments.command, &mut session).await
}

/// Help and version are what was asked for and go to stdout; a usage error goes to stderr.
fn print_usage(error: &clap::Error, world: &mut World) -> u8 {
    let rendered = error.render();
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let (stream, colour) = if asked {
        (&mut world.out, world.out_colour)
    } else {
        (&mut world.err, world.err_colour)
    };
    // A closed stream leaves nobody to tell.
    let _ = if colour {
        write!(stream, "{}", rendered.ansi())
    } else {
        write!(stream, "{rendered}")
    };
    let _ = stream.flush();
    u8::try_from(error.exit_code()).unwrap_or(2)
}
