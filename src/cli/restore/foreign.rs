//! `planb restore` of a dump that is not PlanB's.

use serde_json::{Value, json};

use super::{Bar, Job};
use crate::cli::failure::Failure;
use crate::cli::present;
use crate::restore::foreign::text::Source;
use crate::restore::foreign::{Foreign, Loaded};
use crate::restore::load::Progress;

impl Job<'_> {
    /// Loads a dump, or says what would be done.
    pub(super) async fn foreign(&self, source: Source, name: String) -> Result<(), Failure> {
        let json = self.common.json;
        if self.args.verify {
            return Err(Failure::Usage(
                "--verify: a dump that is not PlanB's holds nothing to compare with; leave it out".to_owned(),
            ));
        }
        if self.args.replace {
            return Err(Failure::Usage(
                "--replace: with a backup of PlanB only, whose tables can be compared before anything is replaced; load the dump into \
                 an empty server"
                    .to_owned(),
            ));
        }
        if self.args.accounts {
            return Err(Failure::Usage(
                "--accounts: made with a backup of PlanB only; leave it out, and make them by hand".to_owned(),
            ));
        }
        let bar = Bar::new(source.size_bytes(), json);
        let load = Foreign {
            source,
            name,
            address: self.address.clone(),
            definers: self.definers.clone(),
            database: self.args.database.clone(),
            start_over: self.args.start_over,
            tune: self.args.tune,
        };
        let progress = Progress::default();
        if self.args.plan {
            let running = load.plan(&progress, &self.cancel);
            let planned = self.watched(running, &bar, &progress, "nothing was written").await?;
            print_plan(&load, &planned, json);
            return Ok(());
        }
        let running = load.load(&progress, &self.cancel);
        let then = "what is on the target by now is no whole dump, and needs --start-over";
        let loaded = self.watched(running, &bar, &progress, then).await?;
        if json {
            let mut value = value(&load, &loaded);
            value["server"] = json!(loaded.server);
            value["rows"] = json!(loaded.rows);
            value["duration_seconds"] = json!(loaded.duration.as_secs_f64());
            value["parameters"] = json!(loaded.parameters);
            value["checked_first"] = json!(loaded.checked_first);
            value["peak_memory_bytes"] = json!(crate::cli::backup::peak_memory_bytes());
            println!("{value}");
        } else {
            print_loaded(&load, &loaded);
        }
        Ok(())
    }
}

/// What a plan and its execution both say.
fn value(load: &Foreign, loaded: &Loaded) -> Value {
    json!({
        "v": 1,
        "way": "foreign",
        "backup": load.name,
        "schemas": loaded.found.schemas,
        "tables": loaded.found.tables,
        "statements": loaded.found.statements,
        "stored_bytes": loaded.stored_bytes,
        "raw_bytes": loaded.raw_bytes,
        "repairs": loaded.found.repairs(),
        "skipped": loaded.found.skipped(),
        "sleeping_events": loaded.found.sleeping_events,
    })
}

fn schemas(loaded: &Loaded) -> String {
    let schemas: Vec<&str> = loaded.found.schemas.iter().map(String::as_str).collect();
    schemas.join(", ")
}

fn print_plan(load: &Foreign, planned: &Loaded, json: bool) {
    if json {
        println!("{}", value(load, planned));
        return;
    }
    println!(
        "{}: a dump that is not PlanB's, whole as far as can be told: {} tables, {} of SQL, schemas {}",
        load.name,
        planned.found.tables,
        present::bytes(planned.raw_bytes),
        schemas(planned),
    );
    println!(
        "would be loaded on {}:{} in one session, nothing stands against it; it could not be gone on with if it were cut off.",
        load.address.host, load.address.port
    );
    print_changes(planned);
}

fn print_loaded(load: &Foreign, loaded: &Loaded) {
    println!(
        "{} is on {}:{} ({}): {} rows in {} tables, schemas {}, {:.1} s",
        load.name,
        load.address.host,
        load.address.port,
        loaded.server,
        loaded.rows,
        loaded.found.tables,
        schemas(loaded),
        loaded.duration.as_secs_f64(),
    );
    println!("a dump that is not PlanB's: its last line was seen; whether every row is there, it does not say");
    print_changes(loaded);
    for parameter in &loaded.parameters {
        println!("parameter {parameter}");
    }
    if loaded.found.sleeping_events > 0 {
        println!(
            "{} events are disabled; when this server takes over: planb restore --enable-events --to … --password …",
            loaded.found.sleeping_events
        );
    }
}

fn print_changes(loaded: &Loaded) {
    for repair in loaded.found.repairs() {
        println!("changed on the way: {repair}");
    }
    for skipped in loaded.found.skipped() {
        println!("passed over: {skipped}");
    }
}
