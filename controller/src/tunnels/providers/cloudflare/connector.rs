//! One cloudflared while its tunnel lives: started anew when it ends, asked how many connections it has.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::super::child::{self, Pauses};
use super::super::{Part, Standings, Token, Trouble};
use super::{Cloudflared, ready};
use crate::gateway::bounds::cut;
use crate::state::Key;

/// It is asked how it is this often; a new one more often, since somebody waits for it.
const ASK: Duration = Duration::from_secs(5);
const ASK_SOON: Duration = Duration::from_millis(500);

/// A connector that has just lost its connections, or just began, has them again within this time as a rule.
const GRACE: u32 = 3;

/// Bytes of what it said last that are told in a status.
const LAST_WORDS: usize = 256;

/// They are there already.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);

/// What it reads its settings from, in place of the machine's own files, such as one for another tunnel. It complains
/// that there are none.
const NO_SETTINGS: &str = "/dev/null";

/// What a log line has before the address at which cloudflared answers how it is.
const METRICS_AT: &str = "metrics server on ";

pub struct Connector {
    pub tunnel: Key,
    pub token: Token,
    pub cloudflared: Arc<Cloudflared>,
    pub standings: Standings,
    pub stop: CancellationToken,
}

/// What a running cloudflared says in its log.
#[derive(Default)]
struct Said {
    /// The last line that is a warning or an error.
    complaint: Mutex<String>,
}

impl Connector {
    /// Begins; `_alive` is held until it has ended. The system ends children with the thread that started them, so
    /// this one lives for as long as its child.
    pub fn start(self, alive: TaskTrackerToken) -> std::io::Result<()> {
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("cloudflared".to_owned());
        thread.spawn(move || {
            runtime.block_on(self.run());
            drop(alive);
        })?;
        Ok(())
    }

    async fn run(self) {
        let mut pauses = Pauses::new();
        loop {
            pauses.begin();
            let trouble = match self.once().await {
                Some(trouble) if !self.stop.is_cancelled() => trouble,
                // It is to stop: how the tunnel is from now on is somebody else's to say.
                _ => return,
            };
            self.tell(trouble);
            let pause = sleep(pauses.next());
            if self.stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn tell(&self, trouble: Trouble) {
        self.standings
            .trouble(&self.tunnel, Part::Connector, trouble);
    }

    /// Runs it until it ends, which is told; or until it is to stop: `None`.
    async fn once(&self) -> Option<Trouble> {
        let Cloudflared {
            launcher, program, ..
        } = &*self.cloudflared;
        let Some(found) = child::find(program, std::env::var_os("PATH").as_deref()) else {
            let message = format!(
                "{} is not on this controller's machine: install it there (Debian: `apt install cloudflared` from \
                 https://pkg.cloudflare.com; Arch: `pacman -S cloudflared`; macOS: `brew install cloudflared`), or name \
                 it with --cloudflared",
                program.display()
            );
            return Some(Trouble::new("CloudflaredMissing", message));
        };
        let arguments = ["tunnel", "--config", NO_SETTINGS, "--no-autoupdate", "run"];
        let arguments = arguments.map(OsStr::new);
        let environment = [
            ("TUNNEL_TOKEN", self.token.expose()),
            // It chooses a port, and says which.
            ("TUNNEL_METRICS", "127.0.0.1:0"),
        ];
        let mut child = match launcher.start(&found, &arguments, &environment) {
            Ok(child) => child,
            Err(error) => {
                let message = format!("{} cannot be started: {error}", found.display());
                return Some(Trouble::new("CloudflaredFailed", message));
            }
        };
        tracing::info!(tunnel = %self.tunnel, program = %found.display(), "cloudflared started");
        let said = Said::default();
        let (metrics, at) = watch::channel(None);
        let stderr = child.stderr.take();
        let reading = async {
            if let Some(stderr) = stderr {
                child::read_lines(stderr, &self.token, |line| {
                    self.take_line(line, &said, &metrics);
                })
                .await;
            }
        };
        // Fused, since it may have nothing more to say and run on.
        let reading = reading.fuse();
        let watching = self.watch(at, &said);
        tokio::pin!(reading, watching);
        let ended = loop {
            tokio::select! {
                // Once it is to stop, how it is matters no more.
                biased;
                () = self.stop.cancelled() => break None,
                ended = child.wait() => break Some(ended),
                () = &mut reading => {}
                () = &mut watching => {}
            }
        };
        if ended.is_some() && !reading.is_terminated() {
            // What it said last tells most. Somebody else may hold the other end, and say nothing.
            let _ = timeout(LAST_WORDS_PATIENCE, &mut reading).await;
        }
        match ended {
            Some(ended) => Some(self.explain(ended, &said)),
            None => {
                self.stop_child(&mut child).await;
                None
            }
        }
    }

    async fn stop_child(&self, child: &mut Child) {
        match child::end(child).await {
            Ok(status) => tracing::info!(tunnel = %self.tunnel, %status, "cloudflared ended"),
            Err(error) => tracing::warn!(tunnel = %self.tunnel, %error, "cannot end cloudflared"),
        }
    }

    fn take_line(&self, line: &str, said: &Said, metrics: &watch::Sender<Option<SocketAddr>>) {
        if let Some(at) = metrics_of(line) {
            metrics.send_replace(Some(at));
        }
        if is_complaint(line) {
            tracing::warn!(tunnel = %self.tunnel, line, "cloudflared");
            let mut words = without_time(line).to_owned();
            cut(&mut words, LAST_WORDS);
            *said.complaint.lock().expect("no holder of the lock panics") = words;
        } else {
            tracing::debug!(tunnel = %self.tunnel, line, "cloudflared");
        }
    }

    /// Asks it how it is for as long as it runs.
    async fn watch(&self, mut at: watch::Receiver<Option<SocketAddr>>, said: &Said) {
        let Ok(Some(at)) = at.wait_for(Option::is_some).await.map(|at| *at) else {
            return std::future::pending().await;
        };
        let mut without = 0;
        loop {
            let found = ready::connections(at).await;
            let is_well = matches!(found, Ok(1..));
            without = if is_well { 0 } else { without + 1 };
            match found {
                Ok(1..) => self.standings.well(&self.tunnel, Part::Connector, None),
                Ok(0) if without > GRACE => self.tell(not_connected(&said.words())),
                Err(error) if without > GRACE => {
                    let message =
                        format!("cloudflared does not say how it is at http://{at}/ready: {error}");
                    self.tell(Trouble::new("CloudflaredSilent", message));
                }
                Ok(0) | Err(_) => {}
            }
            sleep(if is_well { ASK } else { ASK_SOON }).await;
        }
    }

    fn explain(&self, ended: std::io::Result<ExitStatus>, said: &Said) -> Trouble {
        let how = match ended {
            Ok(status) => status.to_string(),
            Err(error) => format!("how is not known ({error})"),
        };
        let message = match &*said.words() {
            "" => format!("cloudflared ended ({how}), and is started anew"),
            words => format!("cloudflared ended ({how}), and is started anew; it said: {words}"),
        };
        Trouble::new("CloudflaredEnded", message)
    }
}

impl Said {
    fn words(&self) -> String {
        let words = self.complaint.lock().expect("no holder of the lock panics");
        words.clone()
    }
}

fn not_connected(words: &str) -> Trouble {
    let said = match words {
        "" => String::new(),
        words => format!("; it said: {words}"),
    };
    let message = format!(
        "cloudflared has no connection to Cloudflare's network: let it out to port 7844 by UDP and TCP, and see that \
         its token is that of a tunnel which is still there{said}"
    );
    Trouble::new("NotConnected", message)
}

/// Where it answers how it is, if that is what a line says. Only itself is believed to be there.
fn metrics_of(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(METRICS_AT)?;
    let end = rest.find(['/', ' ', '"']).unwrap_or(rest.len());
    let at: SocketAddr = rest[..end].parse().ok()?;
    at.ip().is_loopback().then_some(at)
}

/// `2026-01-01T00:00:00Z ERR what it is`.
fn is_complaint(line: &str) -> bool {
    let level = line.split_whitespace().nth(1).unwrap_or_default();
    matches!(level, "WRN" | "ERR" | "FTL") && !line.contains(NO_SETTINGS)
}

/// A time would make the same complaint another one each time.
fn without_time(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, rest)| rest).trim()
}

#[cfg(test)]
mod tests;
