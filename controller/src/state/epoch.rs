//! A swarm that begins anew from a state which may lack what was acknowledged: after a backup was
//! restored, or a survivor of a lost majority was made to go on alone.
//!
//! The epoch tells agents that a state which seems older than what they hold is the newer one. Pure.

use imbl::OrdMap;

use super::{History, Member, State};

/// What the revision leaps by. More than a swarm writes between a backup and its restoration (at
/// 1,000 writes a second it takes eleven days), so that no revision which a client saw before is
/// ever given to something else: its watches get 410 and list again, and its compare-and-swap
/// fails. The counter has room for 18 thousand million epochs.
pub const REVISION_LEAP: u64 = 1_000_000_000;

impl State {
    /// How often the swarm began anew; 0 in one that never had to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The state with which one controller goes on, and its id. The ids before it are those of
    /// former controllers, which are refused.
    pub fn begin_anew(&self, member: Member) -> (u64, Self) {
        let mut state = self.clone();
        state.epoch += 1;
        state.revision += REVISION_LEAP;
        state.history = History::starting_at(state.revision);
        state.access_revision = state.revision;
        state.last_controller += 1;
        let id = state.last_controller;
        state.controllers = OrdMap::unit(id, member);
        state.keys = OrdMap::new();
        (id, state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Command;

    #[test]
    fn who_begins_anew_is_alone_and_ahead_of_all_that_was_seen() {
        let mut old = State::default();
        for _ in 0..3 {
            let member = Member::default();
            old.apply(Command::AdmitController { member }).unwrap();
        }
        let (id, new) = old.begin_anew(Member::default());
        assert_eq!(id, 4);
        assert_eq!(new.controllers().map(|(id, _)| id).collect::<Vec<_>>(), [4]);
        assert!((1..4).all(|id| new.is_former_controller(id)));
        assert_eq!(new.epoch(), old.epoch() + 1);
        assert!(new.revision() > old.revision());
        // Whoever watched the old swarm is told to list again.
        assert!(new.changes_since(old.revision()).is_err());
        assert!(new.changes_since(new.revision()).is_ok());
        let restored = State::from_image(new.image());
        assert_eq!((restored.epoch(), restored.level()), (1, new.level()));
    }
}
