//! `planb cost`: what protection costs a month, and a second site an hour.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Failure, told};
use super::{Common, open, present};
use crate::backup::entry::{Entry, good_ones};
use crate::backup::rpo::RunTimes;
use crate::config::{Config, Schedule};
use crate::cost::advice::{self, Advice};
use crate::cost::bill::{Bill, Line, Workload, bill, hourly};
use crate::cost::prices::{Prices, Trust};
use crate::cost::{GB, table};

/// SQL to stored bytes where no backup tells: what the lab measured at the default level.
const RATIO: f64 = 3.0;
/// SQL a second where no backup tells: what the lab measured on two cores.
const BYTES_PER_SECOND: f64 = 100.0 * 1024.0 * 1024.0;
/// The newest backups that are measured.
const MEASURED: usize = 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Without --size: the sizes and times of the newest backups in the store. With it the store is not asked, so that a database can be \
    reckoned before there is one. A GB is what clouds bill as one: 1024³ bytes.\n\n\
    Prices are config/prices.toml, built in, each with its source and date; [cost] prices names another table.\n\n\
    Examples:\n  planb cost\n  planb cost --size 10GB\n  planb cost --size 0.1GB --size 1GB --size 10GB --ratio 4"
)]
pub struct CostArgs {
    /// SQL of one dump, e.g. 500MB or 10GB; several are shown side by side
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Vec<u64>,
    /// How many times smaller a stored backup is [default: 3]
    #[arg(long, requires = "size", value_parser = ratio)]
    ratio: Option<f64>,
}

/// Reads `0.1GB`, `500MB`, `2TB`, with `i` or without.
fn size(text: &str) -> Result<u64, String> {
    let end = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let times = match unit {
        "MB" | "MiB" => GB / 1024.0,
        "GB" | "GiB" => GB,
        "TB" | "TiB" => GB * 1024.0,
        _ => return Err("write a size with its unit: 500MB, 10GB or 2TB".to_owned()),
    };
    let bytes = number.parse::<f64>().unwrap_or(0.0) * times;
    if !(1024.0..1e18).contains(&bytes) {
        return Err("write a size with its unit: 500MB, 10GB or 2TB".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(bytes.round() as u64)
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (1.0..=1000.0).contains(&ratio) => Ok(ratio),
        _ => Err("write how many times smaller, from 1 to 1000, e.g. 3.5".to_owned()),
    }
}

/// The configured table, or the one built in.
pub fn prices(config: &Config) -> Result<Prices, Failure> {
    let Some(path) = &config.cost.prices else {
        return Prices::built_in().map_err(|error| Failure::failed(told(&error)));
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("[cost] prices: {}: {error}", path.display())))?;
    Prices::parse(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

pub async fn run(common: &Common, args: &CostArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let prices = prices(&config)?;
    let (workloads, basis) = if args.size.is_empty() {
        let stores = open::stores_for_a_person(&config).await?;
        let (workload, basis) = measured(&open::listing(&config, &stores).await?)?;
        (vec![workload], basis)
    } else {
        let ratio = args.ratio.unwrap_or(RATIO);
        let workloads = args.size.iter().map(|&raw| supposed(raw, ratio)).collect();
        let basis = format!(
            "supposed: {ratio} times smaller when stored, {} of SQL a second",
            present::bytes(whole(BYTES_PER_SECOND))
        );
        (workloads, basis)
    };
    let bills: Vec<Bill> = workloads
        .into_iter()
        .map(|workload| bill(&config, workload, &prices))
        .collect();
    let advice: Vec<Option<Advice>> = bills
        .iter()
        .map(|bill| advice::advice(&config, bill, &prices))
        .collect();
    if common.json {
        let sizes: Vec<Value> = bills
            .iter()
            .zip(&advice)
            .map(|(bill, advice)| bill_json(bill, advice.as_ref(), &prices))
            .collect();
        println!(
            "{}",
            json!({
                "v": 1, "service": config.service.name, "currency": prices.currency, "prices_as_of": prices.as_of,
                "prices_from": prices.trusts().iter().map(|(trust, count)| (trust.name(), *count)).collect::<std::collections::BTreeMap<_, _>>(),
                "basis": basis, "monthly_budget": config.cost.monthly_budget, "sizes": sizes,
            })
        );
        return Ok(());
    }
    print!("{}", text(&config, &bills, &prices));
    println!("\n{basis}; {}", from(&prices));
    for (bill, advice) in bills.iter().zip(&advice) {
        let Some(advice) = advice else { continue };
        let lines = advice.lines(bill, present::bytes, present::duration);
        println!(
            "\nwarning: {} of SQL: {}",
            size_text(bill.workload.raw_bytes),
            lines.join("\n  ")
        );
    }
    Ok(())
}

fn text(config: &Config, bills: &[Bill], prices: &Prices) -> String {
    let every = match &config.backup.schedule {
        Schedule::KeepRpo => "as often as targets.rpo needs it".to_owned(),
        Schedule::Cron(text) => format!("by \"{text}\""),
    };
    if let [bill] = bills {
        let about = format!(
            "{}: {} of SQL, {} stored, a whole dump {every}, {:.0} a month, {:.0} of them kept\n\n",
            config.service.name,
            size_text(bill.workload.raw_bytes),
            present::bytes(bill.workload.stored_bytes),
            bill.month.runs,
            bill.month.kept,
        );
        return about + &table::text(&table::of_one(bill, prices));
    }
    let sizes: Vec<(String, Bill)> = bills
        .iter()
        .map(|bill| (size_text(bill.workload.raw_bytes), bill.clone()))
        .collect();
    format!("{}: a whole dump {every}\n\n", config.service.name) + &table::text(&table::of_several(&sizes, prices))
}

/// How far the prices can be relied on.
fn from(prices: &Prices) -> String {
    let said = |trust: Trust| match trust {
        Trust::List => "of this region's price list",
        Trust::Sample => "of a provider's examples",
        Trust::Document => "of the project's design",
        Trust::Memory => "looked up by nobody",
    };
    let counts: Vec<String> = prices
        .trusts()
        .iter()
        .map(|(trust, count)| format!("{count} {}", said(*trust)))
        .collect();
    format!("prices as of {}: {}", prices.as_of, counts.join(", "))
}

fn size_text(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown to a digit")]
    let gb = bytes as f64 / GB;
    let text = format!("{gb:.2}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "0" => present::bytes(bytes),
        short => format!("{short} GB"),
    }
}

fn supposed(raw_bytes: u64, ratio: f64) -> Workload {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let raw = raw_bytes as f64;
    Workload {
        raw_bytes,
        stored_bytes: whole(raw / ratio),
        run: Duration::from_secs_f64((raw / BYTES_PER_SECOND).max(1.0)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of a size that was checked"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// What the newest backups were.
fn measured(entries: &[Entry]) -> Result<(Workload, String), Failure> {
    let good = good_ones(entries);
    let newest: Vec<Entry> = good.into_iter().take(MEASURED).cloned().collect();
    let Some(last) = newest.first() else {
        return Err(Failure::Usage(
            "there is no backup to measure: planb cost --size 10GB reckons with a size".to_owned(),
        ));
    };
    let run = RunTimes::of(&newest).slow().unwrap_or(Duration::from_secs(1));
    let workload = Workload {
        raw_bytes: last.raw_bytes.max(1),
        stored_bytes: last.size_bytes,
        run,
    };
    let basis = format!(
        "measured: {}, and {} from snapshot to commit at the {} newest backups",
        last.id,
        present::duration(run),
        newest.len()
    );
    Ok((workload, basis))
}

fn bill_json(bill: &Bill, advice: Option<&Advice>, prices: &Prices) -> Value {
    let cents = |cost: f64| (cost * 1e6).round() / 1e6;
    let lines = |lines: &[Line]| -> Vec<Value> {
        lines
            .iter()
            .map(|line| {
                json!({
                    "name": line.name, "quantity": cents(line.quantity), "unit": line.unit,
                    "unit_price": cents(line.unit_price), "cost": cents(line.cost),
                })
            })
            .collect()
    };
    let hour = |stage| {
        let of = hourly(prices, stage, bill.workload.raw_bytes);
        json!({"lines": lines(&of), "total": cents(of.iter().map(|line| line.cost).sum())})
    };
    json!({
        "raw_bytes": bill.workload.raw_bytes,
        "stored_bytes": bill.workload.stored_bytes,
        "run_seconds": bill.workload.run.as_secs_f64(),
        "interval_seconds": bill.month.interval().as_secs_f64(),
        "backups_a_month": cents(bill.month.runs),
        "backups_kept": cents(bill.month.kept),
        "month": {"lines": lines(&bill.lines), "total": cents(bill.total())},
        "stage_2_hour": hour(2),
        "stage_3_hour_beside_stage_2": hour(3),
        "warnings": advice.map_or_else(Vec::new, |advice| advice.lines(bill, present::bytes, present::duration)),
    })
}
