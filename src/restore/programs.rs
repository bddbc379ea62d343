//! What follows the data: routines, views, triggers and events, statement by statement, with the definer of each where
//! it can be changed. Pure.

use memchr::memmem::find;

use super::statements::{ScriptError, Splitter};
use crate::dump::definition::{DEFINER_LINE, account};

/// A stored object's kind, in the words of `DROP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Function,
    Procedure,
    Package,
    PackageBody,
    View,
    Trigger,
    Event,
}

impl Kind {
    pub fn words(self) -> &'static str {
        match self {
            Self::Function => "FUNCTION",
            Self::Procedure => "PROCEDURE",
            Self::Package => "PACKAGE",
            Self::PackageBody => "PACKAGE BODY",
            Self::View => "VIEW",
            Self::Trigger => "TRIGGER",
            Self::Event => "EVENT",
        }
    }

    /// Triggers and events always run as their definer; the others can run as who calls them.
    pub fn can_be_invoker(self) -> bool {
        match self {
            Self::Function | Self::Procedure | Self::Package | Self::PackageBody | Self::View => true,
            Self::Trigger | Self::Event => false,
        }
    }
}

/// One statement of an after-data member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `SET`, `USE`, `ALTER DATABASE`: run as it is.
    Setting(Vec<u8>),
    Create(Program),
}

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub kind: Kind,
    /// As written, quotes and schema included.
    pub name: Vec<u8>,
    /// The account as text, `app@%`.
    pub definer: Option<String>,
    /// Before the definer's line.
    before: Vec<u8>,
    /// The definer's line, its line break included.
    definer_line: Vec<u8>,
    after: Vec<u8>,
}

/// Who an object is to belong to on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// As in the backup.
    Kept,
    /// Another account: `user@host`.
    Mapped(String),
    /// Whoever restores; views and routines run with the caller's rights instead of the lost definer's.
    Restorer,
}

/// The statements of one after-data member.
///
/// # Errors
/// [`ScriptError`] where the text is cut off, or holds a statement that is none of these: nothing is guessed.
pub fn items(member: &[u8]) -> Result<Vec<Item>, ScriptError> {
    Splitter::all(member)?.into_iter().map(item).collect()
}

fn item(statement: Vec<u8>) -> Result<Item, ScriptError> {
    let strange = || ScriptError::Strange(String::from_utf8_lossy(&statement[..statement.len().min(60)]).into_owned());
    if !statement.starts_with(b"CREATE") {
        let known = [&b"SET "[..], b"USE ", b"ALTER DATABASE "];
        return if known.iter().any(|known| statement.starts_with(known)) {
            Ok(Item::Setting(statement))
        } else {
            Err(strange())
        };
    }
    let mark = format!("\n{DEFINER_LINE}");
    let definer_at = find(&statement, mark.as_bytes());
    let (before, definer_line, after) = match definer_at {
        Some(at) => {
            let end = find(&statement[at + 1..], b" */\n").map_or(statement.len(), |end| at + 1 + end + 4);
            (&statement[..at], &statement[at..end], &statement[end..])
        }
        None => (&statement[..], &b""[..], &b""[..]),
    };
    let head = if definer_at.is_some() { after } else { before };
    let Some((kind, name)) = kind_and_name(head) else {
        return Err(strange());
    };
    let definer = definer_line
        .strip_prefix(mark.as_bytes())
        .and_then(|rest| rest.strip_suffix(b" */\n"))
        .map(account);
    Ok(Item::Create(Program {
        kind,
        name,
        definer,
        before: before.to_vec(),
        definer_line: definer_line.to_vec(),
        after: after.to_vec(),
    }))
}

/// The object's kind and name at the beginning of what follows `CREATE … DEFINER=…`. MariaDB keeps a trigger's words as
/// its maker wrote them: in any case, and with `IF NOT EXISTS`.
fn kind_and_name(head: &[u8]) -> Option<(Kind, Vec<u8>)> {
    let mut rest = head.trim_ascii_start();
    let mut last = String::new();
    loop {
        let (word, after) = word(rest);
        let kind = match word.as_str() {
            "FUNCTION" => Some(Kind::Function),
            "PROCEDURE" => Some(Kind::Procedure),
            "PACKAGE" if !after.get(..4).is_some_and(|next| next.eq_ignore_ascii_case(b"BODY")) => Some(Kind::Package),
            "BODY" if last == "PACKAGE" => Some(Kind::PackageBody),
            "VIEW" => Some(Kind::View),
            "TRIGGER" => Some(Kind::Trigger),
            "EVENT" => Some(Kind::Event),
            _ => None,
        };
        rest = after;
        match kind {
            Some(kind) => return Some((kind, written_name(without_condition(rest))?)),
            None if word.is_empty() => return None,
            None => last = word,
        }
    }
}

/// The word that `text` begins with, in capitals, and what follows it and its blanks.
fn word(text: &[u8]) -> (String, &[u8]) {
    let is_part = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'=');
    let end = text.iter().position(|b| !is_part(b)).unwrap_or(text.len());
    let word = String::from_utf8_lossy(&text[..end]).to_ascii_uppercase();
    (word, text[end..].trim_ascii_start())
}

/// What follows `IF NOT EXISTS`, or all of it.
fn without_condition(text: &[u8]) -> &[u8] {
    let mut rest = text;
    for wanted in ["IF", "NOT", "EXISTS"] {
        let (word, after) = word(rest);
        if word != wanted {
            return text;
        }
        rest = after;
    }
    rest
}

/// A name, perhaps with its schema before it, as written.
fn written_name(text: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    loop {
        let (_, rest) = one_name(&text[at..])?;
        at = text.len() - rest.len();
        if text.get(at) != Some(&b'.') {
            return Some(text[..at].to_vec());
        }
        at += 1;
    }
}

/// The name that `text` begins with, without its quotes, and what follows. (MariaDB prints a trigger's name as its maker
/// wrote it, which may be without quotes.)
fn one_name(text: &[u8]) -> Option<(String, &[u8])> {
    let Some(&quote) = text.first().filter(|b| matches!(b, b'`' | b'"')) else {
        let is_letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || !b.is_ascii();
        let end = text.iter().position(|b| !is_letter(b)).unwrap_or(text.len());
        return (end > 0).then(|| (String::from_utf8_lossy(&text[..end]).into_owned(), &text[end..]));
    };
    let mut name = Vec::new();
    let mut at = 1;
    loop {
        match (*text.get(at)?, text.get(at + 1)) {
            (b, Some(&next)) if b == quote && next == quote => {
                name.push(b);
                at += 2;
            }
            (b, _) if b == quote => return Some((String::from_utf8_lossy(&name).into_owned(), &text[at + 1..])),
            (b, _) => {
                name.push(b);
                at += 1;
            }
        }
    }
}

impl Program {
    /// For messages: `view hard.checked`, quotes left out.
    pub fn describe(&self) -> String {
        let name = String::from_utf8_lossy(&self.name).replace(['`', '"'], "");
        format!("{} {name}", self.kind.words().to_lowercase())
    }

    /// Schema and name without quotes; `schema` is the one in use, for names that stand alone.
    pub fn place(&self, schema: &str) -> (String, String) {
        let mut parts = Vec::new();
        let mut rest = &self.name[..];
        while let Some((name, after)) = one_name(rest) {
            parts.push(name);
            rest = after.strip_prefix(b".").unwrap_or(after);
        }
        match <[String; 2]>::try_from(parts) {
            Ok([schema, name]) => (schema, name),
            Err(parts) => (schema.to_owned(), parts.into_iter().next().unwrap_or_default()),
        }
    }

    pub fn drop_statement(&self) -> Vec<u8> {
        let mut sql = format!("DROP {} IF EXISTS ", self.kind.words()).into_bytes();
        sql.extend_from_slice(&self.name);
        sql
    }

    /// Whether the object can be made to run with its caller's rights where its definer is lost.
    pub fn can_lose_its_definer(&self) -> bool {
        match self.kind {
            Kind::View | Kind::Trigger | Kind::Event => true,
            Kind::Function | Kind::Procedure => characteristics_at(&self.after).is_some(),
            // Where the clause would stand in a package is not known well enough.
            Kind::Package | Kind::PackageBody => false,
        }
    }

    /// Whether an event has an end, after which servers do not keep it.
    pub fn is_passing_event(&self) -> bool {
        let ends = |text: &[u8]| {
            let masked = super::repair::masked(text);
            let body = find(&masked, b" DO ").unwrap_or(masked.len());
            find(&masked[..body], b" SCHEDULE AT ").is_some() || find(&masked[..body], b" ENDS ").is_some()
        };
        self.kind == Kind::Event && (ends(&self.after) || ends(&self.before))
    }

    /// Whether an event waits for a replica to become the primary.
    pub fn is_replica_event(&self) -> bool {
        let sleeps = |text: &[u8]| {
            let masked = super::repair::masked(text);
            let body = find(&masked, b" DO ").unwrap_or(masked.len());
            find(&masked[..body], b" PRESERVE DISABLE ON ").is_some()
        };
        self.kind == Kind::Event && (sleeps(&self.after) || sleeps(&self.before))
    }

    /// Whether an event would fire once it is there.
    pub fn is_enabled_event(&self) -> bool {
        self.kind == Kind::Event && enabled_at(&self.after).or_else(|| enabled_at(&self.before)).is_some()
    }

    /// The text that makes it, without its definer and the clause that lets it run with its caller's rights; and whether it
    /// does so. For a comparison only: blanks between its parts are not what they were.
    pub fn without_definer(&self, owner: &Owner) -> (Vec<u8>, bool) {
        const INVOKER: &[u8] = b"    SQL SECURITY INVOKER\n";
        let owner = match owner {
            Owner::Restorer => &Owner::Restorer,
            Owner::Kept | Owner::Mapped(_) => &Owner::Kept,
        };
        let mut own = self.clone();
        own.definer_line.clear();
        if !own.after.is_empty() {
            own.before.push(b' ');
        }
        let mut text = own.create_statement(owner);
        if self.kind == Kind::View {
            return (words(&text), false);
        }
        // Servers print it after other characteristics than those it was written before.
        let Some(from) = characteristics_at(&text).filter(|_| self.kind.can_be_invoker()) else {
            return (words(&text), false);
        };
        let mut is_invoker = false;
        let mut at = from;
        // Characteristics stand on lines of their own, four blanks in; the body does not.
        while text[at..].starts_with(b"    ") {
            if text[at..].starts_with(INVOKER) {
                text.drain(at..at + INVOKER.len());
                is_invoker = true;
            } else {
                at += find(&text[at..], b"\n").map_or(text.len() - at, |end| end + 1);
            }
        }
        (words(&text), is_invoker)
    }

    /// The statement, for its owner on the target. Events come disabled.
    pub fn create_statement(&self, owner: &Owner) -> Vec<u8> {
        self.statement(owner, true)
    }

    /// The statement, for its owner; an event that was enabled is so again.
    pub fn create_awake(&self, owner: &Owner) -> Vec<u8> {
        self.statement(owner, false)
    }

    fn statement(&self, owner: &Owner, asleep: bool) -> Vec<u8> {
        let mut sql = self.before.clone();
        let mut after = self.after.clone();
        match owner {
            Owner::Kept => sql.extend_from_slice(&self.definer_line),
            Owner::Mapped(account) => {
                sql.extend_from_slice(format!("\n{}\n", definer_clause(account)).as_bytes());
            }
            Owner::Restorer => {
                if !self.definer_line.is_empty() {
                    sql.push(b'\n');
                }
                if self.kind.can_be_invoker() {
                    after = as_invoker(self.kind, &after);
                }
            }
        }
        if self.kind == Kind::Event && asleep {
            if let Some(at) = enabled_at(&after) {
                after.splice(at..at + ENABLE.len(), DISABLE.iter().copied());
            } else if let Some(at) = enabled_at(&sql) {
                sql.splice(at..at + ENABLE.len(), DISABLE.iter().copied());
            }
        }
        sql.extend_from_slice(&after);
        sql
    }
}

/// The first words of a statement one blank apart, as far as its kind; the rest as it is.
fn words(text: &[u8]) -> Vec<u8> {
    let Some(rest) = text.strip_prefix(b"CREATE") else {
        return text.to_vec();
    };
    [b"CREATE ", rest.trim_ascii()].concat()
}

/// `DEFINER='user'@'host'`
pub fn definer_clause(account: &str) -> String {
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    format!("DEFINER={}@{}", quoted(user), quoted(host))
}

const ENABLE: &[u8] = b" PRESERVE ENABLE";
const DISABLE: &[u8] = b" PRESERVE DISABLE";

/// Where an event's head says that it is enabled. `ON COMPLETION … PRESERVE` comes before comment and body, and a
/// schedule holds no such words.
fn enabled_at(text: &[u8]) -> Option<usize> {
    let masked = super::repair::masked(text);
    let body = find(&masked, b" DO ").unwrap_or(text.len());
    find(&masked[..body], ENABLE)
}

/// Makes a view or routine run with its caller's rights.
pub fn as_invoker(kind: Kind, text: &[u8]) -> Vec<u8> {
    const DEFINER: &[u8] = b"SQL SECURITY DEFINER";
    const INVOKER: &[u8] = b"SQL SECURITY INVOKER";
    let mut text = text.to_vec();
    if kind == Kind::View {
        // The clause stands right behind the definer.
        if text.trim_ascii_start().starts_with(DEFINER) {
            let at = text.len() - text.trim_ascii_start().len();
            text.splice(at..at + DEFINER.len(), INVOKER.iter().copied());
        }
        return text;
    }
    // A routine's characteristics follow its parameters (and RETURNS), each on a line of its own; DEFINER is the
    // default and not printed.
    let Some(at) = characteristics_at(&text) else {
        return text;
    };
    if !text[at..].starts_with(b"    SQL SECURITY INVOKER\n") {
        text.splice(at..at, b"    SQL SECURITY INVOKER\n".iter().copied());
    }
    text
}

/// The beginning of the line after the one that ends the parameters (and `RETURNS …`): quotes, comments and parentheses
/// closed.
fn characteristics_at(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut opened = false;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        match (quote, rest[0]) {
            (None, b'`' | b'"' | b'\'') => quote = Some(rest[0]),
            (Some(open), b) if open == b => quote = None,
            (Some(_), _) => {}
            (None, _) if rest.starts_with(b"/*") => at += find(rest, b"*/")?,
            (None, _) if rest.starts_with(b"#") || rest.starts_with(b"-- ") || rest.starts_with(b"--\t") => {
                // The line's end itself is looked at.
                at += find(rest, b"\n")? - 1;
            }
            (None, b'(') => {
                depth += 1;
                opened = true;
            }
            (None, b')') => depth = depth.saturating_sub(1),
            (None, b'\n') if opened && depth == 0 => return Some(at + 1),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(text: &str) -> Vec<Program> {
        let items = items(text.as_bytes()).expect("complete");
        items
            .into_iter()
            .filter_map(|item| match item {
                Item::Create(program) => Some(program),
                Item::Setting(_) => None,
            })
            .collect()
    }

    const FUNCTION: &str = "SET sql_mode = '';\nDELIMITER ;;\nCREATE\n/*!50013 DEFINER=`app`@`%` */\nFUNCTION `f``(`(x INT, y VARCHAR(9)) RETURNS int\n    DETERMINISTIC\nRETURN x;;\nDELIMITER ;\n";

    #[test]
    fn a_function_is_found_with_its_definer() {
        let programs = programs(FUNCTION);
        let function = &programs[0];
        assert_eq!(function.kind, Kind::Function);
        assert_eq!(function.definer.as_deref(), Some("app@%"));
        assert_eq!(function.drop_statement(), b"DROP FUNCTION IF EXISTS `f``(`");
        assert!(FUNCTION.contains(&String::from_utf8(function.create_statement(&Owner::Kept)).expect("UTF-8")));
        let text = String::from_utf8(function.create_statement(&Owner::Restorer)).expect("UTF-8");
        assert_eq!(
            text,
            "CREATE\nFUNCTION `f``(`(x INT, y VARCHAR(9)) RETURNS int\n    SQL SECURITY INVOKER\n    DETERMINISTIC\nRETURN x"
        );
        let text = String::from_utf8(function.create_statement(&Owner::Mapped("o'x@10.%".into()))).expect("UTF-8");
        assert!(text.starts_with("CREATE\nDEFINER='o''x'@'10.%'\nFUNCTION"), "{text}");
    }

    #[test]
    fn a_view_runs_as_its_caller_and_an_event_sleeps() {
        let views = programs(
            "CREATE ALGORITHM=UNDEFINED\n/*!50013 DEFINER=`ghost`@`%` */\nSQL SECURITY DEFINER VIEW `a`.`v` AS select 'SQL SECURITY DEFINER' AS `x`;\n",
        );
        assert_eq!(views[0].name, b"`a`.`v`");
        let text = String::from_utf8(views[0].create_statement(&Owner::Restorer)).expect("UTF-8");
        assert_eq!(
            text,
            "CREATE ALGORITHM=UNDEFINED\nSQL SECURITY INVOKER VIEW `a`.`v` AS select 'SQL SECURITY DEFINER' AS `x`"
        );
        let events = programs(
            "DELIMITER ;;\nCREATE\n/*!50013 DEFINER=`a`@`%` */\nEVENT `e` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE ENABLE COMMENT 'x' DO SELECT ' PRESERVE ENABLE';;\n",
        );
        assert!(events[0].is_enabled_event());
        let text = String::from_utf8(events[0].create_statement(&Owner::Kept)).expect("UTF-8");
        assert!(
            text.contains("NOT PRESERVE DISABLE COMMENT 'x' DO SELECT ' PRESERVE ENABLE'"),
            "{text}"
        );
    }

    #[test]
    fn words_are_as_their_maker_wrote_them() {
        let found = programs(
            "DELIMITER ;;\nCREATE\n/*!50013 DEFINER=`a`@`%` */\ntrigger if not exists tr before insert on t for each row set @a = 1;;\n",
        );
        assert_eq!((found[0].kind, found[0].name.as_slice()), (Kind::Trigger, &b"tr"[..]));
        assert!(items(b"GRANT ALL ON *.* TO x;").is_err(), "nothing is guessed");
    }

    #[test]
    fn comments_among_the_parameters_hide_nothing() {
        for parameters in ["(in a int /* don't (touch */)", "(in a int -- (\n)", "(in a int # '\n)"] {
            let found = programs(&format!(
                "DELIMITER ;;\nCREATE\n/*!50013 DEFINER=`a`@`%` */\nPROCEDURE `p`{parameters}\nBEGIN END;;\n"
            ));
            assert!(found[0].can_lose_its_definer(), "{parameters}");
            let text = String::from_utf8(found[0].create_statement(&Owner::Restorer)).expect("UTF-8");
            assert!(text.ends_with("\n    SQL SECURITY INVOKER\nBEGIN END"), "{text}");
        }
    }

    #[test]
    fn an_event_s_name_may_say_anything() {
        let found = programs(
            "DELIMITER ;;\nCREATE\n/*!50013 DEFINER=`a`@`%` */\nEVENT `x DO y` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE ENABLE DO SELECT 1;;\n",
        );
        assert!(found[0].is_enabled_event());
        let text = String::from_utf8(found[0].create_statement(&Owner::Kept)).expect("UTF-8");
        assert!(text.contains("PRESERVE DISABLE DO SELECT"), "{text}");
    }

    #[test]
    fn a_name_may_stand_without_quotes() {
        let found = programs(
            "DELIMITER ;;\nCREATE\n/*!50013 DEFINER=`a`@`%` */\nTRIGGER 가_second BEFORE INSERT ON t FOR EACH ROW SET @a = 1;;\nCREATE\n/*!50013 DEFINER=`a`@`%` */\nTRIGGER s.`x``y` BEFORE INSERT ON t FOR EACH ROW SET @a = 1;;\n",
        );
        assert_eq!(found[0].place("here"), ("here".to_owned(), "가_second".to_owned()));
        assert_eq!(found[0].drop_statement(), "DROP TRIGGER IF EXISTS 가_second".as_bytes());
        assert_eq!(found[1].place("here"), ("s".to_owned(), "x`y".to_owned()));
    }

    #[test]
    fn without_a_definer_and_in_ansi_quotes() {
        let found = programs(
            "DELIMITER ;;\nCREATE TRIGGER `t` BEFORE INSERT ON `x` FOR EACH ROW SET @a = 1;;\nCREATE\n/*!50013 DEFINER=\"g\"@\"%\" */\nPROCEDURE \"p ansi\"(IN \"a\" INT)\nBEGIN END;;\n",
        );
        assert_eq!((found[0].kind, found[0].definer.as_deref()), (Kind::Trigger, None));
        assert_eq!(
            (found[1].kind, found[1].definer.as_deref()),
            (Kind::Procedure, Some("g@%"))
        );
        assert_eq!(found[1].name, b"\"p ansi\"");
    }
}
