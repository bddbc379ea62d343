//! The bill as a table: one size with its quantities, or several side by side.

use super::bill::{Bill, Line, hour_of, hourly};
use super::prices::Prices;

/// Figures under figures: every column but the first ends at the right.
pub fn text(rows: &Rows) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Rows of cells, the first of them the heading.
pub type Rows = Vec<Vec<String>>;

/// One size: what, how much of it, at which price.
pub fn of_one(bill: &Bill, prices: &Prices) -> Rows {
    let heading = ["A MONTH OF PROTECTION", "QUANTITY", "PRICE", "COST"].map(str::to_owned);
    let mut rows = vec![heading.to_vec()];
    rows.extend(bill.lines.iter().map(row));
    rows.push(sum("in all", bill.total(), 2));
    let mut beside = "";
    for stage in [2, 3] {
        let title = format!("AN HOUR OF STAGE {stage}{beside}");
        rows.push(vec![String::new()]);
        rows.push(vec![title, "QUANTITY".into(), "PRICE".into(), "COST".into()]);
        let lines = hourly(prices, stage, bill.workload.raw_bytes);
        rows.extend(lines.iter().map(row));
        rows.push(sum("in all", lines.iter().map(|line| line.cost).sum(), 3));
        beside = ", BESIDE THAT OF STAGE 2";
    }
    rows
}

/// Several sizes, each in its column.
pub fn of_several(bills: &[(String, Bill)], prices: &Prices) -> Rows {
    let mut heading = vec!["A MONTH OF PROTECTION".to_owned()];
    heading.extend(bills.iter().map(|(size, _)| size.clone()));
    let mut rows = vec![heading];
    let mut names: Vec<&String> = Vec::new();
    for line in bills.iter().flat_map(|(_, bill)| &bill.lines) {
        if !names.contains(&&line.name) {
            names.push(&line.name);
        }
    }
    let of = |name: &String| {
        let cells = bills.iter().map(|(_, bill)| {
            let found = bill.lines.iter().find(|line| line.name == *name);
            money(found.map_or(0.0, |line| line.cost), 2)
        });
        std::iter::once(name.clone()).chain(cells).collect::<Vec<_>>()
    };
    rows.extend(names.into_iter().map(of));
    let across = |title: &str, figure: &dyn Fn(&Bill) -> String| {
        let cells = bills.iter().map(|(_, bill)| figure(bill));
        std::iter::once(title.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    rows.push(across("in all", &|bill| money(bill.total(), 2)));
    let stage = |stage| move |bill: &Bill| money(hour_of(prices, stage, bill.workload.raw_bytes), 2);
    rows.push(across("an hour while stage 2 stands", &stage(2)));
    rows.push(across("an hour while stages 2 and 3 stand", &stage(3)));
    rows
}

fn row(line: &Line) -> Vec<String> {
    let quantity = if line.quantity >= 100.0 {
        thousands(line.quantity)
    } else {
        trimmed(line.quantity)
    };
    vec![
        line.name.clone(),
        match line.unit {
            "GB" => format!("{quantity} GB"),
            _ => quantity,
        },
        match line.unit {
            "GB" => format!("${} a GB", trimmed4(line.unit_price)),
            "calls, per 10,000" => format!("${} per 10,000", trimmed4(line.unit_price)),
            unit => format!("${} {unit}", trimmed4(line.unit_price)),
        },
        money(
            line.cost,
            if line.unit == "an hour" && line.cost < 10.0 {
                3
            } else {
                2
            },
        ),
    ]
}

fn sum(title: &str, cost: f64, digits: usize) -> Vec<String> {
    vec![title.to_owned(), String::new(), String::new(), money(cost, digits)]
}

/// `$1,234.56`
pub fn money(cost: f64, digits: usize) -> String {
    let text = format!("{cost:.digits$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let dot = if part.is_empty() { "" } else { "." };
    format!("${}{dot}{part}", grouped(whole))
}

fn thousands(number: f64) -> String {
    grouped(&format!("{number:.0}"))
}

fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn trimmed4(number: f64) -> String {
    let text = format!("{number:.4}");
    let short = text.trim_end_matches('0');
    match short.split_once('.') {
        Some((whole, "")) => whole.to_owned(),
        Some((whole, part)) if part.len() == 1 => format!("{whole}.{part}0"),
        _ => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_as_money() {
        assert_eq!(money(1_234_567.891, 2), "$1,234,567.89");
        assert_eq!(money(0.0756, 3), "$0.076");
        assert_eq!(
            (trimmed4(0.126), trimmed4(0.5), trimmed4(2.0)),
            ("0.126".into(), "0.50".into(), "2".into())
        );
        assert_eq!((trimmed(32.0), trimmed(0.1)), ("32".to_owned(), "0.1".to_owned()));
    }
}
