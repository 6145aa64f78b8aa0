//! Where a queue begins, and keeping how far it is: on the broker, or for broadcasting in a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weirmq_remoting::body::MessageQueue;

use super::config::ConsumeFrom;
use super::member::Member;
use super::queue::AssignedQueue;
use crate::ClientError;

/// One line of a broadcasting member's file.
#[derive(Serialize, Deserialize)]
struct Position {
    #[serde(flatten)]
    queue: MessageQueue,
    offset: u64,
}

impl Member {
    /// Where this member begins with `queue`.
    ///
    /// # Errors
    /// Whenever it cannot be found out: an unknown offset is never taken for the beginning.
    pub(super) async fn first_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        let known = if self.is_broadcasting() {
            self.local_offsets.lock().get(queue).copied()
        } else {
            self.core().committed_offset(self.group(), queue).await?
        };
        if let Some(offset) = known {
            return Ok(offset);
        }
        let is_retry = queue.topic == self.retry_topic();
        match self.config.consume_from {
            // What was given back before this member came is wanted in any case.
            ConsumeFrom::Last if is_retry => self.core().min_offset(queue).await,
            ConsumeFrom::Timestamp(_) if is_retry => self.core().min_offset(queue).await,
            ConsumeFrom::Last => self.core().max_offset(queue).await,
            ConsumeFrom::First => self.core().min_offset(queue).await,
            ConsumeFrom::Timestamp(time_ms) => self.core().offset_by_time(queue, time_ms).await,
        }
    }

    /// Commits offsets for as long as the consumer runs.
    pub(super) async fn commit_loop(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.config.commit_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        while self.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            for assigned in self.assigned() {
                if assigned.stop.is_cancelled() {
                    continue;
                }
                self.commit(&assigned).await;
            }
            self.save_local_offsets().await;
        }
    }

    /// Commits how far `assigned` is, if that is news.
    pub(super) async fn commit(&self, assigned: &AssignedQueue) {
        if self.config.is_ordered && !assigned.is_locked() {
            // The queue's new owner may be further already.
            return;
        }
        let mut committed = assigned.committed.lock().await;
        let offset = assigned.committable();
        if *committed == Some(offset) {
            return;
        }
        if self.is_broadcasting() {
            self.local_offsets.lock().insert(assigned.queue.clone(), offset);
            *committed = Some(offset);
            return;
        }
        match self.core().commit_offset(self.group(), &assigned.queue, offset).await {
            Ok(()) => *committed = Some(offset),
            Err(error) => {
                tracing::warn!(queue = ?assigned.queue, offset, %error, "commit failed, it is tried again");
            }
        }
    }

    /// Writes a broadcasting member's file, if it has one.
    pub(super) async fn save_local_offsets(&self) {
        if !self.is_broadcasting() {
            return;
        }
        let Some(path) = &self.config.broadcast_offsets else { return };
        let positions: Vec<Position> = {
            let offsets = self.local_offsets.lock();
            let position = |(queue, offset): (&MessageQueue, &u64)| Position {
                queue: queue.clone(),
                offset: *offset,
            };
            offsets.iter().map(position).collect()
        };
        if let Err(error) = save(path, &positions).await {
            tracing::error!(path = %path.display(), %error, "broadcast offsets were not saved");
        }
    }
}

/// Reads a broadcasting member's file; a missing one is empty.
///
/// # Errors
/// [`ClientError::Config`] when there is a file that is not such a file: beginning anew would
/// repeat or lose messages.
pub(super) async fn load(path: &Path) -> Result<BTreeMap<MessageQueue, u64>, ClientError> {
    let refused = |error: String| {
        ClientError::Config(format!("broadcast offsets {}: {error}", path.display()))
    };
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(refused(error.to_string())),
    };
    let positions: Vec<Position> =
        serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
    Ok(positions.into_iter().map(|position| (position.queue, position.offset)).collect())
}

/// Replaces the file as a whole, so that a crash leaves the old or the new one.
async fn save(path: &Path, positions: &[Position]) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(positions)?;
    let draft = path.with_extension("draft");
    tokio::fs::write(&draft, bytes).await?;
    tokio::fs::rename(&draft, path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn saved_offsets_come_back_and_damage_is_not_taken_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("offsets.json");
        assert!(load(&path).await.unwrap().is_empty());
        let queue = MessageQueue::new("t", "b", 3);
        save(&path, &[Position { queue: queue.clone(), offset: 7 }]).await.unwrap();
        assert_eq!(load(&path).await.unwrap(), BTreeMap::from([(queue, 7)]));
        tokio::fs::write(&path, b"{").await.unwrap();
        assert!(matches!(load(&path).await, Err(ClientError::Config(_))));
    }
}
