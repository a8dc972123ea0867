//! One tunnel: when it is tried next, and what is to be written of the last try.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Ended;
use crate::gateway::bounds::Allowance;
use crate::objects::{self, EditError};
use crate::reconcile::events;
use crate::reconcile::tunnels::plan::{Step, Subject, Tried, plan};
use crate::state::Key;
use crate::store::Replica;

/// From one try of a tunnel to the next, a tenth more or less: those of a thousand do not come together.
pub(super) const PERIOD: Duration = Duration::from_secs(30);

/// Before a failure is believed, and before a target that changed is tried: others may change with it.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// Tries of one tunnel whose targets come and go: so many at once, and one more for each period. What each finds
/// may be written down.
const HASTY: (u32, Duration) = (5, Duration::from_secs(10));

/// A tunnel, and how it stands with it.
pub(super) struct Known {
    pub(super) subject: Arc<Subject>,
    pub(super) turn: Turn,
    hasty: Allowance,
    pub(super) tried: Option<Tried>,
    /// What is known may not be written yet.
    pub(super) is_news: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    At(Instant),
    UnderWay,
    /// It would be in vain.
    Never,
}

impl Known {
    pub(super) fn new(subject: Subject, now: Instant) -> Self {
        let in_vain = subject.obstacle.is_some();
        Self {
            subject: Arc::new(subject),
            turn: if in_vain { Turn::Never } else { Turn::At(now) },
            hasty: Allowance::new(HASTY.0, HASTY.1, now),
            tried: None,
            is_news: in_vain,
        }
    }

    /// What is another now is tried at once; where only the targets are, not all the time.
    pub(super) fn follow(&mut self, subject: Subject, now: Instant) {
        if *self.subject == subject {
            return;
        }
        let in_vain = subject.obstacle.is_some();
        let is_same = subject.asks_the_same(&self.subject);
        if !is_same {
            self.tried = None;
        }
        self.turn = match self.turn {
            _ if in_vain => Turn::Never,
            Turn::UnderWay => Turn::UnderWay,
            Turn::At(at) if is_same => Turn::At(self.hasten(at, now)),
            Turn::At(_) | Turn::Never => Turn::At(now),
        };
        self.is_news = in_vain;
        self.subject = Arc::new(subject);
    }

    pub(super) fn take(&mut self, ended: Ended, now: Instant) {
        if self.turn != Turn::UnderWay {
            return;
        }
        if !ended.subject.asks_the_same(&self.subject) {
            self.turn = Turn::At(now);
            return;
        }
        let next = now + rest();
        self.turn = Turn::At(match ended.subject == self.subject {
            true => next,
            false => self.hasten(next, now),
        });
        let before = self.tried.take();
        let tried = Tried::new(&self.subject, ended.observation, ended.at, before.as_ref());
        self.tried = Some(tried);
        self.is_news = true;
    }

    pub(super) fn begin(&mut self, now: Instant) -> Arc<Subject> {
        self.turn = Turn::UnderWay;
        // Those that come in their own time are few.
        let _ = self.hasty.take(now);
        self.subject.clone()
    }

    /// When to try what would have its turn at a time, and is another since.
    fn hasten(&self, at: Instant, now: Instant) -> Instant {
        let wait = self.hasty.clone().take(now).err().unwrap_or(SHORT);
        at.min(now + wait)
    }

    /// False if it could not be written.
    pub(super) async fn tell(&mut self, replica: &Replica, key: &Key) -> bool {
        let subject = self.subject.clone();
        let (mut again, mut news) = (false, None);
        let written = objects::edit(replica, key, |body| {
            (again, news) = (false, None);
            let metadata = &body["metadata"];
            if metadata["uid"] != *subject.uid || metadata["generation"] != subject.generation {
                // What changed it brings the next look.
                return false;
            }
            let now = Timestamp::now();
            match plan(&subject, self.tried.as_ref(), &body["status"], now) {
                Step::Nothing => false,
                Step::TryAgain => {
                    again = true;
                    false
                }
                Step::Write { status, notice } => {
                    body["status"] = status;
                    news = notice;
                    true
                }
            }
        })
        .await;
        match written {
            Ok(()) => {}
            Err(EditError::NotFound(_)) => return true,
            Err(error) => {
                tracing::warn!(tunnel = %key, error = &error as &dyn std::error::Error, "cannot write status");
                return false;
            }
        }
        self.is_news = false;
        if let (true, Turn::At(at)) = (again, self.turn) {
            self.turn = Turn::At(at.min(Instant::now() + SHORT));
        }
        if let Some(notice) = news {
            events::record(replica, key, notice).await;
        }
        true
    }
}

/// From 27 to 33 s.
fn rest() -> Duration {
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    PERIOD.mul_f64(0.9 + 0.2 * random)
}
