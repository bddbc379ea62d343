//! An operation as a person sees it: a line for each step that begins or ends, and what is at work now. Elsewhere, the same in
//! JSON, one object a line. What is at work is also kept in the store, for whoever follows.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{open, present};
use crate::recovery::engine::Watch;
use crate::recovery::journal::Position;
use crate::recovery::operation::Operation;
use crate::recovery::plan::Place;
use crate::recovery::state::Progress;
use crate::steps::Tell;
use crate::store::{BlobStore, Condition};

/// How often what is at work is written for others.
const TOLD_EVERY: Duration = Duration::from_secs(2);

pub struct Screen {
    json: bool,
    /// Nobody sits before it: lines go to the log.
    logs: bool,
    bar: ProgressBar,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// How each step stood when it was last shown.
    shown: BTreeMap<String, &'static str>,
    /// What steps that are at work said last.
    now: BTreeMap<String, String>,
    /// What steps elsewhere said last.
    elsewhere: BTreeMap<String, String>,
    changed: bool,
    written_at: Option<tokio::time::Instant>,
}

/// What is at work at one place; nothing reliable, the journal is.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    v: u32,
    steps: BTreeMap<String, String>,
}

impl Screen {
    pub fn new(json: bool) -> Self {
        let bar = if !json && std::io::stderr().is_terminal() {
            ProgressBar::no_length()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            json,
            logs: false,
            bar,
            inner: Mutex::default(),
        }
    }

    /// For what runs unattended.
    pub fn logged() -> Self {
        Self {
            json: false,
            logs: true,
            bar: ProgressBar::hidden(),
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn line(&self, text: &str) {
        if self.logs {
            tracing::info!("{text}");
        } else if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Shows what is at work here and elsewhere, and tells others of ours.
    pub async fn draw(&self, stores: &open::Stores, key: &str, place: Place) {
        let mine = {
            let mut inner = self.inner();
            let is_due = inner.written_at.is_none_or(|at| at.elapsed() >= TOLD_EVERY);
            if is_due {
                inner.written_at = Some(tokio::time::Instant::now());
            }
            let changed = is_due && std::mem::take(&mut inner.changed);
            is_due.then(|| changed.then(|| inner.now.clone()))
        };
        if let Some(mine) = mine {
            if let Some(steps) = mine {
                let told = serde_json::to_vec(&Told { v: 1, steps }).unwrap_or_default();
                // Nobody depends on it.
                let _ = stores
                    .control
                    .put(&name(key, place), Bytes::from(told), Condition::Always)
                    .await;
            }
            let other = match place {
                Place::Operator => Place::Runner,
                Place::Runner => Place::Operator,
            };
            self.look(stores, key, &[other]).await;
        }
        self.paint();
    }

    /// Shows what is at work anywhere.
    pub async fn watch(&self, stores: &open::Stores, key: &str, places: &[Place]) {
        self.look(stores, key, places).await;
        self.paint();
    }

    async fn look(&self, stores: &open::Stores, key: &str, places: &[Place]) {
        let mut elsewhere = BTreeMap::new();
        for place in places {
            elsewhere.extend(read(stores.control.as_ref(), &name(key, *place)).await);
        }
        self.inner().elsewhere = elsewhere;
    }

    fn paint(&self) {
        let inner = self.inner();
        let at_work = |step: &&String| inner.shown.get(*step) == Some(&"running");
        let texts: Vec<String> = inner
            .now
            .iter()
            .chain(&inner.elsewhere)
            .filter(|(step, _)| at_work(step))
            .map(|(step, text)| format!("{step}: {text}"))
            .collect();
        drop(inner);
        self.bar.set_message(texts.join("  ·  "));
        self.bar.tick();
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn name(key: &str, place: Place) -> String {
    format!("progress/{key}/{}.json", place.name())
}

/// What steps that are at work anywhere said last.
pub async fn at_work(control: &dyn BlobStore, key: &str) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for place in [Place::Operator, Place::Runner] {
        told.extend(read(control, &name(key, place)).await);
    }
    told
}

async fn read(store: &dyn BlobStore, name: &str) -> BTreeMap<String, String> {
    let Ok(Some(blob)) = store.properties(name).await else {
        return BTreeMap::new();
    };
    match store.read(name, 0..blob.size_bytes, None).await {
        Ok(bytes) => serde_json::from_slice::<Told>(&bytes)
            .map(|told| told.steps)
            .unwrap_or_default(),
        Err(_) => BTreeMap::new(),
    }
}

impl Tell for Screen {
    fn tell(&self, step: &str, text: &str) {
        let mut inner = self.inner();
        inner.changed = true;
        inner.now.insert(step.to_owned(), text.to_owned());
    }
}

impl Watch for Screen {
    fn moved(&self, position: &Position) {
        let Some(operation) = &position.state.operation else {
            return;
        };
        let mut inner = self.inner();
        let mut lines = Vec::new();
        for step in &operation.plan.steps {
            let progress = operation.progress(&step.name);
            let word = word(progress);
            if inner.shown.insert(step.name.clone(), word) == Some(word) || word == "waiting" {
                continue;
            }
            lines.push((step.name.clone(), word, told(progress)));
        }
        drop(inner);
        let at = position.at.unwrap_or(Timestamp::UNIX_EPOCH);
        for (step, word, text) in lines {
            if self.json {
                println!(
                    "{}",
                    json!({"v": 1, "at": present::rfc3339(at), "step": step, "state": word, "text": text})
                );
            } else {
                let text = if text.is_empty() {
                    String::new()
                } else {
                    format!(": {text}")
                };
                self.line(&format!("{} {step} {word}{text}", at.strftime("%H:%M:%SZ")));
            }
        }
    }
}

/// How a step stands, in one word.
pub fn word(progress: &Progress) -> &'static str {
    match progress {
        Progress::Waiting => "waiting",
        Progress::Running { interrupted: false, .. } => "running",
        Progress::Running { .. } | Progress::TakingBack { interrupted: true, .. } => "interrupted",
        Progress::Done { outcome, .. } if outcome.found => "there already",
        Progress::Done { .. } => "done",
        Progress::Failed { .. } => "failed",
        Progress::TakingBack { .. } => "being taken back",
        Progress::TakenBack => "taken back",
    }
}

/// What there is to say of it.
pub fn told(progress: &Progress) -> String {
    match progress {
        Progress::Done { outcome, since, at } => {
            let took = Duration::try_from(at.duration_since(*since)).unwrap_or_default();
            let proof = match outcome.proof {
                Some(crate::recovery::event::Proof::Proven) => ", proven",
                Some(crate::recovery::event::Proof::Unprovable) => ", NOT provable",
                None => "",
            };
            let note = if outcome.note.is_empty() {
                String::new()
            } else {
                format!(" ({})", outcome.note)
            };
            format!("{}{proof}{note}", present::duration(took))
        }
        Progress::Failed { error, .. } => error.clone(),
        _ => String::new(),
    }
}

pub fn steps_json(operation: &Operation) -> Vec<Value> {
    let one = |step: &crate::recovery::plan::Step| {
        let progress = operation.progress(&step.name);
        let seconds = match progress {
            Progress::Done { since, at, .. } => Some(at.duration_since(*since).as_secs_f64()),
            _ => None,
        };
        json!({
            "name": step.name, "kind": step.kind, "stage": step.stage, "at": step.at.name(), "needs": step.needs,
            "state": word(progress), "text": told(progress), "seconds": seconds,
        })
    };
    operation.plan.steps.iter().map(one).collect()
}
