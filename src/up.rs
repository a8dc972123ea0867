//! `hive up`: a whole swarm on this machine, each member a process of this program.

mod example;
mod layout;
mod member;
mod progress;
mod record;
mod start;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use layout::{Layout, MAX_AGENTS, MAX_BASE_PORT, MAX_CONTROLLERS};
use member::Member;
use record::Shape;

/// Start a swarm on this machine: controllers, agents, and a function to try
///
/// The first time this makes a swarm in the data directory; later it resumes it.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    data: DataDir,
    /// Controllers to start [default: 3, or as many as the swarm was made with]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_CONTROLLERS)))]
    controllers: Option<u8>,
    /// Agents to start [default: 3, or as many as the swarm was made with]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_AGENTS)))]
    agents: Option<u8>,
    /// First of the 100 ports that the swarm may use; the ingress listens there [default: 8080]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=i64::from(MAX_BASE_PORT)))]
    base_port: Option<u16>,
    /// Return as soon as everything is ready; `hive down` stops it
    #[arg(long)]
    detach: bool,
    /// Don't deploy the example function
    #[arg(long)]
    no_example: bool,
}

/// Stop the swarm that `hive up` started on this machine
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    data: DataDir,
}

#[derive(Debug, Args)]
struct DataDir {
    /// Where the swarm keeps everything
    #[arg(long, env = "HIVE_UP_DATA_DIR", default_value_os_t = default_data_dir())]
    data_dir: PathBuf,
}

fn default_data_dir() -> PathBuf {
    hive_controller::config::data_home().join("hive/up")
}

pub async fn up(args: UpArgs) -> anyhow::Result<()> {
    let data_dir = std::path::absolute(&args.data.data_dir)?;
    // Held until this process ends: two at once would start the same members.
    let lock = record::lock(&data_dir)?;
    let running = record::load_processes(&data_dir)?;
    if let Some(process) = running.first() {
        bail!(
            "the swarm in {} is running already ({} is process {}): `hive down{}` stops it",
            data_dir.display(),
            process.name,
            process.pid,
            data_dir_flag(&data_dir),
        );
    }
    if lock.is_none() {
        bail!(
            "another `hive up` is at work in {}: wait for it, or stop it",
            data_dir.display()
        );
    }
    let (shape, known) = shape(&args, &data_dir)?;
    let layout = Layout::new(&data_dir, shape.controllers, shape.agents, shape.base_port);
    start::check_ports(&layout)?;
    if !known {
        record::save_shape(&layout, shape)?;
    }
    let mut members = Members::new(data_dir);
    let mut stop = StopSignals::new()?;
    let started = tokio::select! {
        started = bring_up(&layout, &args, &mut members) => started,
        () = stop.received() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = started {
        members.stop_unless(&mut stop).await;
        return Err(error);
    }
    if args.detach {
        return members.release();
    }
    let ended = tokio::select! {
        error = members.died() => Err(error),
        () = stop.received() => Ok(()),
    };
    eprintln!("Stopping the swarm ...");
    members.stop_unless(&mut stop).await;
    ended
}

pub async fn down(args: DownArgs) -> anyhow::Result<()> {
    let data_dir = std::path::absolute(&args.data.data_dir)?;
    let mut processes = record::load_processes(&data_dir)?;
    if processes.is_empty() {
        println!("No swarm is running in {}.", data_dir.display());
        return Ok(());
    }
    // An `up` that holds them stops them itself, and would call it a fault if we did.
    if processes
        .first()
        .is_some_and(|process| process.name == OWNER)
    {
        member::stop_recorded(&processes.remove(0)).await?;
        processes.retain(record::Process::is_alive);
        println!("`hive up` stopped it");
    }
    // Agents first: they say goodbye to controllers that still listen.
    processes.reverse();
    let mut failed = None;
    for process in &processes {
        match member::stop_recorded(process).await {
            Ok(()) => println!("{} stopped", process.name),
            Err(error) => failed = Some(error),
        }
    }
    record::save_processes(&data_dir, &[])?;
    failed.map_or(Ok(()), Err)
}

/// The shape that was asked for, or that of the swarm that is there; they may not contradict.
fn shape(args: &UpArgs, data_dir: &Path) -> anyhow::Result<(Shape, bool)> {
    let known = record::load_shape(data_dir)?;
    let base = known.unwrap_or(Shape {
        controllers: 3,
        agents: 3,
        base_port: 8080,
    });
    let wanted = Shape {
        controllers: args.controllers.unwrap_or(base.controllers),
        agents: args.agents.unwrap_or(base.agents),
        base_port: args.base_port.unwrap_or(base.base_port),
    };
    if known.is_some_and(|known| known != wanted) {
        bail!(
            "{} holds a swarm of {} controllers and {} agents at port {}: leave these flags out to resume it, or give another --data-dir",
            data_dir.display(),
            base.controllers,
            base.agents,
            base.base_port,
        );
    }
    Ok((wanted, known.is_some()))
}

async fn bring_up(layout: &Layout, args: &UpArgs, members: &mut Members) -> anyhow::Result<()> {
    start::start(layout, members).await?;
    let url = match args.no_example {
        true => None,
        false => Some(tokio::select! {
            deployed = example::deploy(layout) => deployed?,
            error = members.died() => return Err(error),
        }),
    };
    print_next(layout, url.as_deref(), args.detach);
    Ok(())
}

fn print_next(layout: &Layout, url: Option<&str>, detached: bool) {
    let kubeconfig = layout.kubeconfig();
    println!();
    println!("The swarm is ready.");
    if let Some(url) = url {
        println!("  try it:      curl {url}");
    }
    println!("  kubeconfig:  {}", kubeconfig.display());
    println!();
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  hivectl get nodes,functions        (or: hive ctl get nodes,functions)");
    println!("  hivectl apply -f function.yaml");
    println!();
    if detached {
        println!("`hive down{}` stops it.", data_dir_flag(&layout.data_dir));
    } else {
        println!("Ctrl-C stops it.");
    }
}

fn data_dir_flag(data_dir: &Path) -> String {
    match data_dir == default_data_dir() {
        true => String::new(),
        false => format!(" --data-dir {}", data_dir.display()),
    }
}

/// The name under which a foreground `up` records itself, before its members.
const OWNER: &str = "hive up";

/// The processes of the swarm, in the order in which they were started.
pub struct Members {
    data_dir: PathBuf,
    owner: record::Process,
    members: Vec<Member>,
}

impl Members {
    fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            owner: record::Process::of(OWNER, std::process::id()),
            members: Vec::new(),
        }
    }

    fn add(&mut self, member: Member) -> anyhow::Result<()> {
        self.members.push(member);
        let mut processes = vec![self.owner.clone()];
        processes.extend(self.processes());
        record::save_processes(&self.data_dir, &processes)
    }

    fn processes(&self) -> Vec<record::Process> {
        let processes = self.members.iter().map(|member| member.process.clone());
        processes.collect()
    }

    /// Waits for the first member that ends unasked.
    async fn died(&mut self) -> anyhow::Error {
        if self.members.is_empty() {
            return std::future::pending().await;
        }
        let deaths = self
            .members
            .iter_mut()
            .map(|member| Box::pin(member.died()));
        futures::future::select_all(deaths).await.0
    }

    /// Stops all, the last started first.
    async fn stop(&mut self) {
        while let Some(member) = self.members.last_mut() {
            if let Err(error) = member.stop().await {
                eprintln!("warning: {error:#}");
            }
            // Not before: whoever gives this up kills what is left.
            self.members.pop();
        }
        if let Err(error) = record::save_processes(&self.data_dir, &[]) {
            eprintln!("warning: {error:#}");
        }
    }

    /// Stops all; at another signal meanwhile, by force.
    async fn stop_unless(mut self, signals: &mut StopSignals) {
        tokio::select! {
            () = self.stop() => return,
            () = signals.received() => {}
        }
        eprintln!("Killing what is left of it ...");
        for member in &mut self.members {
            member.kill();
        }
        if let Err(error) = record::save_processes(&self.data_dir, &[]) {
            eprintln!("warning: {error:#}");
        }
    }

    /// Leaves them running.
    fn release(self) -> anyhow::Result<()> {
        record::save_processes(&self.data_dir, &self.processes())
    }
}

struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// The terminal was closed. Not for one that was told to outlive it (`nohup`).
    hangup: Option<tokio::signal::unix::Signal>,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            hangup: match ignores_hangup(&own_status()) {
                true => None,
                false => Some(signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?),
            },
        })
    }

    async fn received(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

fn own_status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// From proc_pid_status(5): a mask of the ignored signals, of which SIGHUP is the first.
fn ignores_hangup(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_is_heard_unless_it_is_ignored() {
        for (status, expected) in [
            ("Name:\thive\nSigIgn:\t0000000000000001\n", true),
            ("SigIgn:\t0000000000001000\n", false),
            ("", false),
        ] {
            assert_eq!(ignores_hangup(status), expected, "{status:?}");
        }
    }
}
