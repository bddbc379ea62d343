//! The application's accounts on the target, which no backup holds: what stands against them, and the statements that
//! make them. Pure.

use crate::config::{Grant, Tls};
use crate::dump::literal::{identifier, string};
use crate::mysql::dialect::Family;
use crate::secret::Secret;

use super::plan::Backup;
use super::programs::{Item, Kind};
use super::target::Target;

/// One account, with its password in hand.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    /// Patterns, as in `'name'@'host'`.
    pub hosts: Vec<String>,
    pub grants: Vec<Grant>,
    pub password: Secret,
}

impl Account {
    /// `app@%`, as definers are written.
    pub fn full_names(&self) -> impl Iterator<Item = String> + '_ {
        self.hosts.iter().map(|host| format!("{}@{host}", self.name))
    }
}

/// Whether `definer` (`app@%`) will be there once `accounts` are made.
pub fn include(accounts: &[Account], definer: &str) -> bool {
    accounts
        .iter()
        .any(|account| account.full_names().any(|name| name == definer))
}

/// Everything that stands against making `accounts`, in words, each with what to do.
pub fn against(accounts: &[Account], backup: Backup<'_>, target: &Target) -> Vec<String> {
    let mut problems = Vec::new();
    if !accounts.is_empty() && !target.grants.global("CREATE USER") {
        problems.push(format!(
            "account {} may not make accounts; grant it CREATE USER on *.*, or leave --accounts out and make them by hand",
            target.account
        ));
    }
    let restorer = target.account.rsplit_once('@').map_or("", |(user, _)| user);
    for account in accounts {
        if account.name == restorer {
            problems.push(format!(
                "[[accounts]] {}: that is the account that restores, whose password would be changed under it; give the \
                 application one of its own",
                account.name
            ));
        }
        for grant in &account.grants {
            problems.extend(against_grant(&account.name, grant, backup, target));
        }
    }
    problems
}

fn against_grant(account: &str, grant: &Grant, backup: Backup<'_>, target: &Target) -> Vec<String> {
    let mut problems = Vec::new();
    let same = |a: &str, b: &str| target.stored(a) == target.stored(b);
    let schema = &grant.schema;
    if !backup
        .schema
        .databases
        .iter()
        .any(|database| same(&database.name, schema))
    {
        problems.push(format!(
            "[[accounts]] {account}: the backup holds no schema {schema}; correct its grants"
        ));
    } else if let Some(table) = &grant.table {
        let is_table = backup
            .schema
            .tables
            .iter()
            .any(|known| same(&known.schema, schema) && same(&known.name, table));
        let is_view = backup.programs.iter().any(|item| match item {
            Item::Create(program) if program.kind == Kind::View => {
                let (of, name) = program.place(schema);
                same(&of, schema) && same(&name, table)
            }
            Item::Create(_) | Item::Setting(_) => false,
        });
        if !is_table && !is_view {
            problems.push(format!(
                "[[accounts]] {account}: the backup holds no table {schema}.{table}; correct its grants"
            ));
        }
    }
    let stored = target.stored(schema);
    let lacking: Vec<&str> = grant
        .privileges
        .iter()
        .copied()
        .filter(|privilege| !privilege.starts_with("ALL") && !target.grants.on(privilege, &stored))
        .collect();
    if !lacking.is_empty() {
        problems.push(format!(
            "[[accounts]] {account}: account {} lacks {} on {schema} itself and cannot give it; grant it, with GRANT OPTION",
            target.account,
            lacking.join(", ")
        ));
    }
    if !target.grants.may_grant(&stored) {
        problems.push(format!(
            "[[accounts]] {account}: account {} may not give rights on {schema} to others; grant its own WITH GRANT OPTION",
            target.account
        ));
    }
    problems
}

/// What will be done, a line for each account and host.
pub fn told(accounts: &[Account], target: &Target) -> Vec<String> {
    let mut lines = Vec::new();
    for account in accounts {
        let grants: Vec<String> = account
            .grants
            .iter()
            .map(|grant| {
                let table = grant.table.as_deref().unwrap_or("*");
                format!("{} ON {}.{table}", grant.privileges.join(", "), grant.schema)
            })
            .collect();
        for name in account.full_names() {
            let how = match &target.accounts {
                Some(there) if there.contains(&name) => "is there, and gets the configured password",
                Some(_) => "is made",
                None => "is made, or gets the configured password if it is there",
            };
            lines.push(format!("{name} {how}; {}", grants.join("; ")));
        }
    }
    lines
}

fn quoted(account: &Account, host: &str) -> String {
    format!("{}@{}", string(&account.name), string(host))
}

/// Makes sure of the account and its password: a session in which backslashes escape, one statement after the other.
pub fn make(account: &Account, host: &str, exists: Option<bool>, tls: Tls) -> Vec<Secret> {
    let require = match tls {
        Tls::Required => "SSL",
        Tls::Off => "NONE",
    };
    let statement = |verb: &str| {
        let password = Secret::new(string(account.password.expose()));
        let name = quoted(account, host);
        Secret::new(format!(
            "{verb} {name} IDENTIFIED BY {} REQUIRE {require}",
            password.expose()
        ))
    };
    let create = || statement("CREATE USER IF NOT EXISTS");
    let alter = || statement("ALTER USER");
    match exists {
        // Not altered as well: a server that remembers passwords refuses the same one again.
        Some(false) => vec![create()],
        Some(true) => vec![alter()],
        None => vec![create(), alter()],
    }
}

/// `are_wildcards`: whether the server takes `_` and `%` of a schema's name for any letters. MySQL does so unless
/// `partial_revokes` is on, and then a backslash stands for itself (seen on 9.7).
pub fn grant(account: &Account, host: &str, grant: &Grant, are_wildcards: bool) -> String {
    let object = match &grant.table {
        Some(table) => format!("{}.{}", identifier(&grant.schema), identifier(table)),
        None if are_wildcards => {
            let literally = grant
                .schema
                .replace('\\', "\\\\")
                .replace('_', "\\_")
                .replace('%', "\\%");
            format!("{}.*", identifier(&literally))
        }
        None => format!("{}.*", identifier(&grant.schema)),
    };
    format!(
        "GRANT {} ON {object} TO {}",
        grant.privileges.join(", "),
        quoted(account, host)
    )
}

/// Whether the server lets somebody whom it sees as `seen` (a name or an address) log in to an account of `pattern`.
pub fn admits(pattern: &str, seen: &str, family: Family) -> bool {
    let is_local = |text: &str| ["localhost", "127.0.0.1", "::1"].contains(&text);
    if let Some((network, mask)) = pattern.split_once('/') {
        return is_within(network, mask, if is_local(seen) { "127.0.0.1" } else { seen }, family);
    }
    let mut names = vec![seen];
    if is_local(seen) {
        // The server looks at the name and the address; which of them it shows depends on skip_name_resolve.
        names.extend(["localhost", "127.0.0.1"]);
    }
    names
        .iter()
        .any(|name| like(&pattern.to_ascii_lowercase(), &name.to_ascii_lowercase()))
}

fn is_within(network: &str, mask: &str, seen: &str, family: Family) -> bool {
    let number = |text: &str| text.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
    let mask = match mask.parse::<u32>() {
        // The number of bits is MySQL's (8.0.23) own way of writing it.
        Ok(bits) if family == Family::MySql && bits <= 32 => u32::MAX.checked_shl(32 - bits).or(Some(0)),
        Ok(_) => None,
        Err(_) => number(mask),
    };
    match (number(network), mask, number(seen)) {
        (Some(network), Some(mask), Some(seen)) => seen & mask == network & mask,
        _ => false,
    }
}

/// `%` any run, `_` any one letter.
fn like(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, end) => end.is_none(),
        (Some('%'), None) => like(&pattern[1..], text),
        (Some('%'), Some(first)) => like(&pattern[1..], text) || like(pattern, &text[first.len_utf8()..]),
        (Some(letter), Some(first)) if letter == '_' || letter == first => {
            like(&pattern[letter.len_utf8()..], &text[first.len_utf8()..])
        }
        (Some(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Account {
        Account {
            name: "o'app".into(),
            hosts: vec!["10.%".into()],
            grants: Vec::new(),
            password: Secret::new("a'b\\c"),
        }
    }

    #[test]
    fn nothing_escapes_its_quotes() {
        let made = make(&app(), "10.%", None, Tls::Required);
        let texts: Vec<&str> = made.iter().map(Secret::expose).collect();
        assert_eq!(
            texts,
            [
                r"CREATE USER IF NOT EXISTS 'o\'app'@'10.%' IDENTIFIED BY 'a\'b\\c' REQUIRE SSL",
                r"ALTER USER 'o\'app'@'10.%' IDENTIFIED BY 'a\'b\\c' REQUIRE SSL",
            ]
        );
        assert!(!format!("{:?}{made:?}", app()).contains("a'b"));
        let given = Grant {
            privileges: vec!["SELECT", "EXECUTE"],
            schema: "pet_cl`x".into(),
            table: None,
        };
        assert_eq!(
            grant(&app(), "%", &given, true),
            r"GRANT SELECT, EXECUTE ON `pet\_cl``x`.* TO 'o\'app'@'%'"
        );
        assert_eq!(
            grant(&app(), "%", &given, false),
            r"GRANT SELECT, EXECUTE ON `pet_cl``x`.* TO 'o\'app'@'%'"
        );
    }

    #[test]
    fn a_host_is_admitted_as_the_server_would() {
        for (pattern, seen, is_admitted) in [
            ("%", "10.1.2.3", true),
            ("10.1.%", "10.1.2.3", true),
            ("10.1.%", "10.2.2.3", false),
            ("localhost", "127.0.0.1", true),
            ("127.0.0.1", "localhost", true),
            ("10.1.0.0/255.255.0.0", "10.1.9.9", true),
            ("10.1.0.0/255.255.0.0", "10.2.9.9", false),
            ("10.1.0.0/16", "10.1.9.9", true),
            ("%.Internal", "db.internal", true),
            ("_.internal", "db.internal", false),
        ] {
            assert_eq!(admits(pattern, seen, Family::MySql), is_admitted, "{pattern} {seen}");
        }
    }
}
