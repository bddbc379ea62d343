//! What of a table's definition the target cannot take, mended: each mend is told. Pure.

use std::collections::BTreeSet;

use memchr::memmem::find;

use super::schema::{Table, identifier};

/// What a target takes, as far as tables are concerned.
#[derive(Debug, Clone, Default)]
pub struct Takes {
    /// Lower-case names.
    pub engines: BTreeSet<String>,
    pub collations: BTreeSet<String>,
}

/// A table's definition as it will be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    pub create: Vec<u8>,
    /// What was changed, in words.
    pub repairs: Vec<String>,
    /// What nobody can mend, in words.
    pub problems: Vec<String>,
    pub transactional: bool,
    pub has_primary_key: bool,
    pub is_partitioned: bool,
}

/// Engines whose tables are as good, or better, in InnoDB.
const CONVERTIBLE: [&str; 6] = ["myisam", "aria", "archive", "csv", "memory", "blackhole"];

/// Mends `table` for a target.
pub fn mend(table: &Table, takes: &Takes) -> Mended {
    let name = format!("{}.{}", table.schema, table.name);
    let mut create = table.create.clone();
    let mut repairs = Vec::new();
    let mut problems = Vec::new();

    for clause in [" DATA DIRECTORY=", " INDEX DIRECTORY="] {
        while cut_quoted(&mut create, clause) {
            repairs.push(format!(
                "{name}: {} left out, the target has its own place",
                clause.trim().trim_end_matches('=')
            ));
        }
    }
    if cut_comment(&mut create, b"/*!50100 TABLESPACE ") {
        repairs.push(format!("{name}: TABLESPACE left out, the table gets a file of its own"));
    }

    let mut engine = word_after(&create, b"ENGINE=").unwrap_or_default().to_lowercase();
    if !engine.is_empty() && !takes.engines.contains(&engine) {
        if CONVERTIBLE.contains(&engine.as_str()) && takes.engines.contains("innodb") {
            if auto_increment_is_second(&create) {
                problems.push(format!(
                    "{name}: engine {engine} counts AUTO_INCREMENT within a group, which InnoDB cannot, and the target has no \
                     {engine}; give the column a key of its own at the source"
                ));
            }
            replace_word(&mut create, b"ENGINE=", b"InnoDB");
            cut_word(&mut create, b" ROW_FORMAT=");
            repairs.push(format!("{name}: engine {engine} became InnoDB"));
            engine = "innodb".to_owned();
        } else {
            problems.push(format!("{name}: the target has no engine {engine}"));
        }
    }
    if engine == "innodb"
        && let Some(format) = word_after(&create, b" ROW_FORMAT=")
        && !["DYNAMIC", "COMPACT", "REDUNDANT", "COMPRESSED", "DEFAULT"].contains(&format.as_str())
    {
        cut_word(&mut create, b" ROW_FORMAT=");
        repairs.push(format!("{name}: row format {format} left out, InnoDB has none such"));
    }

    let lacking: BTreeSet<String> = words_after(&create, &[b"COLLATE ", b"COLLATE="])
        .into_iter()
        .filter(|collation| !takes.collations.contains(collation))
        .collect();
    for collation in lacking {
        problems.push(format!(
            "{name}: the target lacks collation {collation}; restore to a server that has it"
        ));
    }

    let masked = masked(&create);
    Mended {
        transactional: engine == "innodb",
        has_primary_key: find(&masked, b"\n  PRIMARY KEY ").is_some(),
        is_partitioned: find(&masked, b"PARTITION BY").is_some(),
        create,
        repairs,
        problems,
    }
}

/// The text with everything inside quotes blanked out, quotes included: same length, so that places agree.
pub fn masked(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let mut quote = None;
    let mut at = 0;
    while at < text.len() {
        match (quote, text[at]) {
            (None, b @ (b'`' | b'\'' | b'"')) => {
                quote = Some(b);
                out[at] = b' ';
            }
            (Some(open), b) => {
                out[at] = b'.';
                if b == b'\\' && open != b'`' && at + 1 < text.len() {
                    at += 1;
                    out[at] = b'.';
                } else if b == open {
                    quote = None;
                    out[at] = b' ';
                }
            }
            (None, _) => {}
        }
        at += 1;
    }
    out
}

/// `words_after` for collations of other texts (schemas, routines).
pub fn collations(text: &[u8]) -> BTreeSet<String> {
    words_after(text, &[b"COLLATE ", b"COLLATE="]).into_iter().collect()
}

fn words_after(text: &[u8], marks: &[&[u8]]) -> Vec<String> {
    let masked = masked(text);
    let mut words = Vec::new();
    for mark in marks {
        let mut from = 0;
        while let Some(at) = find(&masked[from..], mark) {
            from += at + mark.len();
            words.push(word(&masked[from..]));
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

fn word_after(text: &[u8], mark: &[u8]) -> Option<String> {
    // Options stand at the end; a column's attributes use none of these words.
    let masked = masked(text);
    let at = masked.windows(mark.len()).rposition(|window| window == mark)?;
    Some(word(&masked[at + mark.len()..]))
}

fn word(text: &[u8]) -> String {
    let end = text
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || *b == b'_'))
        .unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

fn replace_word(text: &mut Vec<u8>, mark: &[u8], new: &[u8]) {
    let masked = masked(text);
    if let Some(at) = masked.windows(mark.len()).rposition(|window| window == mark) {
        let start = at + mark.len();
        let end = start + word(&masked[start..]).len();
        text.splice(start..end, new.iter().copied());
    }
}

fn cut_word(text: &mut Vec<u8>, mark: &[u8]) {
    let masked = masked(text);
    if let Some(at) = masked.windows(mark.len()).rposition(|window| window == mark) {
        let end = at + mark.len() + word(&masked[at + mark.len()..]).len();
        text.drain(at..end);
    }
}

/// Cuts `mark'…'` out.
fn cut_quoted(text: &mut Vec<u8>, mark: &str) -> bool {
    let masked = masked(text);
    let Some(at) = find(&masked, mark.as_bytes()) else {
        return false;
    };
    let mut end = at + mark.len();
    // A doubled quote closes and opens again.
    while text.get(end) == Some(&b'\'') {
        let Some(length) = masked[end + 1..].iter().position(|&b| b == b' ') else {
            return false;
        };
        end += length + 2;
    }
    text.drain(at..end);
    true
}

/// Cuts a version comment that begins like this out, and the blank before it.
fn cut_comment(text: &mut Vec<u8>, mark: &[u8]) -> bool {
    let masked = masked(text);
    let Some(at) = find(&masked, mark) else { return false };
    let Some(end) = find(&masked[at..], b"*/") else {
        return false;
    };
    let start = if at > 0 && text[at - 1] == b' ' { at - 1 } else { at };
    text.drain(start..at + end + 2);
    true
}

/// Whether AUTO_INCREMENT leads no key, which MyISAM allows.
fn auto_increment_is_second(create: &[u8]) -> bool {
    let masked_text = masked(create);
    let mut offset = 0;
    let mut auto = None;
    for line in masked_text.split(|&b| b == b'\n') {
        let original = &create[offset..offset + line.len()];
        if find(line, b" AUTO_INCREMENT").is_some() && line.starts_with(b"   ") {
            auto = identifier(original).map(|(name, _)| name);
        }
        offset += line.len() + 1;
    }
    let Some(auto) = auto else { return false };
    let mut offset = 0;
    for line in masked_text.split(|&b| b == b'\n') {
        let original = &create[offset..offset + line.len()];
        offset += line.len() + 1;
        if find(line, b"KEY ").is_some()
            && let Some(open) = line.iter().position(|&b| b == b'(')
            && identifier(&original[open + 1..]).is_some_and(|(name, _)| name == auto)
        {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(create: &str) -> Table {
        Table {
            schema: "s".into(),
            name: "t".into(),
            create: create.as_bytes().to_vec(),
        }
    }

    fn azure() -> Takes {
        Takes {
            engines: ["innodb", "memory"].map(str::to_owned).into(),
            collations: ["utf8mb4_bin"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn an_engine_that_is_not_there_becomes_innodb() {
        let mended = mend(
            &table(
                "CREATE TABLE `t` (\n  `a` int COMMENT 'ENGINE=CSV'\n) ENGINE=MyISAM DEFAULT CHARSET=utf8mb4 ROW_FORMAT=FIXED",
            ),
            &azure(),
        );
        assert_eq!(
            String::from_utf8_lossy(&mended.create),
            "CREATE TABLE `t` (\n  `a` int COMMENT 'ENGINE=CSV'\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        );
        assert_eq!(mended.repairs, ["s.t: engine myisam became InnoDB"]);
        assert!(mended.problems.is_empty() && mended.transactional && !mended.has_primary_key);
        let kept = mend(&table("CREATE TABLE `t` (\n  `a` int\n) ENGINE=MEMORY"), &azure());
        assert!(kept.repairs.is_empty() && !kept.transactional);
    }

    #[test]
    fn what_cannot_be_mended_is_a_problem() {
        let grouped = "CREATE TABLE `t` (\n  `g` int NOT NULL,\n  `id` int NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`g`,`id`)\n) ENGINE=MyISAM";
        assert_eq!(mend(&table(grouped), &azure()).problems.len(), 1);
        let merge = mend(&table("CREATE TABLE `t` (\n  `a` int\n) ENGINE=MRG_MyISAM"), &azure());
        assert!(merge.problems[0].contains("mrg_myisam"), "{merge:?}");
        let collated = mend(
            &table(
                "CREATE TABLE `t` (\n  `COLLATE x` varchar(9) COLLATE utf8mb4_ja_0900_as_cs\n) ENGINE=InnoDB COLLATE=utf8mb4_bin",
            ),
            &azure(),
        );
        assert_eq!(collated.problems.len(), 1, "{collated:?}");
    }

    #[test]
    fn places_of_the_source_s_own_are_left_out() {
        let mended = mend(
            &table(
                "CREATE TABLE `t` (\n  `a` int\n) /*!50100 TABLESPACE `ts` */ ENGINE=InnoDB DATA DIRECTORY='/it''s/x' COMMENT='c'",
            ),
            &azure(),
        );
        assert_eq!(
            String::from_utf8_lossy(&mended.create),
            "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB COMMENT='c'"
        );
        assert_eq!(mended.repairs.len(), 2);
    }
}
