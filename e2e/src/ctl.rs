//! hivectl, run as a person would: `hive ctl ...`, its output and exit code.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::program::hive;

/// No command that a test runs to its end takes longer.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// What a command that succeeded printed.
    ///
    /// # Panics
    ///
    /// If it failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0, "{self}");
        &self.stdout
    }

    /// # Panics
    ///
    /// If it succeeded, or its message lacks one of `parts`.
    #[track_caller]
    pub fn fails(&self, parts: &[&str]) {
        assert!(self.code != 0, "should have failed: {self}");
        for part in parts {
            assert!(self.stderr.contains(part), "does not say {part:?}: {self}");
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {} after {:.1} s\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code,
            self.took.as_secs_f64(),
            self.stdout,
            self.stderr
        )
    }
}

/// hivectl with one kubeconfig.
#[derive(Clone, Debug)]
pub struct Ctl {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
}

impl Ctl {
    pub fn new(kubeconfig: &Path) -> Self {
        Self {
            program: hive(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, "").await
    }

    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        run(self.command(arguments), input).await
    }

    /// A command that goes on, such as `logs -f`; its standard output can be read.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("hive can be started")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["ctl", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(arguments);
        command
    }
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it does not end.
pub async fn run(mut command: Command, input: &str) -> Output {
    let shown: Vec<String> = command
        .as_std()
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let shown = format!("hive {}", shown.join(" "));
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("hive can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    let feeding = async move {
        // One that refuses its input early closes the pipe.
        let _ = stdin.write_all(input.as_bytes()).await;
    };
    let both = async { tokio::join!(feeding, child.wait_with_output()).1 };
    let output = match tokio::time::timeout(PATIENCE, both).await {
        Ok(output) => output.expect("a child can be waited for"),
        Err(_) => panic!("`{shown}` did not end within {PATIENCE:?}"),
    };
    Output {
        command: shown,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    }
}
