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

use super::event::{By, Entry, EntryError, Event, SEAL};
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
        let (generation, mut names) = self.list().await?;
        let mut position = Position {
            state: State::default(),
            generation,
            at: None,
        };
        // Closed after damage, and nobody has begun a new generation yet: what was there before tells.
        let mut trouble = self.without_seal(&mut names).await?;
        let Some((&operation, entries)) = names.last_key_value() else {
            return Ok(position);
        };
        // What went before is told by the first entry, and must be what its own last one said. A generation that goes on after a
        // damaged one has nothing before it to be compared with.
        trouble = self.last_before(&mut position, operation, &names).await?.or(trouble);
        let mut read: Vec<Read> = stream::iter(entries.values().cloned())
            .map(|name| async move {
                let entry = self.entry(&name).await?;
                Ok::<_, JournalError>((name, entry))
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        if let Some((name, _)) = read.pop_if(|(_, last)| last.as_ref().is_err_and(|error| *error == EntryError::Sealed))
        {
            trouble = trouble.or(Some((name, EntryError::Sealed.to_string())));
        }
        let ended = read
            .iter()
            .rev()
            .find_map(|(_, entry)| entry.as_ref().ok())
            .and_then(left_by);
        let has_nothing_before = generation > 1 && position.state.entries == 0;
        for (at, (name, entry)) in read.into_iter().enumerate() {
            let next = match entry {
                Ok((entry, digest)) => advance(position.clone(), &name, &entry, &digest).or_else(|error| {
                    // Whatever is damaged before it: an operation's first entry tells the whole standing by itself.
                    let is_first = at == 0 && entry.operation == operation;
                    let adopted = adopt(&position, &entry).filter(|_| is_first);
                    let adopted = adopted.ok_or_else(|| error.clone())?;
                    if trouble.is_none() && !has_nothing_before {
                        trouble = Some((name.clone(), detail_of(error)));
                    }
                    advance(adopted, &name, &entry, &digest)
                }),
                Err(error) => Err(damaged(&name, &error, &position)),
            };
            position = match next {
                Ok(next) => next,
                Err(JournalError::Damaged { blob, detail, mut good }) => {
                    // So does the last entry of one that has ended.
                    if let Some(standing) = ended {
                        good.state.standing = standing;
                    }
                    return Err(JournalError::Damaged { blob, detail, good });
                }
                Err(error) => return Err(error),
            };
        }
        match trouble {
            Some((name, detail)) => Err(damage(&name, detail, &position)),
            None => Ok(position),
        }
    }

    /// Leaves out the operation that is nothing but a seal; tells of it.
    async fn without_seal(&self, names: &mut Names) -> Result<Option<(String, String)>, JournalError> {
        let only = names.last_key_value().filter(|(_, entries)| entries.len() == 1);
        let Some(name) = only.and_then(|(_, entries)| entries.get(&1)).cloned() else {
            return Ok(None);
        };
        match self.entry(&name).await? {
            Err(EntryError::Sealed) => {
                names.pop_last();
                Ok(Some((name, EntryError::Sealed.to_string())))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Takes over what the operation before the latest one left; or says what is wrong with it.
    async fn last_before(
        &self,
        position: &mut Position,
        latest: u64,
        names: &Names,
    ) -> Result<Option<(String, String)>, JournalError> {
        let before = latest.saturating_sub(1);
        let Some(entries) = names.get(&before) else {
            let is_missing = position.generation == 1 && before > 0;
            let told = || (self.name(position.generation, before, 1), "it is missing".to_owned());
            return Ok(is_missing.then(told));
        };
        for (number, name) in entries.iter().rev() {
            let (last, digest) = match self.entry(name).await? {
                Ok(read) => read,
                Err(EntryError::Sealed) => continue,
                Err(error) => return Ok(Some((name.clone(), error.to_string()))),
            };
            let (Event::Ended { standing, .. } | Event::FenceProven { standing, .. }) = last.event else {
                return Ok(Some((name.clone(), "the operation does not end with it".to_owned())));
            };
            position.state.standing = standing;
            position.state.operations = last.operation;
            position.state.digest = digest;
            position.state.entries = *number;
            position.at = Some(last.at);
            break;
        }
        Ok(None)
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
        let names = self.generations().await?.remove(&good.generation).unwrap_or_default();
        let latest = names.last_key_value().map_or(0, |(operation, _)| *operation);
        let mut is_all_closed = false;
        for (operation, entries) in names.range(good.state.operations..) {
            // Behind everything that is there: whoever is at work may have come further than what can be read.
            let last = entries.last_key_value().map_or(1, |(number, _)| *number);
            is_all_closed = self.close(good.generation, *operation, last).await? == 1;
        }
        if !is_all_closed {
            self.close(good.generation, latest.max(good.state.operations) + 1, 1)
                .await?;
        }
        Ok(())
    }

    /// Puts a seal behind an operation's entries, the last of which is `from` or came meanwhile; says where it stands.
    async fn close(&self, generation: u32, operation: u64, from: u64) -> Result<u64, JournalError> {
        let mut number = from;
        loop {
            let name = self.name(generation, operation, number);
            let seal = Bytes::from_static(SEAL);
            match self.store.put(&name, seal, Condition::Absent).await {
                Ok(_) => return Ok(number),
                Err(StoreError::AlreadyExists { .. }) => {
                    if self.entry(&name).await? == Err(EntryError::Sealed) {
                        return Ok(number);
                    }
                    number += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
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

    async fn generations(&self) -> Result<BTreeMap<u32, Names>, JournalError> {
        let mut generations: BTreeMap<u32, Names> = BTreeMap::new();
        for blob in self.store.list(&self.prefix).await? {
            let Some((generation, operation, number)) = parse(&self.prefix, &blob.name) else {
                continue;
            };
            let names = generations.entry(generation).or_default();
            names.entry(operation).or_default().insert(number, blob.name);
        }
        Ok(generations)
    }

    /// Of the latest generation.
    async fn list(&self) -> Result<(u32, Names), JournalError> {
        let latest = self.generations().await?.pop_last();
        Ok(latest.unwrap_or((1, Names::new())))
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

/// The standing that an entry tells by itself, being an operation's last one.
fn left_by((entry, _): &(Entry, String)) -> Option<Standing> {
    match &entry.event {
        Event::Ended { standing, .. } | Event::FenceProven { standing, .. } => Some(standing.clone()),
        _ => None,
    }
}

/// Where that operation began, by its own first entry.
fn adopt(position: &Position, entry: &Entry) -> Option<Position> {
    let Event::Opened { standing, .. } = &entry.event else {
        return None;
    };
    let mut adopted = position.clone();
    adopted.state = State {
        standing: standing.clone(),
        operations: entry.operation.checked_sub(1)?,
        digest: entry.previous.clone(),
        ..State::default()
    };
    Some(adopted)
}

fn detail_of(error: JournalError) -> String {
    match error {
        JournalError::Damaged { detail, .. } => detail,
        other => other.to_string(),
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
