//! Compiles in a process of its own, with bounds of memory and time.
//!
//! File names go in, a written file or a reason comes out. A component that makes the compiler crash, hang or
//! grow takes nothing else with it: this process is a member of Raft.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hive_manifests::quantity::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::child::Answer;
use super::failure::CompileFailure;

/// The subcommand that [`child`](super::child) is.
pub const SUBCOMMAND: &str = "compile-worker";

/// Without a word from people: half of the machine, whose kernel takes the compiler first when memory runs out,
/// and no more than this. 18 MB of Python take 400 MB.
const MOST_MEMORY: u64 = 1 << 30;

/// Where the machine's memory is not known.
const UNKNOWN_MEMORY: u64 = 512 << 20;

/// Of processors: what a component costs is not its neighbours' fault. 18 MB of Python take 15 s of a server.
const PROCESSOR_TIME: Duration = Duration::from_secs(10 * 60);

/// On a machine that is busy with other things, and for a compiler that waits for nothing.
const TIME: Duration = Duration::from_secs(60 * 60);

/// Looking is reading one small file.
const LOOK: Duration = Duration::from_millis(100);

/// Addresses a byte of memory: stacks and arenas are reserved and hardly used, so this stops only what grows
/// faster than it is looked at.
const ADDRESSES: u64 = 4;

/// Enough addresses for the program and its threads, whatever memory they may have.
const LEAST_ADDRESSES: u64 = 2 << 30;

/// An answer is a line, with a compiler's message in it at most.
const ANSWER_BYTES: u64 = 64 << 10;

/// What a crash says last is what matters of it.
const LAST_WORDS: usize = 512;

#[derive(Clone, Debug)]
pub struct CompileWorker {
    program: PathBuf,
    /// Those in front of the subcommand, and it.
    arguments: Vec<OsString>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    memory: Bytes,
    processor_time: Duration,
    time: Duration,
    threads: usize,
}

impl CompileWorker {
    /// One that runs `program`, whose `prefix` of arguments leads to a controller's subcommands.
    pub fn new(
        program: impl Into<PathBuf>,
        prefix: &[&str],
        memory: Option<Bytes>,
    ) -> CompileWorker {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            program: program.into(),
            arguments: prefix
                .iter()
                .chain([&SUBCOMMAND])
                .map(OsString::from)
                .collect(),
            limits: Limits {
                memory: memory.unwrap_or_else(|| Bytes(share(machine_memory()))),
                processor_time: PROCESSOR_TIME,
                time: TIME,
                // The rest is for who waits: Raft and requests.
                threads: (cores / 2).max(1),
            },
        }
    }

    /// One that runs the program that this process is, also when its file was replaced meanwhile.
    pub fn of_this_program(prefix: &[&str], memory: Option<Bytes>) -> std::io::Result<Self> {
        let program = match cfg!(target_os = "linux") {
            true => PathBuf::from("/proc/self/exe"),
            false => std::env::current_exe()?,
        };
        Ok(Self::new(program, prefix, memory))
    }

    /// Compiles `source` for `target` into `output`. Dropping the future ends the process.
    pub async fn compile(
        &self,
        target: &str,
        source: &Path,
        output: &Path,
    ) -> Result<(), CompileFailure> {
        let job = |threads| self.once(target, source, output, threads);
        match job(self.limits.threads).await {
            // Each thread has work of its own in memory.
            Err(CompileFailure::Memory { .. }) if self.limits.threads > 1 => {
                tracing::info!(
                    target,
                    "compiling once more in one thread, which takes less memory"
                );
                job(1).await
            }
            outcome => outcome,
        }
    }

    async fn once(
        &self,
        target: &str,
        source: &Path,
        output: &Path,
        threads: usize,
    ) -> Result<(), CompileFailure> {
        let addresses = self.limits.memory.0.saturating_mul(ADDRESSES);
        let mut child = Command::new(&self.program)
            // For people who look at processes: the program may be named by a link that says nothing.
            .arg0(std::env::args_os().next().unwrap_or_default())
            .args(&self.arguments)
            .args(["--target", target])
            .arg("--source")
            .arg(source)
            .arg("--output")
            .arg(output)
            .arg("--address-space")
            .arg(addresses.max(LEAST_ADDRESSES).to_string())
            .arg("--processor-seconds")
            .arg(self.limits.processor_time.as_secs().to_string())
            // A controller's environment may hold secrets.
            .env_clear()
            .env("RAYON_NUM_THREADS", threads.to_string())
            // What is typed at the controller's terminal is for the controller.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                CompileFailure::Hindered(format!("cannot start the compiler: {error}"))
            })?;
        // It ends when this end is closed.
        let _wanted = child.stdin.take();
        let process = child.id();
        let failure = tokio::select! {
            ended = end(&mut child) => return self.judge(ended),
            () = outgrows(process, self.limits.memory) => CompileFailure::Memory {
                limit: self.limits.memory,
            },
            () = tokio::time::sleep(self.limits.time) => CompileFailure::Time {
                limit: self.limits.time,
            },
        };
        // It has ended when its memory is to be used again.
        if let Err(error) = child.kill().await {
            tracing::warn!(%error, "cannot end the compiler");
        }
        Err(failure)
    }

    /// What an end means.
    fn judge(&self, ended: std::io::Result<Ended>) -> Result<(), CompileFailure> {
        let ended = ended.map_err(|error| {
            CompileFailure::Hindered(format!("cannot tell how the compiler ended: {error}"))
        })?;
        if let Ok(answer) = serde_json::from_slice::<Answer>(&ended.answer) {
            return match answer {
                Answer::Compiled => Ok(()),
                Answer::Refused(message) => Err(CompileFailure::Component(message)),
                Answer::Hindered(message) => Err(CompileFailure::Hindered(message)),
            };
        }
        let words = String::from_utf8_lossy(&ended.last_words);
        if ended.status.signal() == Some(Signal::XCPU.as_raw()) {
            return Err(CompileFailure::Time {
                limit: self.limits.processor_time,
            });
        }
        // Not by this process, which knows whom it kills: by the kernel, for want of memory. Or by Rust's
        // allocator, which may have no more.
        let was_killed = ended.status.signal() == Some(Signal::KILL.as_raw());
        if was_killed || words.contains("memory allocation of") {
            return Err(CompileFailure::NoMemory);
        }
        let said = words.trim().lines().last().unwrap_or_default();
        Err(CompileFailure::Crashed(match said {
            "" => ended.status.to_string(),
            said => format!("{}: {said}", ended.status),
        }))
    }
}

/// What a process left behind.
struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    last_words: Vec<u8>,
}

async fn end(child: &mut Child) -> std::io::Result<Ended> {
    let stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    // Closed after an answer's length: who goes on talking is not waited for.
    let answer = async move {
        let mut answer = Vec::new();
        let read = stdout.take(ANSWER_BYTES).read_to_end(&mut answer).await;
        read.map(|_| answer)
    };
    let (answer, last_words) = tokio::join!(answer, last_words(&mut stderr));
    Ok(Ended {
        status: child.wait().await?,
        answer: answer?,
        last_words: last_words?,
    })
}

async fn last_words(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut words = Vec::new();
    let mut buffer = [0; LAST_WORDS];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(words),
            read => words.extend_from_slice(&buffer[..read]),
        }
        words.drain(..words.len().saturating_sub(LAST_WORDS));
    }
}

/// Ends when the process has had more than `limit` in memory; never where that cannot be known.
async fn outgrows(process: Option<u32>, limit: Bytes) {
    let Some(process) = process else {
        return std::future::pending().await;
    };
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        if peak(process).is_some_and(|bytes| bytes > limit.0) {
            return;
        }
    }
}

/// The most that a process ever had in memory, in bytes.
fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn share(machine: Option<u64>) -> u64 {
    machine.map_or(UNKNOWN_MEMORY, |bytes| (bytes / 2).min(MOST_MEMORY))
}

#[cfg(target_os = "linux")]
fn machine_memory() -> Option<u64> {
    let info = rustix::system::sysinfo();
    info.totalram.checked_mul(u64::from(info.mem_unit))
}

#[cfg(not(target_os = "linux"))]
fn machine_memory() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A compiler that does as a script says.
    fn scripted(script: &str) -> CompileWorker {
        CompileWorker {
            program: "/bin/sh".into(),
            arguments: ["-c", script, SUBCOMMAND].map(OsString::from).into(),
            limits: Limits {
                memory: Bytes(64 << 20),
                processor_time: Duration::from_secs(60),
                time: Duration::from_secs(60),
                threads: 2,
            },
        }
    }

    async fn outcome(worker: &CompileWorker) -> Result<(), CompileFailure> {
        let none = Path::new("/nonexistent");
        worker.compile("pulley64", none, none).await
    }

    #[tokio::test]
    async fn what_a_compiler_says_is_heard() {
        let said = |line: &str| scripted(&format!("echo '{line}'"));
        assert_eq!(outcome(&said("\"compiled\"")).await, Ok(()));
        assert_eq!(
            outcome(&said(r#"{"refused":"not a component"}"#)).await,
            Err(CompileFailure::Component("not a component".into()))
        );
        assert_eq!(
            outcome(&said(r#"{"hindered":"the disk is full"}"#)).await,
            Err(CompileFailure::Hindered("the disk is full".into()))
        );
    }

    #[tokio::test]
    async fn what_grows_is_ended_after_a_second_attempt_in_one_thread() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let worker = scripted(&format!(
            "echo $RAYON_NUM_THREADS >>{}; exec awk 'BEGIN {{ s = \"x\"; while (length(s) < 200000000) s = s s; while (1) ; }}'",
            log.display()
        ));
        let failure = outcome(&worker).await.unwrap_err();
        assert_eq!(failure.reason(), "CompilerMemory");
        assert!(failure.to_string().contains("64Mi"), "{failure}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "2\n1\n");
    }

    #[tokio::test]
    async fn what_does_not_end_is_ended() {
        let mut worker = scripted("exec sleep 1000");
        worker.limits.time = Duration::from_millis(50);
        let failure = outcome(&worker).await.unwrap_err();
        assert_eq!(failure.reason(), "CompilerTimeout");
        let failure = outcome(&scripted("kill -XCPU $$")).await.unwrap_err();
        assert_eq!(failure.reason(), "CompilerTimeout");
    }

    #[tokio::test]
    async fn a_crash_says_how_it_came() {
        for (script, words) in [
            ("kill -SEGV $$", "signal: 11"),
            (
                "echo one >&2; echo the last word >&2; exit 101",
                "101: the last word",
            ),
            ("yes | head -c 100000 >&2; exit 1", "1: y"),
            ("yes; exit 1", "exit status: 1"),
            ("echo nonsense", "exit status: 0"),
        ] {
            let failure = outcome(&scripted(script)).await.unwrap_err();
            assert_eq!(failure.reason(), "CompilerCrashed", "{script}");
            assert!(failure.to_string().contains(words), "{script}: {failure}");
        }
        for script in [
            "kill -KILL $$",
            "echo memory allocation of 8 bytes failed >&2; kill -ABRT $$",
        ] {
            let failure = outcome(&scripted(script)).await.unwrap_err();
            assert_eq!(failure, CompileFailure::NoMemory, "{script}");
        }
    }

    #[tokio::test]
    async fn a_compiler_that_is_not_there_is_a_hindrance() {
        let mut worker = scripted("");
        worker.program = "/nonexistent".into();
        let failure = outcome(&worker).await.unwrap_err();
        assert!(matches!(failure, CompileFailure::Hindered(_)), "{failure}");
    }

    #[tokio::test]
    async fn who_wants_no_result_any_more_ends_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        // Its name is written whole.
        let worker = scripted(&format!(
            "echo $$ >{0}.part; mv {0}.part {0}; exec sleep 1000",
            file.display()
        ));
        let pid = tokio::select! {
            outcome = outcome(&worker) => panic!("{outcome:?}"),
            pid = async {
                loop {
                    match std::fs::read_to_string(&file) {
                        Ok(pid) => return pid.trim().parse::<u32>().unwrap(),
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            } => pid,
        };
        let gone = async {
            while peak(pid).is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), gone)
            .await
            .unwrap();
    }

    #[test]
    fn a_compiler_may_have_half_of_the_machine_and_a_gibibyte_at_most() {
        const GIB: u64 = 1 << 30;
        assert_eq!(share(Some(GIB)), GIB / 2);
        assert_eq!(share(Some(64 * GIB)), GIB);
        assert_eq!(share(None), UNKNOWN_MEMORY);
        assert!(machine_memory().is_some_and(|bytes| bytes > 64 << 20));
    }
}
