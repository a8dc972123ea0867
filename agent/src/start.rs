//! The agent as a process: its threads, its log, its signals.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::AgentArgs;
use crate::os;
use crate::run::Agent;

/// Functions run on the worker threads, so there is one for each core: less would leave a machine
/// idle that its node offers. An idle thread costs some 20 KB.
const MOST_WORKERS: usize = 16;

/// Disk syncs, hashing, loading. More at once would only fight over one disk.
const BLOCKING_THREADS: usize = 8;

/// Polls between two looks at sockets and timers. A guest's turn takes up to 5 ms; at Tokio's own 61
/// a machine busy with guests would answer its links every 300 ms.
const POLLS_PER_LOOK: u32 = 8;

/// Runs the agent until it is told to stop, and then with the exit code of the process.
pub fn start(args: AgentArgs) -> ExitCode {
    os::raise_open_files();
    match start_logging(&args.log).and_then(|()| runtime()?.block_on(run_until_signal(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the agent until `stop`.
pub async fn run(args: AgentArgs, stop: impl Future<Output = ()>) -> Result<()> {
    let config = args.resolve()?;
    tokio::pin!(stop);
    let mut agent = tokio::select! {
        // Joining may wait for controllers for long.
        agent = Agent::start(config) => agent?,
        () = &mut stop => return Ok(()),
    };
    if let Some(address) = agent.local_address() {
        tracing::info!(%address, "serving functions locally");
    }
    let failure = tokio::select! {
        () = &mut stop => None,
        failure = agent.failed() => Some(failure),
    };
    tracing::info!("stopping");
    agent.stop().await;
    failure.map_or(Ok(()), Err)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_WORKERS))
        .max_blocking_threads(BLOCKING_THREADS)
        .event_interval(POLLS_PER_LOOK)
        .thread_name("hive-agent")
        .enable_all()
        .build()
        .context("cannot start threads")
}

async fn run_until_signal(args: AgentArgs) -> Result<()> {
    let signal = signalled()?;
    run(args, signal).await
}

/// Set up at once: a signal that comes early must not be lost.
#[cfg(unix)]
fn signalled() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn signalled() -> Result<impl Future<Output = ()>> {
    Ok(async {
        // Without signals to wait for there is only the window's close button.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn start_logging(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?}"))?;
    // Whoever embeds the agent may log already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
    Ok(())
}
