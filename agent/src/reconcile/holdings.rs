//! What is whole on this node's disk, for the controllers: they prefer a node that has what a copy needs. A
//! pure function, the channel that takes its result, and what a session has told of it.

use std::cmp::Reverse;
use std::sync::Arc;

use hive_proto::{holdings, v1};
use tokio::sync::watch;

use super::observed::{ArtifactState, Observed};

/// As they are told, in order.
pub type Holdings = Arc<[u64]>;

/// Of more than are told, those that were wanted last.
pub fn of(observed: &Observed) -> Vec<u64> {
    let mut whole: Vec<_> = observed
        .artifacts
        .iter()
        .filter(|(_, on_disk)| on_disk.state == ArtifactState::Held)
        .map(|(digest, on_disk)| (Reverse(on_disk.last_wanted), holdings::prefix(&digest.0)))
        .collect();
    if whole.len() > holdings::AT_MOST {
        whole.sort_unstable();
        whole.truncate(holdings::AT_MOST);
    }
    let mut told: Vec<u64> = whole.into_iter().map(|(_, prefix)| prefix).collect();
    told.sort_unstable();
    told
}

pub fn publish(observed: &Observed, to: &watch::Sender<Holdings>) {
    let now = of(observed);
    to.send_if_modified(|before| {
        let changed = **before != *now;
        if changed {
            *before = now.into();
        }
        changed
    });
}

/// What one session has told.
#[derive(Default)]
pub struct Told(Holdings);

impl Told {
    /// What is to be told now: all of it, if anything is new.
    pub fn news(&mut self, now: &Holdings) -> Option<v1::Holdings> {
        if self.0 == *now {
            return None;
        }
        self.0 = now.clone();
        Some(v1::Holdings {
            artifacts: now.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use super::*;
    use crate::ids::Digest;

    fn digest(number: u16) -> Digest {
        let mut digest = Digest([0; 32]);
        digest.0[6..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn a_session_tells_what_is_whole_when_that_changes_and_each_begins_anew() {
        let (now, mut observed) = (Instant::now(), Observed::default());
        let published = watch::Sender::<Holdings>::default();
        let mut told = Told::default();
        let news = |observed: &Observed, told: &mut Told| {
            publish(observed, &published);
            let news = told.news(&published.borrow());
            news.map(|it| it.artifacts)
        };
        assert_eq!(news(&observed, &mut told), None);
        // What comes in is no news until it is there.
        observed.set_artifact(digest(1), ArtifactState::Fetching, now);
        observed.set_artifact(digest(2), ArtifactState::Partial, now);
        assert_eq!(news(&observed, &mut told), None);
        observed.set_artifact(digest(1), ArtifactState::Held, now);
        assert_eq!(news(&observed, &mut told), Some(vec![1]));
        // That it is wanted again changes nothing.
        let later = now + Duration::from_secs(60);
        observed.set_artifact(digest(1), ArtifactState::Held, later);
        assert_eq!(news(&observed, &mut told), None);
        assert_eq!(news(&observed, &mut Told::default()), Some(vec![1]));
        observed.artifacts.clear();
        assert_eq!(news(&observed, &mut told), Some(vec![]));
        assert_eq!(news(&observed, &mut told), None);
    }

    #[test]
    fn of_too_many_those_are_told_that_were_wanted_last() {
        let (now, mut observed) = (Instant::now(), Observed::default());
        let all = holdings::AT_MOST as u16 + 100;
        for number in 0..all {
            // The lower, the later.
            let wanted = now + Duration::from_secs(u64::from(all - number));
            observed.set_artifact(digest(number), ArtifactState::Held, wanted);
        }
        let expected: Vec<u64> = (0..holdings::AT_MOST as u64).collect();
        assert_eq!(of(&observed), expected);
    }
}
