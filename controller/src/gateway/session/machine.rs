//! What a machine says of its state, as conditions of its node: only changes are written.

use std::time::SystemTime;

use hive_proto::v1::Usage;
use jiff::Timestamp;
use tonic::Status;

use super::{Progress, Session};
use crate::node_conditions;
use crate::node_record::NodeRecord;
use crate::objects;
use crate::reconcile::events::{Notice, Occasion};

impl Session {
    /// Writes what is wrong with the machine, or no longer is. What could not be written is, when the machine
    /// says it again.
    pub(super) async fn judge(&self, progress: &mut Progress, usage: &Usage) -> Result<(), Status> {
        let (key, now) = (objects::node_key(&self.node), SystemTime::now());
        let changes = {
            let state = self.replica.state();
            let Some(node) = state.get(&key) else {
                return Ok(());
            };
            let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
            node_conditions::changes(&NodeRecord::of(node), usage, now)
        };
        if changes.is_empty() || !self.claim(progress).await? {
            return Ok(());
        }
        let written = objects::edit(&self.together, &key, |body| {
            for change in &changes {
                change.write(&mut body["status"], now);
            }
            self.still_counts(&self.replica.state(), progress).is_ok()
        })
        .await;
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                node = self.node,
                error,
                "cannot write the node's conditions"
            );
            return Ok(());
        }
        for change in changes {
            tracing::info!(
                node = self.node,
                condition = change.kind,
                holds = change.holds,
                "node changed"
            );
            let notice = Notice {
                warning: change.holds,
                reason: change.reason.to_owned(),
                message: change.message,
                source: format!("agent/{}", self.node),
                count: 1,
            };
            self.notices.tell(key.clone(), notice, Occasion::default());
        }
        Ok(())
    }
}
