//! `[[accounts]]`: who the application is on the standby. A backup holds no accounts, so a restore makes these.
//!
//! Nothing of what stands here reaches a server as SQL of its own: a privilege is one of a list, a name is quoted.

use super::collect::{Document, Section};
use super::sections::{SERVER_SCHEMAS, account, is_planbs_own};
use super::{Account, Grant, Standby};
use crate::secret::SecretRef;

/// On a schema as a whole, or on one table of it.
const OF_TABLES: [&str; 14] = [
    "ALL",
    "ALL PRIVILEGES",
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "CREATE VIEW",
    "SHOW VIEW",
    "TRIGGER",
];

/// On a schema as a whole only.
const OF_SCHEMAS: [&str; 6] = [
    "EXECUTE",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "LOCK TABLES",
    "CREATE TEMPORARY TABLES",
];

/// A new password for one of these locks people, or the platform itself, out.
const RESERVED: [&str; 6] = [
    "root",
    "mariadb.sys",
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "azure_superuser",
];

const KEYS: [&str; 4] = ["name", "hosts", "grants", "password"];

pub(super) fn accounts(document: &mut Document<'_>, standby: Option<&Standby>) -> Vec<Account> {
    let mut accounts: Vec<Account> = Vec::new();
    for number in 0..document.count("accounts", &KEYS) {
        let mut section = document.nth("accounts", number);
        let account = one(&mut section);
        if standby.is_some_and(|standby| standby.user == account.name) {
            section.problem(
                "name",
                "is the account that restores ([standby] user): the application needs one of its own",
            );
        }
        if !account.name.is_empty() && accounts.iter().any(|other| other.name == account.name) {
            section.problem(
                "name",
                "stands in an earlier [[accounts]] already: one password and one list of grants to a name",
            );
        }
        accounts.push(account);
    }
    accounts
}

fn one(section: &mut Section<'_, '_>) -> Account {
    let name = section.text("name", |text| {
        if RESERVED.contains(&text.to_ascii_lowercase().as_str()) {
            return Err("is the server's own account: the application needs one of its own".into());
        }
        account(text)
    });
    let name = section.need("name", name, "the account's name, e.g. name = \"petclinic\"");
    let hosts = section.list("hosts");
    match &hosts {
        Some(hosts) if hosts.is_empty() => section.problem("hosts", "is empty: leave it out for \"%\""),
        Some(hosts) if !hosts.iter().all(|host| is_host_pattern(host)) => section.problem(
            "hosts",
            "holds what is no host: write names, addresses or patterns such as \"%\", \"10.1.%\" or \"10.1.0.0/255.255.0.0\"",
        ),
        Some(hosts) if (1..hosts.len()).any(|at| hosts[..at].contains(&hosts[at])) => {
            section.problem("hosts", "names a host twice");
        }
        Some(_) | None => {}
    }
    let texts = section.list("grants");
    let texts = section.need(
        "grants",
        texts,
        "a list such as grants = [\"SELECT, INSERT ON petclinic.*\"]",
    );
    let mut grants = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        match grant(text) {
            Ok(grant) => grants.push(grant),
            Err(why) => section.problem("grants", format!("number {} {why}", at + 1)),
        }
    }
    let password = section.secret("password").map(|reference| reference.0);
    let write = "where it is, e.g. password = \"azure-keyvault:kv-dr/app-password\"";
    Account {
        name,
        hosts: hosts.unwrap_or_else(|| vec!["%".into()]),
        grants,
        password: SecretRef(section.need("password", password, write)),
    }
}

/// Letters of names, addresses, wildcards and netmasks; 255 is MySQL's limit.
fn is_host_pattern(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_%:/".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

/// `SELECT, INSERT ON schema.*` or `… ON schema.table`.
fn grant(text: &str) -> Result<Grant, String> {
    let form = "must be PRIVILEGE, … ON schema.* or schema.table";
    // In ASCII, capital letters stand where the small ones stood.
    let upper = text.to_ascii_uppercase();
    let at = upper.find(" ON ").ok_or(form)?;
    let mut privileges = Vec::new();
    for word in upper[..at].split(',') {
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        let known = OF_TABLES.iter().chain(&OF_SCHEMAS).find(|known| **known == word);
        match known {
            Some(known) if !privileges.contains(known) => privileges.push(*known),
            Some(_) => {}
            None => {
                return Err(format!(
                    "grants something that an application does not need; there are {}, {}",
                    OF_TABLES.join(", "),
                    OF_SCHEMAS.join(", ")
                ));
            }
        }
    }
    let object = text[at + 4..].trim();
    if object.starts_with('*') {
        return Err("reaches every schema, the server's own included: name the schema, e.g. ON petclinic.*".into());
    }
    let (schema, rest) = identifier(object).ok_or(form)?;
    if SERVER_SCHEMAS.contains(&schema.to_ascii_lowercase().as_str()) || is_planbs_own(&schema) {
        return Err("is on a schema of the server's or of PlanB's: the application has none of them".into());
    }
    let rest = rest.trim_start().strip_prefix('.').ok_or(form)?.trim_start();
    let (table, rest) = match rest.strip_prefix('*') {
        Some(rest) => (None, rest),
        None => {
            let (table, rest) = identifier(rest).ok_or(form)?;
            (Some(table), rest)
        }
    };
    let rest = rest.trim().to_ascii_uppercase();
    if rest.starts_with("WITH") {
        return Err("may not be handed on: leave out WITH GRANT OPTION".into());
    }
    if !rest.is_empty() {
        return Err(form.into());
    }
    if table.is_some() && privileges.iter().any(|privilege| OF_SCHEMAS.contains(privilege)) {
        return Err(format!(
            "is on a table, and {} are of whole schemas",
            OF_SCHEMAS.join(", ")
        ));
    }
    Ok(Grant {
        privileges,
        schema,
        table,
    })
}

/// The name that `text` begins with, bare or in backticks, and what follows.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .unwrap_or(text.len());
        return (1..=64).contains(&end).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('`')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => break,
        }
    }
    let fits = (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    fits.then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_whatever_its_spelling() {
        let read = grant("select,  Create   View on `pet``clinic` . `visits`").expect("a grant");
        assert_eq!(read.privileges, ["SELECT", "CREATE VIEW"]);
        assert_eq!(
            (read.schema.as_str(), read.table.as_deref()),
            ("pet`clinic", Some("visits"))
        );
        let read = grant("EXECUTE ON 데이터.*").expect("a grant");
        assert_eq!((read.schema.as_str(), read.table), ("데이터", None));
    }

    #[test]
    fn nothing_but_a_grant_is_read() {
        for text in [
            "ALL ON *.*",
            "ALL PRIVILEGES ON *.*",
            "SELECT ON *",
            "SELECT ON mysql.*",
            "SELECT ON planb.*",
            "SUPER ON a.*",
            "GRANT OPTION ON a.*",
            "SELECT ON a.* WITH GRANT OPTION",
            "SELECT ON a.* TO root@'%'; DROP DATABASE a",
            "SELECT ON a.b; DROP DATABASE a",
            "SELECT ON `a`; DROP DATABASE a -- `.*",
            "SELECT ON `a.*",
            "SELECT (x) ON a.b",
            "SELECT /* x */ ON a.*",
            "EXECUTE ON a.b",
            "SELECT ON a",
            "SELECT ON .*",
            " ON a.*",
            "",
            "SELECT ON ``.*",
            "SELECT ON a.*.*",
            "SELECT ON a. ",
        ] {
            assert!(grant(text).is_err(), "{text}");
        }
    }
}
