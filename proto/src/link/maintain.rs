//! Keeps one link to an endpoint alive: dials, waits between failures, and goes from TCP back to
//! QUIC when that answers again. Whoever needs the link follows a watch; the old one of a switch is
//! left until its streams are done. It accepts no streams: that is for whoever follows.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dial::dial_over;
use super::{DialError, Link, LinkError, LinkSettings, Transport, Transports, dial};

/// The first wait after a failure; doubled with each that follows.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait: a controller back after hours is found within half a minute, and a thousand
/// agents looking for it are 33 packets a second.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A link that lived this long counts as a success: the next failure starts from the first wait.
/// One that is accepted and closed again right away doesn't.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// How long streams of a link that was replaced may take to end. Invocations are bounded by their
/// timeouts, sessions move as soon as they hear of the new link.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no link just now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    #[error("cannot link")]
    Dial(#[source] DialError),
    #[error("the link ended")]
    Lost(#[source] LinkError),
}

/// Ends with its last handle, or with the token it was given; the link is closed then.
pub struct Maintained {
    endpoint: Arc<str>,
    links: watch::Receiver<Option<Link>>,
    troubles: watch::Receiver<Option<Trouble>>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Maintained {
    /// `endpoint` is `host:port`. Must be called inside a Tokio runtime.
    pub fn spawn(
        endpoint: impl Into<Arc<str>>,
        tls: Arc<rustls::ClientConfig>,
        settings: LinkSettings,
        cancel: CancellationToken,
    ) -> Self {
        let endpoint = endpoint.into();
        let cancel = cancel.child_token();
        let (link_sender, links) = watch::channel(None);
        let (trouble_sender, troubles) = watch::channel(None);
        let keeper = Keeper {
            endpoint: endpoint.clone(),
            tls,
            settings,
            cancel: cancel.clone(),
            links: link_sender,
            troubles: trouble_sender,
            draining: JoinSet::new(),
        };
        Self {
            endpoint,
            links,
            troubles,
            task: tokio::spawn(keeper.run()),
            stop: cancel.drop_guard(),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The link as it comes, goes and is replaced.
    pub fn links(&self) -> watch::Receiver<Option<Link>> {
        self.links.clone()
    }

    /// The link now, if there is one.
    pub fn current(&self) -> Option<Link> {
        self.links.borrow().clone()
    }

    /// What last went wrong; `None` while there is a link.
    pub fn troubles(&self) -> watch::Receiver<Option<Trouble>> {
        self.troubles.clone()
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.troubles.borrow().clone()
    }

    /// Closes the link and waits until the peer was told.
    pub async fn stop(self) {
        drop(self.stop);
        // An error would be its panic, which has been reported where it happened.
        let _ = self.task.await;
    }
}

struct Keeper {
    endpoint: Arc<str>,
    tls: Arc<rustls::ClientConfig>,
    settings: LinkSettings,
    cancel: CancellationToken,
    links: watch::Sender<Option<Link>>,
    troubles: watch::Sender<Option<Trouble>>,
    draining: JoinSet<()>,
}

enum Change {
    Cancelled,
    Ended(LinkError),
    QuicAnswers(Link),
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0;
        let cancel = self.cancel.clone();
        loop {
            let dialled = cancel
                .run_until_cancelled(dial(&self.endpoint, self.tls.clone(), &self.settings))
                .await;
            let trouble = match dialled {
                None => break,
                Some(Err(error)) => Trouble::Dial(error),
                Some(Ok(link)) => {
                    let since = Instant::now();
                    let Some(end) = self.keep(link).await else {
                        break;
                    };
                    if since.elapsed() >= STABLE_AFTER {
                        failures = 0;
                    }
                    Trouble::Lost(end)
                }
            };
            let wait = match &trouble {
                Trouble::Dial(error) if !error.can_retry() => LONGEST_WAIT,
                _ => wait_after(failures),
            };
            let wait = jittered(wait, random_unit());
            tracing::debug!(
                endpoint = &*self.endpoint,
                trouble = &trouble as &dyn std::error::Error,
                ?wait,
                "no link"
            );
            self.troubles.send_replace(Some(trouble));
            failures += 1;
            if cancel
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                break;
            }
        }
        // Links that are draining close with their last handle.
        self.draining.abort_all();
    }

    /// Publishes `link` and what replaces it until there is none. `None` when cancelled.
    async fn keep(&mut self, mut link: Link) -> Option<LinkError> {
        loop {
            self.troubles.send_replace(None);
            self.links.send_replace(Some(link.clone()));
            let change = tokio::select! {
                () = self.cancel.cancelled() => Change::Cancelled,
                end = link.closed() => Change::Ended(end),
                better = self.probe_quic(link.transport()) => Change::QuicAnswers(better),
            };
            match change {
                Change::Cancelled => {
                    self.links.send_replace(None);
                    link.shutdown("no longer needed").await;
                    return None;
                }
                Change::Ended(end) => {
                    self.links.send_replace(None);
                    return Some(end);
                }
                Change::QuicAnswers(better) => {
                    tracing::info!(endpoint = &*self.endpoint, "back on quic");
                    let old = std::mem::replace(&mut link, better);
                    while self.draining.try_join_next().is_some() {}
                    self.draining.spawn(drain(old));
                }
            }
        }
    }

    /// Tries QUIC now and then until it answers; never on a link that has it, or mustn't.
    async fn probe_quic(&self, transport: Transport) -> Link {
        if transport != Transport::Tcp || self.settings.transports != Transports::Both {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(jittered(self.settings.probe_interval, random_unit())).await;
            let probe = dial_over(
                Transports::QuicOnly,
                &self.endpoint,
                self.tls.clone(),
                &self.settings,
            );
            match probe.await {
                Ok(link) => return link,
                Err(error) => {
                    tracing::debug!(
                        endpoint = &*self.endpoint,
                        error = &error as &dyn std::error::Error,
                        "quic doesn't answer yet"
                    );
                }
            }
        }
    }
}

async fn drain(link: Link) {
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, link.idle()).await;
    link.shutdown("replaced by a link over quic").await;
}

/// The wait after so many failures in a row, before jitter.
fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST_WAIT)
}

/// Between half of `wait` and all of it, so that those whose links broke together don't come
/// back together. `unit` is from 0 to 1.
fn jittered(wait: Duration, unit: f64) -> Duration {
    wait.mul_f64(0.5 + unit.clamp(0.0, 1.0) / 2.0)
}

/// From 0 to 1; good enough to spread timers.
fn random_unit() -> f64 {
    let random = RandomState::new().hash_one(0);
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = [0, 1, 2, 8, 9, 100, u32::MAX].map(wait_after).into();
        assert_eq!(
            waits,
            [100, 200, 400, 25_600, 30_000, 30_000, 30_000].map(Duration::from_millis)
        );
    }

    proptest! {
        #[test]
        fn jitter_shortens_by_half_at_most(ms in 0_u64..100_000, unit in 0.0..=1.0) {
            let wait = Duration::from_millis(ms);
            let jittered = jittered(wait, unit);
            prop_assert!(jittered <= wait && jittered >= wait / 2, "{jittered:?} of {wait:?}");
        }
    }
}
