//! One process of a swarm, whose data outlives it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::program::hive;

/// A member drains requests for ten seconds at most, and then syncs its disk.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// Of its log, what is shown when a test failed.
const LAST_LINES: usize = 25;

#[derive(Debug)]
pub struct Member {
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    log: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    /// What starts the program, with its arguments; nothing where empty.
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    started: Option<Instant>,
    /// Where the log of the process that was started last begins.
    log_start: usize,
}

impl Member {
    pub fn new(name: &str, root: &Path, arguments: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            dir: root.join(name),
            log: root.join(format!("{name}.log")),
            program: hive(),
            arguments,
            launcher: Vec::new(),
            environment: Vec::new(),
            child: None,
            started: None,
            log_start: 0,
        }
    }

    /// Sets a variable of its environment, now and at later starts.
    pub fn variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Of which program it is a process from its next start on.
    pub fn runs(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Has it started by another program that takes its place, such as `nsenter`.
    pub fn launched_by(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// Starts it, or starts it again with the same data.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the log can be written");
        let errors = log.try_clone().expect("a file can be shared");
        self.log_start = self.log().len();
        let variables = self.environment.iter().map(|(name, value)| (name, value));
        self.started = Some(Instant::now());
        let mut command = match self.launcher.split_first() {
            None => Command::new(&self.program),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.program);
                command
            }
        };
        let child = command
            .args(&self.arguments)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.expect("hive can be started"));
    }

    /// When it was started last.
    ///
    /// # Panics
    ///
    /// If it never was.
    pub fn started(&self) -> Instant {
        self.started.expect("the member was started")
    }

    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// # Panics
    ///
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child
            .as_ref()
            .and_then(Child::id)
            .unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id is positive"), signal)
            .expect("it is a child of ours");
    }

    /// Ends it as a power cut would, as far as it can tell.
    pub async fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a child can be killed");
        }
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    ///
    /// If it takes too long, or ends with an error.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended(STOP_PATIENCE).await;
        assert!(
            status.success(),
            "{} ended with {status}\n{}",
            self.name,
            self.tail()
        );
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it goes on for longer than `patience`.
    pub async fn ended(&mut self, patience: Duration) -> ExitStatus {
        let name = &self.name;
        let mut child = self
            .child
            .take()
            .unwrap_or_else(|| panic!("{name} does not run"));
        match tokio::time::timeout(patience, child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("{name} still runs after {patience:?}\n{}", self.tail()),
        }
    }

    /// Forgets a process that ended by itself, so that it can be started again; how it ended.
    pub fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// All that it ever logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the process that was started last has logged.
    pub fn log_of_this_run(&self) -> String {
        self.log().split_off(self.log_start)
    }

    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LAST_LINES);
        let shown: Vec<String> = lines[first..]
            .iter()
            .map(|line| format!("  {} | {line}", self.name))
            .collect();
        shown.join("\n")
    }
}
