//! A program of a provider as a child of the controller: found, started with its secrets in the environment, its lines
//! passed on to the log, started anew when it ends, and ended with the controller.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::{Token, hold};

/// Longer lines of a program's log are passed over.
const MAX_LINE: usize = 8 << 10;

/// Before a program that ended is started anew: doubled each time, since what ends at once does so again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A program that ran for this long did not end at once.
const STEADY: Duration = Duration::from_secs(120);

/// A program that is asked to end may finish what is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// How programs are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// This controller's program and the arguments that lead to its subcommand [`hold`]; `None` where programs are
    /// started as they are, in tests.
    own: Option<(PathBuf, Vec<OsString>)>,
}

impl Launcher {
    /// One that holds programs by the program that this process is, whose `prefix` of arguments leads to a
    /// controller's subcommands.
    pub fn of_this_program(prefix: &[&str]) -> std::io::Result<Self> {
        let program = match cfg!(target_os = "linux") {
            true => PathBuf::from("/proc/self/exe"),
            false => std::env::current_exe()?,
        };
        let arguments = prefix.iter().chain([&hold::SUBCOMMAND]);
        Ok(Self {
            own: Some((program, arguments.map(OsString::from).collect())),
        })
    }

    /// For programs that a test starts, and ends.
    #[cfg(test)]
    pub fn direct() -> Self {
        Self { own: None }
    }

    /// Starts a program. It ends with the thread that calls this, if not before.
    pub fn start(
        &self,
        program: &Path,
        arguments: &[&OsStr],
        environment: &[(&str, &str)],
    ) -> std::io::Result<Child> {
        let mut command = match &self.own {
            Some((own, leading)) => {
                let mut command = Command::new(own);
                command
                    // For people who look at processes: the program may be named by a link that says nothing.
                    .arg0(std::env::args_os().next().unwrap_or_default())
                    .args(leading)
                    .arg("--parent")
                    .arg(std::process::id().to_string())
                    .arg(program)
                    .arg("--");
                command
            }
            None => Command::new(program),
        };
        command
            .args(arguments)
            // A controller's environment may hold secrets that are none of the program's.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            // What is typed at the controller's terminal is for the controller.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Where a program is: as it is named, or in one of the directories of `path`.
pub fn find(program: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return Some(program.to_owned()).filter(is_program);
    }
    std::env::split_paths(path?)
        .map(|dir| dir.join(program))
        .find(is_program)
}

/// Passes lines on until there are no more. What of them is secret is left out; what is no text, and what is too long,
/// is passed over.
pub async fn read_lines(from: impl AsyncRead + Unpin, secret: &Token, mut take: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    let mut is_rest = false;
    loop {
        line.clear();
        let mut part = (&mut from).take(MAX_LINE as u64);
        // A pipe that breaks has ended.
        if !matches!(part.read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        let is_part = line.len() == MAX_LINE && !line.ends_with(b"\n");
        if !is_part
            && !is_rest
            && let Ok(line) = std::str::from_utf8(&line)
        {
            take(&secret.hide_in(line.trim_end()));
        }
        is_rest = is_part;
    }
}

/// Asks a child to end, and ends it if it does not.
pub async fn end(child: &mut Child) -> std::io::Result<ExitStatus> {
    let process = child.id().and_then(|id| Pid::from_raw(id as i32));
    if let Some(process) = process {
        // It may have ended just now.
        let _ = kill_process(process, Signal::TERM);
    }
    match timeout(PATIENCE, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            child.kill().await?;
            child.wait().await
        }
    }
}

/// How long to wait before a program is started anew.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    began: Instant,
}

impl Pauses {
    pub fn new() -> Self {
        Self {
            next: FIRST_PAUSE,
            began: Instant::now(),
        }
    }

    /// It is started now.
    pub fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// It ended now.
    pub fn next(&mut self) -> Duration {
        if self.began.elapsed() >= STEADY {
            self.next = FIRST_PAUSE;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn a_program_is_found_where_the_system_would_find_it() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for dir in [&first, &second] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("data"), "").unwrap();
        }
        let program = second.join("cloudflared");
        fs::write(&program, "").unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        let found = |name: &Path| find(name, Some(&path));
        // It is not to be run.
        assert_eq!(found(Path::new("cloudflared")), None);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(found(Path::new("cloudflared")), Some(program.clone()));
        assert_eq!(found(&program), Some(program));
        assert_eq!(found(Path::new("data")), None);
        assert_eq!(found(&first.join("cloudflared")), None);
        assert_eq!(find(Path::new("cloudflared"), None), None);
    }

    #[tokio::test]
    async fn lines_come_without_secrets_and_those_that_are_none_not_at_all() {
        let long = "x".repeat(MAX_LINE + 1);
        let end = &b"\n\xff\xfe\ntoken=abc is\n"[..];
        let text = [&b"one\n"[..], long.as_bytes(), end].concat();
        let mut lines = Vec::new();
        read_lines(&text[..], &Token::new("abc"), |line| {
            lines.push(line.to_owned());
        })
        .await;
        assert_eq!(lines, ["one", "token=[token] is"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_at_once_is_started_ever_more_slowly() {
        let mut pauses = Pauses::new();
        let mut seconds = Vec::new();
        for _ in 0..8 {
            pauses.begin();
            seconds.push(pauses.next().as_secs());
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        pauses.begin();
        tokio::time::advance(STEADY).await;
        assert_eq!(pauses.next(), FIRST_PAUSE);
    }
}
