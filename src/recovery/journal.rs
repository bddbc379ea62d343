//! The journal in the store: one small blob for each entry, created only if absent, so that of two writers one wins and the
//! other one learns of it.
//!
//! `journal/KEY/gGENERATION/OPERATION/ENTRY.json`. A damaged journal is left where it is; a person may have a new generation
//! begun, which starts from what could still be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::event::{By, Entry, EntryError, Event};
use super::plan::Aim;
use super::state::{Illegal, Standing, State};
use crate::store::{BlobStore, Condition, StoreError};

/// Entries read at once.
const SIDE_BY_SIDE: usize = 8;

/// One service's journal.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Arc<dyn BlobStore>,
    /// Ends with `/`.
    prefix: String,
    /// Of rehearsals: no real operation is written here, and no rehearsal into the other one.
    is_of_drills: bool,
}

/// Where a journal stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    pub state: State,
    /// Counts from 1; a new one begins after damage.
    pub generation: u32,
    /// When the last entry was written.
    pub at: Option<Timestamp>,
}

/// What concerns whoever makes, lists or removes backups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Known {
    pub standing: Standing,
    /// An operation is under way.
    pub is_open: bool,
    /// The journal is damaged: this is what it said before that.
    pub damage: Option<String>,
}

impl Known {
    /// What was read, as far as it can be known.
    ///
    /// # Errors
    /// The store's.
    pub fn of(read: &Result<Position, JournalError>) -> Result<Self, StoreError> {
        let (position, damage) = match read {
            Ok(position) => (position, None),
            Err(JournalError::Store(error)) => return Err(error.clone()),
            Err(JournalError::Damaged { blob, detail, good }) => (good.as_ref(), Some(format!("{blob}: {detail}"))),
            Err(JournalError::Illegal(_) | JournalError::Raced) => return Ok(Self::default()),
        };
        Ok(Self {
            is_open: position.state.open().is_some() || damage.is_some(),
            standing: position.state.standing.clone(),
            damage,
        })
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    #[error(
        "the journal is damaged: {blob}: {detail}; it says nothing reliable after that. Look at what stands in both clouds; then \
         begin a new journal, from what could be read ({}), with --accept journal-damaged=REASON",
        readable(.good)
    )]
    Damaged {
        blob: String,
        detail: String,
        /// What could be read before it.
        good: Box<Position>,
    },
    #[error("the journal could not be read or written: {0}")]
    Store(#[from] StoreError),
    /// Somebody else wrote that entry: read on, and decide anew.
    #[error("somebody else goes on with the operation")]
    Raced,
    /// A decision that does not follow from the state it was made on.
    #[error(transparent)]
    Illegal(#[from] Illegal),
}

impl JournalError {
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Illegal(_) => true,
            Self::Store(error) => error.is_permanent(),
            Self::Raced => false,
        }
    }
}

fn readable(position: &Position) -> String {
    let standing = &position.state.standing;
    let serving = standing.serving.map_or("nobody serves", |site| match site {
        super::plan::Site::Primary => "the primary serves",
        super::plan::Site::Standby => "the standby serves",
    });
    format!("{serving}, epoch {}, stage {}", standing.epoch(), standing.stage)
}

/// An entry with its digest, or why there is none; beside the name of its blob.
type Read = (String, Result<(Entry, String), EntryError>);

/// Names of entries by operation and number.
type Names = BTreeMap<u64, BTreeMap<u64, String>>;

impl Journal {
    /// `key` tells prefixes of one container apart; see `backup::claim::key`.
    pub fn new(store: Arc<dyn BlobStore>, key: &str) -> Self {
        Self {
            store,
            prefix: format!("journal/{key}/"),
            is_of_drills: false,
        }
    }

    /// Where rehearsals are written down: a journal of its own, which nobody can take for the real one.
    pub fn of_drills(store: Arc<dyn BlobStore>, key: &str) -> Self {
        Self {
            store,
            prefix: format!("drills/{key}/journal/"),
            is_of_drills: true,
        }
    }

    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    fn name(&self, generation: u32, operation: u64, number: u64) -> String {
        format!("{}g{generation}/{operation:06}/{number:06}.json", self.prefix)
    }

    /// The latest operation's entries, folded.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where an entry is missing, torn, altered, or does not follow from those before it.
    pub async fn read(&self) -> Result<Position, JournalError> {
        let (generation, names) = self.list().await?;
        let mut position = Position {
            state: State::default(),
            generation,
            at: None,
        };
        let Some((&operation, entries)) = names.last_key_value() else {
            return Ok(position);
        };
        // Whatever is damaged before: the first entry of the latest operation tells the whole standing.
        position.state.operations = operation.saturating_sub(1);
        if let Some(first) = entries.get(&1)
            && let Ok((
                Entry {
                    event: Event::Opened { standing, .. },
                    ..
                },
                _,
            )) = self.entry(first).await?
        {
            position.state.standing = standing;
            position.state.operations = operation;
        }
        let told = position.clone();
        position.state = State::default();
        // What went before is told by the first entry, and must be what its own last one said.
        let before = operation.checked_sub(1).and_then(|before| names.get(&before));
        if let Some((number, name)) = before.and_then(|entries| entries.last_key_value()) {
            let (last, digest) = self
                .entry(name)
                .await?
                .map_err(|error| damaged(name, &error, &position))?;
            position.state.operations = last.operation;
            position.state.digest = digest;
            position.state.entries = *number;
            position.at = Some(last.at);
            match last.event {
                Event::Ended { standing, .. } | Event::FenceProven { standing, .. } => {
                    position.state.standing = standing
                }
                _ => return Err(damage(name, "the operation does not end with it".to_owned(), &told)),
            }
        }
        let is_first = before.is_none();
        let read: Vec<Read> = stream::iter(entries.values().cloned())
            .map(|name| async move {
                let entry = self.entry(&name).await?;
                Ok::<_, JournalError>((name, entry))
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        for (at, (name, entry)) in read.into_iter().enumerate() {
            let (entry, digest) = entry.map_err(|error| damaged(&name, &error, &position))?;
            // A generation that goes on after a damaged one has nothing before it to be compared with.
            if let (true, 0, Event::Opened { standing, .. }) = (is_first, at, &entry.event)
                && generation > 1
            {
                position.state.standing = standing.clone();
                position.state.digest.clone_from(&entry.previous);
                position.state.operations = entry.operation - 1;
            }
            position = advance(position, &name, &entry, &digest)?;
        }
        Ok(position)
    }

    /// Reads on from `position`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn refresh(&self, mut position: Position) -> Result<Position, JournalError> {
        loop {
            let state = &position.state;
            // A fence may be proven after the end of an operation.
            let mut names = vec![self.name(position.generation, state.operations, state.entries + 1)];
            if state.open().is_none() {
                names.push(self.name(position.generation, state.operations + 1, 1));
            }
            let mut there = None;
            for name in names {
                if there.is_none() && self.store.properties(&name).await?.is_some() {
                    there = Some(name);
                }
            }
            let Some(name) = there else {
                return Ok(position);
            };
            let (entry, digest) = self
                .entry(&name)
                .await?
                .map_err(|error| damaged(&name, &error, &position))?;
            position = advance(position, &name, &entry, &digest)?;
        }
    }

    /// Writes what happened, if it is what comes next.
    ///
    /// # Errors
    /// [`JournalError::Raced`] if somebody else wrote first: nothing is written then.
    pub async fn append(&self, position: &Position, by: &By, event: Event) -> Result<Position, JournalError> {
        let state = &position.state;
        if let Event::Opened { aim, .. } = &event
            && matches!(aim, Aim::Drill { .. }) != self.is_of_drills
        {
            return Err(JournalError::Illegal(Illegal {
                operation: state.operations + 1,
                number: 1,
                why: format!("{} does not belong into {}", aim.command(), self.prefix),
            }));
        }
        let (operation, number) = match event {
            Event::Opened { .. } => (state.operations + 1, 1),
            _ => (state.operations, state.entries + 1),
        };
        // No entry is older than the one before, whatever became of the store's clock.
        let now = self.store.now().await?;
        let at = position.at.map_or(now, |before| before.max(now));
        let entry = Entry::new(
            operation,
            number,
            &state.digest,
            state.standing.epoch(),
            at,
            by.clone(),
            event,
        );
        let (bytes, digest) = entry.encode();
        let next = Position {
            state: state.apply(&entry, &digest)?,
            generation: position.generation,
            at: Some(at),
        };
        let name = self.name(position.generation, operation, number);
        match self.store.put(&name, Bytes::from(bytes), Condition::Absent).await {
            Ok(_) => Ok(next),
            Err(StoreError::AlreadyExists { .. }) => match self.entry(&name).await? {
                // Ours, and only the answer was lost: the run is random, and a run writes one entry at a time.
                Ok((_, there)) if there == digest => Ok(next),
                Ok(_) | Err(_) => Err(JournalError::Raced),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// What can be said of who serves, damaged or not.
    ///
    /// # Errors
    /// The store's.
    pub async fn known(&self) -> Result<Known, StoreError> {
        Known::of(&self.read().await)
    }

    /// Every entry of every operation, oldest first; what cannot be read is left out and told.
    ///
    /// # Errors
    /// The store's.
    pub async fn history(&self) -> Result<(Vec<Entry>, Vec<String>), JournalError> {
        let (_, names) = self.list().await?;
        let names: Vec<String> = names.into_values().flat_map(BTreeMap::into_values).collect();
        let read: Vec<Read> = stream::iter(names)
            .map(|name| async move {
                let entry = self.entry(&name).await?;
                Ok::<_, JournalError>((name, entry))
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        let mut entries = Vec::new();
        let mut unreadable = Vec::new();
        for (name, entry) in read {
            match entry {
                Ok((entry, _)) => entries.push(entry),
                Err(error) => unreadable.push(format!("{name}: {error}")),
            }
        }
        Ok((entries, unreadable))
    }

    /// Closes a damaged generation, so that whoever still goes on with it is stopped at its next entry.
    ///
    /// # Errors
    /// The store's.
    pub async fn seal(&self, good: &Position) -> Result<(), JournalError> {
        let state = &good.state;
        for name in [
            self.name(good.generation, state.operations, state.entries + 1),
            self.name(good.generation, state.operations + 1, 1),
        ] {
            match self
                .store
                .put(&name, Bytes::from_static(b"sealed\n"), Condition::Absent)
                .await
            {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Where a new generation begins, after damage.
    pub fn anew(good: &Position) -> Position {
        let mut state = good.state.clone();
        // What was open can be neither gone on with nor ended: what it did is in the standing, and with the person.
        state.operation = None;
        state.entries = 0;
        Position {
            state,
            generation: good.generation + 1,
            at: good.at,
        }
    }

    async fn list(&self) -> Result<(u32, Names), JournalError> {
        let mut generations: BTreeMap<u32, Names> = BTreeMap::new();
        for blob in self.store.list(&self.prefix).await? {
            let Some((generation, operation, number)) = parse(&self.prefix, &blob.name) else {
                continue;
            };
            let names = generations.entry(generation).or_default();
            names.entry(operation).or_default().insert(number, blob.name);
        }
        Ok(generations.pop_last().unwrap_or((1, Names::new())))
    }

    async fn entry(&self, name: &str) -> Result<Result<(Entry, String), EntryError>, StoreError> {
        let Some(blob) = self.store.properties(name).await? else {
            return Ok(Err(EntryError::Torn));
        };
        let bytes = self.store.read(name, 0..blob.size_bytes, Some(&blob.etag)).await?;
        Ok(Entry::decode(&bytes))
    }
}

fn advance(position: Position, name: &str, entry: &Entry, digest: &str) -> Result<Position, JournalError> {
    match position.state.apply(entry, digest) {
        Ok(state) => Ok(Position {
            state,
            generation: position.generation,
            at: Some(entry.at),
        }),
        Err(error) => Err(damage(name, error.to_string(), &position)),
    }
}

fn damaged(name: &str, error: &EntryError, good: &Position) -> JournalError {
    damage(name, error.to_string(), good)
}

fn damage(name: &str, detail: String, good: &Position) -> JournalError {
    JournalError::Damaged {
        blob: name.to_owned(),
        detail,
        good: Box::new(good.clone()),
    }
}

/// Generation, operation and number.
fn parse(prefix: &str, name: &str) -> Option<(u32, u64, u64)> {
    let mut parts = name.strip_prefix(prefix)?.split('/');
    let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
    let operation = parts.next()?.parse().ok()?;
    let number = parts.next()?.strip_suffix(".json")?.parse().ok()?;
    parts.next().is_none().then_some((generation, operation, number))
}
