//! What a controller's command line does: sets the process up, runs the action, says how it ended.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Action, ControllerCommand, EncryptionAction};
use crate::reconcile::compile::child;
use crate::store::seal::keys;
use crate::store::{DiskSpeed, Verdict};
use crate::tunnels::providers::hold;
use crate::{encryption, leave, recover, restore, run, setup};

/// Runs one command to its end; the exit code of the process. `prefix` is what stands in front of the
/// command's words in this process's arguments, for the processes that it starts of the same program.
pub fn start(command: ControllerCommand, prefix: &'static [&'static str]) -> ExitCode {
    let log = match &command.action {
        // Without runtime and log: it is to be small, and says one line.
        Action::CompileWorker(args) => return child::work(args),
        // It becomes another program.
        Action::Hold(args) => return hold::become_program(args),
        Action::Run(args) => args.log.as_str(),
        // What they did is told by their output.
        Action::Init(_)
        | Action::Join(_)
        | Action::Leave(_)
        | Action::Recover(_)
        | Action::Restore(_)
        | Action::CheckDisk(_)
        | Action::Encryption(_) => "warn,openraft=error",
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
    let performed = runtime.block_on(async { tokio::spawn(perform(command, prefix)).await });
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

async fn perform(
    command: ControllerCommand,
    prefix: &'static [&'static str],
) -> anyhow::Result<()> {
    match command.action {
        Action::CompileWorker(_) | Action::Hold(_) => unreachable!("it needs no runtime"),
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
            tell_disk(made.disk);
            tell_keys(made.key_file.as_deref());
            Ok(())
        }
        Action::Join(args) => {
            let made = setup::join(&args).await?;
            println!("This machine is controller {}.", made.id);
            println!(
                "  start it:   hive controller run --data-dir {}",
                args.data.data_dir.display()
            );
            let dir = args.data.data_dir.clone();
            let speed = tokio::task::spawn_blocking(move || DiskSpeed::measure(&dir)).await??;
            tell_disk(Some(speed));
            tell_keys(made.key_file.as_deref());
            Ok(())
        }
        Action::Leave(args) => {
            let id = leave::leave(&args).await?;
            println!(
                "Controller {id} has left the swarm. Its data directory is of no use any more."
            );
            println!(
                "  remove it:  rm -r {}      (it holds the swarm's secrets)",
                args.data.data_dir.display()
            );
            Ok(())
        }
        Action::Recover(args) => {
            let done = recover::recover(&args).await?;
            let former: Vec<String> = done.former.iter().map(u64::to_string).collect();
            println!();
            println!(
                "This machine is controller {} of the swarm in epoch {}; those before ({}) are refused.",
                done.id,
                done.epoch,
                former.join(", ")
            );
            println!(
                "  start it:   hive controller run --data-dir {}",
                args.data.data_dir.display()
            );
            println!("  grow it:    hivectl token create --kind controller-join");
            println!(
                "  later:      rm -r {}      (the state from before)",
                done.kept.display()
            );
            Ok(())
        }
        Action::Restore(args) => {
            let dir = args.data.data_dir.clone();
            let made = tokio::task::spawn_blocking(move || restore::restore(&args)).await??;
            println!("Restored {}.", made.header);
            println!(
                "This machine is its only controller, number {}, in epoch {}. Nodes find it if it listens where \
                 a controller did before (link address {}).",
                made.id, made.epoch, made.member.link
            );
            if made.missing > 0 {
                println!(
                    "{} artifacts are not in the backup: functions go on where they run, and need `hivectl apply` \
                     again to start elsewhere.",
                    made.missing
                );
            }
            println!(
                "  start it:   hive controller run --data-dir {}",
                dir.display()
            );
            println!(
                "  use it:     export KUBECONFIG={}",
                made.kubeconfig.display()
            );
            println!("  grow it:    hivectl token create --kind controller-join");
            tell_keys(made.key_file.as_deref());
            Ok(())
        }
        Action::Encryption(EncryptionAction::Status(args)) => {
            println!("{}", encryption::status(&args)?);
            Ok(())
        }
        Action::Encryption(EncryptionAction::GenerateKey(args)) => {
            match args.first_in {
                None => println!("{}", keys::generate_line()),
                Some(file) => {
                    let key = keys::put_fresh_key_first(&file)?;
                    println!("Key {key} is the first in {}.", file.display());
                }
            }
            Ok(())
        }
        Action::CheckDisk(args) => {
            let speed =
                tokio::task::spawn_blocking(move || DiskSpeed::measure(&args.dir)).await??;
            println!("{speed}");
            match speed.verdict() {
                Verdict::Good | Verdict::Slow => Ok(()),
                Verdict::TooSlow => anyhow::bail!("this disk will not do"),
            }
        }
        Action::Run(args) => {
            let cancel = CancellationToken::new();
            tokio::spawn(cancel_on_signal(cancel.clone())?);
            run::run(&args, prefix, cancel).await
        }
    }
}

/// Where the keys of the disk are, and what they are worth.
fn tell_keys(file: Option<&Path>) {
    match file {
        Some(file) => println!(
            "  its key:    {} (without it this controller cannot read its data directory: whoever copies one must not get the other)",
            file.display()
        ),
        None => println!("  its key:    none: the swarm's secrets stand on this disk as they are"),
    }
}

/// What was measured of the disk, and what follows.
fn tell_disk(speed: Option<DiskSpeed>) {
    let Some(speed) = speed else { return };
    println!("  the disk:   {speed}.");
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
