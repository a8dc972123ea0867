//! Who refuses this replica's votes, since it was removed. Whoever was cut off when its removal was agreed
//! on is sent nothing any more, and would ask for votes for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// Clones are handles to one.
#[derive(Clone, Default)]
pub(super) struct Refusals(Arc<watch::Sender<BTreeSet<u64>>>);

impl Refusals {
    pub(super) fn refused(&self, by: u64) {
        self.0.send_if_modified(|refusing| refusing.insert(by));
    }

    pub(super) fn heard(&self, by: u64) {
        self.0.send_if_modified(|refusing| refusing.remove(&by));
    }

    /// Resolves when a majority of each of `voters` refuses. Fewer may be mistaken: one of three that
    /// began anew without the others refuses them, while they may still be the swarm.
    pub(super) async fn of_majorities(&self, voters: impl Fn() -> Vec<BTreeSet<u64>>) {
        let mut refusing = self.0.subscribe();
        let refused = refusing.wait_for(|refusing| {
            let of_majority =
                |voters: &BTreeSet<u64>| 2 * voters.intersection(refusing).count() > voters.len();
            let voters = voters();
            !voters.is_empty() && voters.iter().all(of_majority)
        });
        // The sender lives as long as this.
        drop(refused.await);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn only_majorities_throw_a_member_out() {
        /// Sets of voters, who refuses, and whether that is enough.
        type Row<'a> = (&'a [&'a [u64]], &'a [u64], bool);
        let table: [Row<'_>; 8] = [
            (&[&[1, 2, 3]], &[1, 2], true),
            (&[&[1, 2, 3]], &[1], false),
            (&[&[1, 3]], &[1], false),
            (&[&[1, 2, 3, 4]], &[1, 2], false),
            (&[&[1, 2, 3, 4]], &[1, 2, 4], true),
            (&[&[1, 2, 3], &[1, 2, 4]], &[1, 2], true),
            (&[&[1, 2, 3], &[1, 4, 5]], &[1, 2], false),
            (&[], &[1, 2], false),
        ];
        for (voters, refusing, is_out) in table {
            let refusals = Refusals::default();
            // Of the past: heard since.
            refusals.refused(2);
            refusals.refused(3);
            refusals.heard(2);
            refusals.heard(3);
            for by in refusing {
                refusals.refused(*by);
            }
            let sets = || voters.iter().map(|ids| ids.iter().copied().collect());
            let out = refusals.of_majorities(|| sets().collect()).now_or_never();
            assert_eq!(out.is_some(), is_out, "{refusing:?} of {voters:?}");
        }
    }
}
