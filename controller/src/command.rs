//! What a controller's command line does: sets the process up, runs the action, says how it ended.

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Action, ControllerCommand};
use crate::{run, setup};

/// Runs one command to its end; the exit code of the process.
pub fn start(command: ControllerCommand) -> ExitCode {
    let log = match &command.action {
        Action::Run(args) => args.log.as_str(),
        // What they did is told by their output.
        Action::Init(_) | Action::Join(_) => "warn,openraft=error",
    };
    if let Err(error) = log_to_stderr(log) {
        eprintln!("error: --log {log:?}: {error}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // On a worker: the first thread would be woken from outside for each change it waits on.
    let performed = runtime.block_on(async { tokio::spawn(perform(command)).await });
    match performed.unwrap_or_else(|panic| Err(panic.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

async fn perform(command: ControllerCommand) -> anyhow::Result<()> {
    match command.action {
        Action::Init(args) => {
            let made = setup::init(&args).await?;
            println!(
                "Swarm {:?} is made; this machine is its first controller.",
                made.cluster
            );
            println!(
                "  start it:   hive controller run --data-dir {}",
                args.data.data_dir.display()
            );
            println!(
                "  use it:     export KUBECONFIG={}",
                made.kubeconfig.display()
            );
            println!(
                "  grow it:    hivectl token create --kind controller-join   (link address {})",
                made.member.link
            );
            Ok(())
        }
        Action::Join(args) => {
            let id = setup::join(&args).await?;
            println!("This machine is controller {id}.");
            println!(
                "  start it:   hive controller run --data-dir {}",
                args.data.data_dir.display()
            );
            Ok(())
        }
        Action::Run(args) => {
            let cancel = CancellationToken::new();
            tokio::spawn(cancel_on_signal(cancel.clone())?);
            run::run(&args, cancel).await
        }
    }
}

/// The first SIGINT or SIGTERM stops cleanly, a second one at once.
fn cancel_on_signal(cancel: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        for last in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if last {
                std::process::exit(130);
            }
            tracing::info!("stopping");
            cancel.cancel();
        }
    })
}
