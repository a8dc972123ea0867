//! Meters what functions use until the controllers have counted it: durable here until it is durable there.
//!
//! Counts come from the [`Meters`] each minute and are written to the ledger, and the session takes sealed batches
//! from there. Whatever restarts or gets lost meanwhile, what was written down counts once; [`book`] has the
//! rules. Without traffic nothing is written or sent. What was counted since the last write is lost when the
//! power is, or the process is killed; an agent that is stopped loses nothing.

mod book;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hive_proto::v1;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, LedgerError};
use crate::usage::Meters;
use book::Book;
pub use book::Used;

/// A clone is the same.
#[derive(Clone)]
pub struct Metering {
    book: Arc<Mutex<Book>>,
    /// `None` of a simulated node, which uses nothing.
    ledger: Option<Arc<Ledger>>,
    sealed: watch::Sender<Option<Arc<v1::Metering>>>,
    /// Whether there is a session with controllers that count it.
    is_taken: watch::Sender<bool>,
}

impl Metering {
    /// Goes on with the book in the ledger. One that is damaged is lost with what it had open; a new one
    /// counts nothing twice.
    pub fn open(ledger: Arc<Ledger>) -> Result<Self, LedgerError> {
        let kept = match ledger.metering() {
            Err(damage @ LedgerError::Damaged { .. }) => {
                tracing::error!(%damage, "what functions used and was not told is lost");
                None
            }
            other => other?,
        };
        let book = kept.map_or_else(|| Book::new(fresh_origin()), Book::decode);
        Ok(Self::on(book, Some(ledger)))
    }

    /// Of a node that uses nothing.
    #[cfg(feature = "sim")]
    pub fn none() -> Self {
        Self::on(Book::default(), None)
    }

    fn on(book: Book, ledger: Option<Arc<Ledger>>) -> Self {
        let sealed = watch::Sender::new(book.sealed().cloned().map(Arc::new));
        Self {
            book: Arc::new(Mutex::new(book)),
            ledger,
            sealed,
            is_taken: watch::Sender::new(false),
        }
    }

    /// What is to be sent, until it is held; announced again each time that it is to be sent again.
    pub fn sealed(&self) -> watch::Receiver<Option<Arc<v1::Metering>>> {
        self.sealed.subscribe()
    }

    /// Counts each interval until `stop`. `name` is the node's: not all write at the same time.
    pub async fn run(self, meters: Meters, every: Duration, name: String, stop: CancellationToken) {
        let first = Instant::now() + every.mul_f64(fraction(&name));
        let mut ticks = tokio::time::interval_at(first, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (metering, meters) = (self.clone(), meters.clone());
            let counting = tokio::task::spawn_blocking(move || metering.count(&meters));
            match counting.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "what functions used is not written down yet"
                ),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    /// Writes down what was counted since the last time. Blocks for a disk sync if there was something. What
    /// cannot be written is kept for the next time, and not sent before.
    pub fn count(&self, meters: &Meters) -> Result<(), LedgerError> {
        let mut book = self.book();
        book.add(meters.drain());
        // What was sent before, and not answered, is sent again.
        self.write(&mut book, true)
    }

    /// Whether somebody takes it now: for the session to say.
    pub fn set_taken(&self, is_taken: bool) {
        self.is_taken.send_replace(is_taken);
    }

    /// Waits until the controllers hold all that was written down, or nobody is there who takes it.
    pub async fn settled(&self) {
        let (mut sealed, mut is_taken) = (self.sealed(), self.is_taken.subscribe());
        // The senders are here.
        tokio::select! {
            _ = sealed.wait_for(Option::is_none) => {}
            _ = is_taken.wait_for(|is_taken| !is_taken) => {}
        }
    }

    /// The controllers hold all up to there. Blocks for a disk sync if there is more to be sent.
    pub fn held(&self, held: &v1::Metered) -> Result<(), LedgerError> {
        let mut book = self.book();
        if !book.held(&held.origin, held.sequence) {
            tracing::warn!(
                sequence = held.sequence,
                "the ledger is an older copy of itself: what functions used since it was put back may not be counted"
            );
        }
        self.write(&mut book, false)
    }

    /// Seals what can be, writes down what is new, and only then announces what is to be sent.
    fn write(&self, book: &mut Book, again: bool) -> Result<(), LedgerError> {
        let mut next = book.clone();
        next.seal();
        if let (Some(ledger), Some(written)) = (&self.ledger, next.to_write()) {
            ledger.save_metering(&written)?;
        }
        next.is_written();
        *book = next;
        let sealed = book.sealed();
        self.sealed.send_if_modified(|known| {
            let is_new = known.as_deref() != sealed;
            if is_new {
                *known = sealed.cloned().map(Arc::new);
            }
            is_new || (again && sealed.is_some())
        });
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sequence numbers mean something to one ledger only.
fn fresh_origin() -> [u8; 16] {
    let random = RandomState::new();
    let mut origin = [0; 16];
    origin[..8].copy_from_slice(&random.hash_one(0).to_le_bytes());
    origin[8..].copy_from_slice(&random.hash_one(1).to_le_bytes());
    origin
}

/// Of 1, always the same for the same name.
fn fraction(name: &str) -> f64 {
    let hash = crate::ids::Digest::of(name.as_bytes()).0;
    f64::from(u16::from_le_bytes([hash[0], hash[1]])) / f64::from(u16::MAX)
}
