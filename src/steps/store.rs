//! A step that makes sure of the store before a disaster needs it: its guarantees hold, what is in it can be read, and what may
//! go does go.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{Executor, store_error};
use crate::backup::claim;
use crate::backup::entry::{Entry, Standing};
use crate::backup::prune::{EXPIRABLE_TAG, EXPIRABLE_VALUE};
use crate::backup::verify;
use crate::config::Removal;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;
use crate::store::{Condition, StoreError};

/// A lifecycle rule runs once a day, and may take another to begin.
const RULE_IS_LATE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Backups whose tags are asked for, oldest first.
const LOOKED_AT: usize = 5;

impl Executor {
    pub(super) async fn store_ready(&self, task: &Task) -> Result<Outcome, StepError> {
        let work = async {
            self.only_one_writes(task).await?;
            let entries = self.listing().await?;
            let newest = entries.iter().filter(|entry| entry.standing == Standing::Good);
            let newest = newest.max_by_key(|entry| entry.consistent_at).ok_or_else(|| {
                StepError::permanent("there is no good backup in the store: take one (planb backup), then go on")
            })?;
            // The end of the file tells what is in it: it can be read, and is the one that was listed.
            verify::open(&self.backups, newest)
                .await
                .map_err(|error| StepError::permanent(format!("{} cannot be read: {error}", newest.id)))?;
            let rule = self.lifecycle(&entries).await?;
            Ok(Outcome {
                note: format!(
                    "{} can be written and read; newest backup {}; {rule}",
                    self.backups.describe(),
                    newest.id
                ),
                ..Outcome::default()
            })
        };
        tokio::select! {
            done = work => done,
            () = task.cancel.cancelled() => Err(StepError::passing("the store did not answer in time")),
        }
    }

    /// What lease and journal stand on: of two writers the store takes one.
    async fn only_one_writes(&self, task: &Task) -> Result<(), StepError> {
        let name = format!("probe/{}", claim::key(&self.config.store.prefix));
        let mark = |what: &str| Bytes::from(format!("{what} of operation {}", task.operation.number));
        let written = self.control.put(&name, mark("first"), Condition::Always).await;
        let written = written.map_err(store_error)?;
        match self.control.put(&name, mark("second"), Condition::Absent).await {
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(store_error(error)),
            Ok(_) => {
                return Err(StepError::permanent(format!(
                    "{} overwrites what it was told to leave: lease and journal cannot be trusted to it",
                    self.control.describe()
                )));
            }
        }
        let size = mark("first").len() as u64;
        let read = self.control.read(&name, 0..size, Some(&written)).await;
        if read.map_err(store_error)? == mark("first") {
            Ok(())
        } else {
            Err(StepError::permanent(format!(
                "{} does not give back what was written to it",
                self.control.describe()
            )))
        }
    }

    /// The rule itself belongs to the account, out of reach from here; what it leaves behind tells.
    async fn lifecycle(&self, entries: &[Entry]) -> Result<String, StepError> {
        if self.config.retention.removal != Removal::Tag {
            return Ok("backups are removed by the agent, no lifecycle rule is needed".to_owned());
        }
        let now = self.backups.now().await.map_err(store_error)?;
        let keeps = SignedDuration::from_hours(24 * i64::from(self.config.retention.keep_days)) + RULE_IS_LATE;
        let mut late = Vec::new();
        for entry in oldest(entries, now, keeps) {
            let tags = self.backups.tags(&entry.blob).await.map_err(store_error)?;
            if tags.get(EXPIRABLE_TAG).is_some_and(|value| value == EXPIRABLE_VALUE) {
                late.push(entry.id.to_string());
            }
        }
        if late.is_empty() {
            return Ok("nothing that the lifecycle rule should have removed is left".to_owned());
        }
        Err(StepError::permanent(format!(
            "{} may go since a week, and is still there: the account's lifecycle policy is missing or wrong; planb prune --policy \
             prints the one that it should have",
            late.join(", ")
        )))
    }
}

fn oldest(entries: &[Entry], now: Timestamp, keeps: SignedDuration) -> impl Iterator<Item = &Entry> {
    let old = move |entry: &&Entry| now.duration_since(entry.consistent_at) > keeps;
    entries.iter().rev().filter(old).take(LOOKED_AT)
}
