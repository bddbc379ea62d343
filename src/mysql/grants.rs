//! What an account may see. The server hides what it may not, without an error: so grants are read first.

use super::dialect::Dialect;

/// Privileges of the current account, as `SHOW GRANTS` (with its roles' grants) lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    revoke: bool,
    privileges: Vec<String>,
    /// `*` for all schemas, else a pattern with SQL wildcards.
    schema: String,
    /// What it holds, the account may give to others.
    may_be_given: bool,
}

impl Grants {
    /// Reads the output of `SHOW GRANTS`, one statement a row. Rows about roles, proxies and single tables or
    /// routines say nothing about a whole schema and are passed over.
    pub fn parse<'a>(rows: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            lines: rows.into_iter().filter_map(Line::parse).collect(),
        }
    }

    /// Whether `privilege` is held on everything.
    pub fn global(&self, privilege: &str) -> bool {
        self.lines
            .iter()
            .any(|line| !line.revoke && line.schema == "*" && line.holds(privilege))
    }

    /// Whether `privilege` is held on the whole of `schema`.
    pub fn on(&self, privilege: &str, schema: &str) -> bool {
        let revoked = self
            .lines
            .iter()
            .any(|l| l.revoke && like(&l.schema, schema) && l.holds(privilege));
        let given = self
            .lines
            .iter()
            .any(|l| !l.revoke && (l.schema == "*" || like(&l.schema, schema)) && l.holds(privilege));
        given && !revoked
    }

    /// Whether the account may give others rights on the whole of `schema`.
    pub fn may_grant(&self, schema: &str) -> bool {
        self.lines
            .iter()
            .any(|l| !l.revoke && l.may_be_given && (l.schema == "*" || like(&l.schema, schema)))
    }

    /// What is missing for a complete dump of `schemas`, in words for a person; empty when nothing is.
    pub fn missing(&self, dialect: &Dialect, schemas: &[String], binlog_on: bool) -> Vec<String> {
        let mut missing = Vec::new();
        for schema in schemas {
            for (privilege, hides) in [
                ("SELECT", "its tables"),
                ("SHOW VIEW", "its views' definitions"),
                ("TRIGGER", "its triggers"),
                ("EVENT", "its events"),
            ] {
                if !self.on(privilege, schema) {
                    missing.push(format!(
                        "{privilege} on schema {schema} (without it the server hides {hides})"
                    ));
                }
            }
        }
        // A schema-wide SELECT lists no routine at all, and EXECUTE lists them with an empty body.
        if !dialect.routine_privileges.iter().any(|p| self.global(p)) {
            missing.push(format!(
                "{} on *.* (without it the server hides routines' bodies)",
                dialect.routine_privileges.join(" or ")
            ));
        }
        if !self.global("PROCESS") {
            missing.push("PROCESS on *.* (to see who waits for us, and whether tables were rebuilt)".to_owned());
        }
        if binlog_on && !dialect.binlog_privileges.iter().any(|p| self.global(p)) {
            missing.push(format!(
                "{} on *.* (for the binlog position)",
                dialect.binlog_privileges.join(" or ")
            ));
        }
        missing
    }
}

impl Line {
    fn parse(row: &str) -> Option<Self> {
        let (revoke, rest) = match row.strip_prefix("GRANT ") {
            Some(rest) => (false, rest),
            None => (true, row.strip_prefix("REVOKE ")?),
        };
        let (privileges, rest) = rest.split_once(" ON ")?;
        let object = rest.split(" TO ").next()?.split(" FROM ").next()?.trim();
        let schema = object.strip_suffix(".*")?;
        let schema = match schema {
            "*" => "*".to_owned(),
            quoted => quoted.trim_matches(['`', '"']).replace("``", "`"),
        };
        let privileges = split_outside_parentheses(privileges);
        Some(Self {
            revoke,
            privileges,
            schema,
            may_be_given: !revoke && row.contains(" WITH GRANT OPTION"),
        })
    }

    fn holds(&self, privilege: &str) -> bool {
        self.privileges.iter().any(|held| {
            held == privilege
                || held == "ALL PRIVILEGES"
                || held == "ALL"
                // MariaDB prints either name of the same privilege.
                || (held == "SLAVE MONITOR" && privilege == "REPLICA MONITOR")
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let mut parts = vec![String::new()];
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (c, depth, parts.last_mut()) {
            (',', 0, _) => parts.push(String::new()),
            (c, _, Some(part)) => part.push(c),
            (_, _, None) => {}
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

/// SQL `LIKE` as grants use it: `%` any run, `_` any one, `\` takes the next literally.
fn like(pattern: &str, text: &str) -> bool {
    fn matches(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
            ['\\', literal, rest @ ..] => text.first() == Some(literal) && matches(rest, &text[1..]),
            ['_', rest @ ..] => !text.is_empty() && matches(rest, &text[1..]),
            [literal, rest @ ..] => text.first() == Some(literal) && matches(rest, &text[1..]),
        }
    }
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    matches(&pattern, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::dialect::Version;

    fn dialect(version: &str) -> Dialect {
        Dialect::of(Version::parse(version, "").expect("a version"))
    }

    const FULL: &str = "GRANT SELECT, PROCESS, REPLICATION CLIENT, SHOW VIEW, EVENT, TRIGGER ON *.* TO `planb`@`%`";

    #[test]
    fn the_documented_grants_are_enough() {
        let grants = Grants::parse([FULL]);
        assert_eq!(
            grants.missing(&dialect("9.7.0"), &["bank".into()], true),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_missing_grant_is_named_with_what_it_hides() {
        for (privilege, word) in [
            ("SHOW VIEW", "views"),
            ("EVENT", "events"),
            ("TRIGGER", "triggers"),
            ("PROCESS", "waits"),
            ("SELECT", "tables"),
        ] {
            let line = FULL
                .replace(&format!("{privilege}, "), "")
                .replace(&format!(", {privilege}"), "");
            let missing = Grants::parse([line.as_str()]).missing(&dialect("9.7.0"), &["bank".into()], true);
            assert!(
                missing.iter().any(|m| m.contains(privilege) && m.contains(word)),
                "{privilege}: {missing:?}"
            );
        }
    }

    #[test]
    fn a_grant_on_one_schema_hides_routines() {
        let grants = Grants::parse([
            "GRANT PROCESS, REPLICATION CLIENT ON *.* TO `planb`@`%`",
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `pet\\_clinic`.* TO `planb`@`%`",
        ]);
        let missing = grants.missing(&dialect("9.7.0"), &["pet_clinic".into()], true);
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].contains("SHOW_ROUTINE"));
        assert!(
            !grants.on("SELECT", "petXclinic"),
            "an escaped underscore is no wildcard"
        );
    }

    #[test]
    fn a_partial_revoke_counts() {
        let grants = Grants::parse([FULL, "REVOKE SELECT ON `bank`.* FROM `planb`@`%`"]);
        assert!(!grants.on("SELECT", "bank"));
        assert!(grants.on("SELECT", "other"));
    }

    #[test]
    fn all_privileges_and_roles() {
        assert!(
            Grants::parse(["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]).global("PROCESS")
        );
        assert!(!Grants::parse(["GRANT `reader`@`%` TO `planb`@`%`"]).global("SELECT"));
        assert!(!Grants::parse(["GRANT SELECT (`a`, `b`) ON `bank`.`t` TO `planb`@`%`"]).on("SELECT", "bank"));
    }
}
