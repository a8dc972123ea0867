//! What functions of the node used, on its way into the totals: bounded, proposed, acknowledged.
//!
//! The agent sends a batch until it hears that it is held: what cannot be counted now is not lost, and
//! what was counted already is not counted again.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hive_proto::v1::{Metered, Metering, controller_message};
use jiff::Timestamp;
use tonic::Status;

use super::{Progress, Session, bounds};
use crate::node_record::NodeRecord;
use crate::objects::{self, Writer};
use crate::state::metering::Batch;
use crate::state::{Command, State, level};

/// Of what tells one ledger from another.
const ORIGIN_BYTES: usize = 16;

impl Session {
    /// Counts a batch unless it was counted, and says so. One that could not be written comes again.
    pub(super) async fn meter(
        &self,
        progress: &mut Progress,
        told: Metering,
    ) -> Result<(), Status> {
        if told.origin.len() != ORIGIN_BYTES {
            return Err(Status::invalid_argument("what was used is of no ledger"));
        }
        let state = self.replica.state();
        // The agent asks no sooner, unless this replica fell back.
        if state.level() < level::METERING {
            return Ok(());
        }
        while let Err(wait) = progress.batches.take(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        let origin = hex::encode(&told.origin);
        let held = |state: &State| state.metering().held(&self.device, &origin);
        if held(&state) < told.sequence {
            let now = unix_ms(SystemTime::now());
            let heard = self.heard(&state).unwrap_or(now);
            let seconds = now.saturating_sub(heard) / 1000;
            let batch = Batch {
                device: self.device.clone(),
                origin: origin.clone(),
                sequence: told.sequence,
                at_unix_ms: now,
                entries: bounds::used(told.entries, seconds),
            };
            if let Err(error) = self.together.write(Command::Meter { batch }).await {
                tracing::warn!(
                    node = self.node,
                    error = &error as &dyn std::error::Error,
                    "what functions used is not counted yet"
                );
                return Ok(());
            }
        }
        let metered = Metered {
            sequence: held(&self.replica.state()),
            origin: told.origin,
        };
        self.send(controller_message::Kind::Metered(metered)).await
    }

    /// When what the node used was counted last, or since when it is a node, in ms since 1970.
    fn heard(&self, state: &State) -> Option<u64> {
        let created = || {
            let node = state.get(&objects::node_key(&self.node))?;
            let created: Timestamp = NodeRecord::of(node).created().parse().ok()?;
            u64::try_from(created.as_millisecond()).ok()
        };
        state.metering().heard(&self.device).or_else(created)
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
