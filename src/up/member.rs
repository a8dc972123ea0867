//! One process of a local swarm: started, watched, stopped.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::record::Process;

/// Between the request to stop and the end by force. Longer than a member drains.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Of a log, what is shown when its member died, and how much of its end is read for that.
const LAST_LINES: usize = 12;
const LAST_BYTES: u64 = 64 << 10;

pub struct Member {
    pub name: String,
    pub process: Process,
    child: Child,
    log: PathBuf,
}

impl Member {
    /// Starts this program again with `arguments`, its output going to `log`. It gets a process
    /// group of its own: Ctrl-C reaches only the one who started it, who stops it in order.
    pub fn start(
        name: &str,
        arguments: &[String],
        environment: &[(&str, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = command(arguments, environment)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("the process is gone already")?;
        Ok(Self {
            name: name.to_owned(),
            process: Process::of(name, pid),
            child,
            log: log.to_owned(),
        })
    }

    /// Waits for its end, which nobody asked for.
    pub async fn died(&mut self) -> anyhow::Error {
        let status = match self.child.wait().await {
            Ok(status) => describe(status),
            Err(error) => format!("cannot be watched: {error}"),
        };
        anyhow::anyhow!(
            "{} {status}. The end of {}:\n{}",
            self.name,
            self.log.display(),
            last_lines(&self.log)
        )
    }

    /// Asks it to stop, waits, and ends it by force if it does not.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        signal(self.process.pid, Signal::TERM);
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await?;
            bail!(
                "{} did not stop within {STOP_TIMEOUT:?} and was killed",
                self.name
            );
        }
        Ok(())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            eprintln!("warning: cannot kill {}: {error}", self.name);
        }
    }
}

/// Runs this program to its end; its output is the error if it fails.
pub async fn run_once(arguments: &[String], environment: &[(&str, String)]) -> anyhow::Result<()> {
    let output = command(arguments, environment)?
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{}", text.trim().trim_start_matches("error: "));
    }
    Ok(())
}

/// Stops a process that another `up` started.
pub async fn stop_recorded(process: &Process) -> anyhow::Result<()> {
    // Another one may have its id by now.
    if !process.is_alive() {
        return Ok(());
    }
    signal(process.pid, Signal::TERM);
    let gone = async {
        while process.is_alive() {
            // It is nobody's child here: there is nothing to wait on but its entry in /proc.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(STOP_TIMEOUT, gone).await.is_err() {
        signal(process.pid, Signal::KILL);
        bail!(
            "{} did not stop within {STOP_TIMEOUT:?} and was killed",
            process.name
        );
    }
    Ok(())
}

fn command(arguments: &[String], environment: &[(&str, String)]) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    // Invoked under another name it would be hivectl.
    command.arg0("hive").args(arguments);
    for (name, value) in environment {
        command.env(name, value);
    }
    Ok(command)
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may be gone already, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

fn last_lines(path: &Path) -> String {
    let text = last_bytes(path).unwrap_or_else(|error| format!("(cannot be read: {error})").into());
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    lines[first..]
        .iter()
        .map(|line| format!("  | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn last_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown_whatever_is_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let mut log = vec![b'x'; 2 * LAST_BYTES as usize];
        for line in 1..=20 {
            log.extend(format!("\nline {line} \u{fffd}").into_bytes());
            log.push(0xff);
        }
        std::fs::write(&path, log).unwrap();
        let shown = last_lines(&path);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), LAST_LINES);
        assert!(lines[0].starts_with("  | line 9 "), "{}", lines[0]);
        assert!(last_lines(&temp.path().join("none")).contains("cannot be read"));
    }
}
