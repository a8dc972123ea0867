//! The controllers at a moment, and one look at the leader for all who wait for them to change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hive_manifests::{Controller, ControllerStatus};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{LEADERLESS, shown};
use crate::controllers::Controllers;

/// Between two looks while somebody waits: heartbeats are not much closer together.
const INTERVAL: Duration = Duration::from_secs(1);

/// All controllers at a moment.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When the look began; never, where nobody has looked.
    began: Option<Instant>,
    /// Changes when anything does that lasts. It says nothing of an order: what clients go on from
    /// is still so, or they begin anew.
    pub revision: u64,
    pub controllers: Vec<Controller>,
}

impl Seen {
    pub async fn now(controllers: &Controllers) -> Self {
        let began = Some(Instant::now());
        let seen = Self::of(shown(&controllers.describe().await, SystemTime::now()));
        Self { began, ..seen }
    }

    /// What who asks should know besides, if so.
    pub fn warning(&self) -> Option<String> {
        let of = |controller: &Controller| controller.status.clone().unwrap_or_default();
        let all = self.controllers.iter().map(of);
        if all.clone().any(|status| status.leader) {
            return None;
        }
        let answering = all.filter(|status| status.state == LEADERLESS).count();
        Some(format!(
            "no leader is known: {answering} of {} controllers answer; nothing is written until a \
             majority of those that vote elects one",
            self.controllers.len()
        ))
    }

    pub fn of(mut controllers: Vec<Controller>) -> Self {
        let mut digest = Sha256::new();
        for controller in &controllers {
            digest.update(serde_json::to_vec(&lasting(controller)).expect("plain data"));
        }
        let digest = digest.finalize();
        let start = digest.first_chunk().expect("a digest is longer than this");
        // Clients may read it as a signed number, and 0 means "any".
        let revision = (u64::from_be_bytes(*start) >> 1).max(1);
        for controller in &mut controllers {
            controller.metadata.resource_version = Some(revision.to_string());
        }
        Self {
            began: None,
            revision,
            controllers,
        }
    }
}

/// A controller without what is of the moment.
pub(super) fn lasting(controller: &Controller) -> Controller {
    let mut lasting = controller.clone();
    lasting.metadata.resource_version = None;
    if let Some(status) = &mut lasting.status {
        *status = ControllerStatus {
            matched_index: None,
            lag: None,
            silent_seconds: None,
            last_heard: None,
            disk_sync_microseconds: None,
            ..std::mem::take(status)
        };
    }
    lasting
}

/// Looks as long as somebody waits. Clones are handles to one.
#[derive(Clone, Default)]
pub(in crate::api) struct Following {
    latest: watch::Sender<Arc<Seen>>,
    is_looking: Arc<AtomicBool>,
}

impl Following {
    pub(super) fn subscribe(
        &self,
        controllers: &Controllers,
        stop: &CancellationToken,
    ) -> watch::Receiver<Arc<Seen>> {
        let receiver = self.latest.subscribe();
        if !self.is_looking.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().look(controllers.clone(), stop.clone()));
        }
        receiver
    }

    /// The controllers at a moment after the call, of which all hear who wait: what they hear after that is of a
    /// later one.
    pub(super) async fn look_now(&self, controllers: &Controllers) -> Arc<Seen> {
        self.take(Seen::now(controllers).await);
        self.latest.borrow().clone()
    }

    /// Of two looks the one counts that began later, whichever ended first.
    fn take(&self, seen: Seen) {
        self.latest.send_if_modified(|latest| {
            if seen.began < latest.began {
                return false;
            }
            let is_new = latest.revision != seen.revision;
            *latest = Arc::new(seen);
            is_new
        });
    }

    async fn look(self, controllers: Controllers, stop: CancellationToken) {
        loop {
            self.take(Seen::now(&controllers).await);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if self.latest.receiver_count() == 0 {
                self.is_looking.store(false, Ordering::Release);
                // Who came since found somebody looking, or looks already.
                let is_wanted = self.latest.receiver_count() > 0;
                if !is_wanted || self.is_looking.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lag: u64, state: &str) -> Seen {
        let mut controller = Controller::new("1", Default::default());
        controller.status = Some(ControllerStatus {
            lag: Some(lag),
            state: state.to_owned(),
            ..ControllerStatus::default()
        });
        Seen::of(vec![controller])
    }

    #[test]
    fn the_revision_changes_with_what_lasts() {
        let ready = seen(0, "Ready");
        assert_eq!(ready.revision, seen(7, "Ready").revision);
        assert_ne!(ready.revision, seen(0, "Unreachable").revision);
        assert_ne!(ready.revision, Seen::of(Vec::new()).revision);
        assert!(ready.revision <= i64::MAX as u64);
        let named = ready.controllers[0].metadata.resource_version.clone();
        assert_eq!(named, Some(ready.revision.to_string()));
    }

    #[test]
    fn a_look_that_began_before_another_is_no_news_after_it() {
        let (following, start) = (Following::default(), Instant::now());
        let at = |seconds, state| Seen {
            began: Some(start + Duration::from_secs(seconds)),
            ..seen(0, state)
        };
        let mut heard = following.latest.subscribe();
        let mut is_news = |seen| {
            following.take(seen);
            let is_news = heard.has_changed().is_ok_and(|changed| changed);
            heard.mark_unchanged();
            is_news
        };
        assert!(is_news(at(2, "Ready")));
        assert!(!is_news(at(1, "Unreachable")), "it took longer");
        assert!(!is_news(at(3, "Ready")));
        assert!(is_news(at(4, "Unreachable")));
    }
}
