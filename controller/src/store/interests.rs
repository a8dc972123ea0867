//! Who is woken by which changes: each says what matters to it, and nothing else wakes it.
//!
//! A dozen tasks look at the state when it changed. Were all of them woken by each write, to find
//! that it is no matter, that would cost more than the write.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use crate::state::{Change, State};

#[derive(Default)]
pub struct Interests(Mutex<Vec<Interest>>);

struct Interest {
    relevant: fn(&Change) -> bool,
    /// The revision of the last change that matters.
    touched: watch::Sender<u64>,
}

impl Interests {
    fn lock(&self) -> MutexGuard<'_, Vec<Interest>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the interests")
    }

    /// From here on; the state that is read after this lacks nothing that is not told.
    pub fn join(&self, relevant: fn(&Change) -> bool) -> watch::Receiver<u64> {
        let (touched, told) = watch::channel(0);
        let mut all = self.lock();
        all.retain(|interest| !interest.touched.is_closed());
        all.push(Interest { relevant, touched });
        told
    }

    /// Wakes those to whom something matters that happened after revision `seen`, or may have:
    /// changes of controllers and artifacts are not told apart, and old ones are not kept.
    pub fn announce(&self, seen: u64, state: &State) {
        let revision = state.revision();
        if revision == seen {
            return;
        }
        let changes = state.changes_since(seen).map(Vec::from_iter);
        let known = changes.ok().filter(|changes| {
            // Each change of any kind takes one revision.
            revision == seen + changes.len() as u64
        });
        for interest in &*self.lock() {
            let touched = match &known {
                Some(changes) => changes.iter().any(|change| (interest.relevant)(change)),
                None => true,
            };
            if touched {
                interest.touched.send_replace(revision);
            }
        }
    }
}
