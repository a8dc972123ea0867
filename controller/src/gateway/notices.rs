//! What agents tell of, on its way into Event objects: gathered for a moment, so that what ten thousand
//! nodes say alike becomes one event that counts them.
//!
//! Events are told as well as can be: where more comes than can be written, some are lost. A failure of
//! the task that writes them loses all, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::reconcile::events::{self, Notice, Occasion};
use crate::state::Key;
use crate::store::Replica;

/// How long what is told alike is gathered, after the first of its kind went out at once.
const GATHER: Duration = Duration::from_millis(500);

/// Told and not taken up yet: the burst of a deployment on many nodes, at 300 bytes each.
const QUEUE: usize = 4096;

/// A clone tells the same task.
#[derive(Clone)]
pub struct Notices(mpsc::Sender<Told>);

/// About which object, and the last occasion of it.
type Told = (Key, Notice, Occasion);

/// Of what is told alike: object, reason, message, source, whether it is a warning.
type Alike = (Key, String, String, String, bool);

impl Notices {
    /// The sender, and the task that writes until cancelled.
    pub fn new(replica: Replica, cancel: CancellationToken) -> (Self, impl Future<Output = ()>) {
        let (sender, mut told) = mpsc::channel(QUEUE);
        let write = async move {
            let mut gathered = BTreeMap::new();
            while let Some(Some(first)) = cancel.run_until_cancelled(told.recv()).await {
                gather(&mut gathered, first);
                while let Ok(more) = told.try_recv() {
                    gather(&mut gathered, more);
                }
                for ((about, ..), (notice, last)) in std::mem::take(&mut gathered) {
                    events::record_of(&replica, &about, notice, last).await;
                }
                tokio::time::sleep(GATHER).await;
            }
        };
        (Self(sender), write)
    }

    /// An event about an object, soon.
    pub fn tell(&self, about: Key, notice: Notice, last: Occasion) {
        if let Err(error) = self.0.try_send((about, notice, last)) {
            tracing::debug!(%error, "one event too many");
        }
    }
}

fn gather(gathered: &mut BTreeMap<Alike, (Notice, Occasion)>, (about, notice, occasion): Told) {
    let alike = (
        about,
        notice.reason.clone(),
        notice.message.clone(),
        notice.source.clone(),
        notice.warning,
    );
    match gathered.get_mut(&alike) {
        Some((known, last)) => {
            known.count = known.count.saturating_add(notice.count);
            *last = occasion;
        }
        None => {
            gathered.insert(alike, (notice, occasion));
        }
    }
}

#[cfg(test)]
mod tests {
    use hive_manifests::Resource;

    use super::*;

    #[test]
    fn what_is_told_alike_is_counted() {
        let about = |name: &str| Key::new(Resource::Function, "default", name);
        let notice = |message: &str, count| Notice {
            warning: false,
            reason: "Serving".into(),
            message: message.into(),
            source: "agents".into(),
            count,
        };
        let mut gathered = BTreeMap::new();
        let told = [("f", "a", 1), ("f", "a", 2), ("f", "b", 1), ("g", "a", 1)];
        for (generation, (name, message, count)) in (1..).zip(told) {
            let occasion = Occasion {
                generation,
                ..Occasion::default()
            };
            gather(
                &mut gathered,
                (about(name), notice(message, count), occasion),
            );
        }
        let told = gathered.values();
        let told: Vec<_> = told
            .map(|(notice, last)| (notice.count, last.generation))
            .collect();
        assert_eq!(told, [(3, 2), (1, 3), (1, 4)]);
    }
}
