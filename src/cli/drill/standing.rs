//! How it stands with rehearsals, for `planb status` and `planb check`: the last one, and one that was left standing.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kept::{self, Read};
use crate::cli::failure::told;
use crate::cli::{open, present};
use crate::config::Config;
use crate::doctor::check::{Level, Line, line};
use crate::drill::report::{Measure, Open, Report};

pub struct Standing {
    /// None where nothing is configured that could be rehearsed, and nothing ever was.
    last: Option<Option<Report>>,
    open: Result<Option<Open>, String>,
}

/// Never fails: what cannot be read is told as such.
pub async fn standing(config: &Config, stores: &open::Stores) -> Standing {
    let last = kept::newest(config, stores, 1, &mut Read::new()).await;
    let (last, unread) = match last {
        Ok(reports) => (reports.into_iter().next(), None),
        Err(error) => (None, Some(told(&error))),
    };
    let is_told = last.is_some() || !config.failover_steps.is_empty();
    Standing {
        last: is_told.then_some(last),
        open: match unread {
            Some(why) => Err(why),
            None => kept::open_one(config, stores).await,
        },
    }
}

fn seconds(measure: Measure) -> String {
    let told = measure.seconds.map(std::time::Duration::try_from_secs_f64);
    match told {
        Some(Ok(seconds)) => present::duration(seconds),
        Some(Err(_)) | None => "not reached".to_owned(),
    }
}

const CLEAN: &str = "what it made still stands: planb drill --clean";

impl Standing {
    /// Of `planb status`.
    pub fn lines(&self, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.last {
            None => {}
            Some(None) => lines.push("drill     none yet: planb drill".to_owned()),
            Some(Some(report)) => lines.push(format!(
                "drill     {}, stage {}, {}: RPO {}, RTO {}",
                report.result.name(),
                report.stage,
                present::age(report.begun_at, now),
                seconds(report.rpo),
                seconds(report.rto)
            )),
        }
        match &self.open {
            Ok(None) => {}
            Ok(Some(open)) if open.is_at_work => lines.push(format!(
                "drill     under way, begun {} by {} on {}",
                present::age(open.begun_at, now),
                open.who,
                open.host
            )),
            Ok(Some(open)) => lines.push(format!(
                "DRILL     LEFT STANDING, begun {} by {} on {}; {CLEAN}",
                present::age(open.begun_at, now),
                open.who,
                open.host
            )),
            Err(why) => lines.push(format!("DRILL     {why}")),
        }
        lines
    }

    pub fn json(&self) -> Value {
        let last = self.last.as_ref().and_then(Option::as_ref);
        let open = self.open.as_ref().ok().and_then(Option::as_ref);
        json!({
            "last": last.map(|report| json!({
                "id": report.id, "stage": report.stage, "result": report.result.name(), "begun_at": present::rfc3339(report.begun_at),
                "rpo_seconds": report.rpo.seconds, "rto_seconds": report.rto.seconds, "cleaned": report.cleaned_at.is_some(),
            })),
            "open": open.map(|open| json!({
                "begun_at": present::rfc3339(open.begun_at), "who": open.who, "host": open.host, "at_work": open.is_at_work,
            })),
            "error": self.open.as_ref().err(),
        })
    }

    /// Of `planb check`.
    pub fn checks(&self) -> Vec<Line> {
        let last = self.last.as_ref().and_then(Option::as_ref);
        let mut lines: Vec<Line> = Vec::new();
        match &self.open {
            Ok(Some(open)) if !open.is_at_work => lines.push(line(
                Level::Warning,
                "drill",
                format!("one of {} was left standing; {CLEAN}", present::time(open.begun_at)),
            )),
            Ok(_) => lines.extend(last.map(|report| line(Level::Ok, "drill", report.summary()))),
            Err(why) => lines.push(line(Level::Unknown, "drill", why.clone())),
        }
        lines
    }
}
