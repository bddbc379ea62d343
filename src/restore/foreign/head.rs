//! What a statement of a dump is, told from its first words, as mysqldump and mariadb-dump write them: version comments
//! (`/*!50003 CREATE*/ /*!50017 DEFINER=…*/ /*!50003 TRIGGER …`) are read as the server reads them. Pure.

use std::ops::Range;

use crate::restore::programs::Kind;

/// A statement, as far as it matters to a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Use(String),
    CreateDatabase(String),
    DropDatabase(String),
    AlterDatabase {
        /// The name as it is written.
        name: Range<usize>,
    },
    /// Its name, without schema.
    CreateTable(String),
    Program(Program),
    /// `INSERT`, `REPLACE`: changes rows.
    Rows,
    /// `SET` of the session's own variables.
    Session,
    /// `SET` of the server's own variables, with the first one's name.
    Global(String),
    /// `LOCK TABLES`, `UNLOCK TABLES`
    Lock,
    /// Whether this session's changes are logged.
    LogBin,
    /// Accounts, replication, plugins: the server's own affairs. Its first words.
    Server(String),
    Other,
}

/// A stored object in the text of its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub kind: Kind,
    pub name: String,
    /// The clause `DEFINER=…` and the account as text, `app@%`.
    pub definer: Option<(Range<usize>, String)>,
    /// The word DEFINER of a view's `SQL SECURITY DEFINER`.
    pub security: Option<Range<usize>>,
    /// Where the word that names the kind begins.
    pub at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Word,
    Quoted,
    Symbol,
}

/// Words and names one after another; comments are passed over, the marks of version comments too.
#[derive(Debug, Clone)]
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = (Token, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.text[self.at..];
            let skipped = match rest.first()? {
                b if b.is_ascii_whitespace() => 1,
                b'*' if rest.starts_with(b"*/") => 2,
                b'/' if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") => {
                    let mark = rest.iter().position(|&b| b == b'!')? + 1;
                    mark + rest[mark..].iter().take_while(|b| b.is_ascii_digit()).count()
                }
                b'/' if rest.starts_with(b"/*") => 2 + rest[2..].windows(2).position(|pair| pair == b"*/")? + 2,
                b'-' if rest.starts_with(b"-- ") => rest.iter().position(|&b| b == b'\n')?,
                _ => break,
            };
            self.at += skipped;
        }
        let start = self.at;
        let first = self.text[start];
        let token = match first {
            b'`' | b'"' | b'\'' => {
                self.at = end_of_quote(self.text, start)?;
                Token::Quoted
            }
            b if is_word(b) => {
                self.at += self.text[start..].iter().take_while(|&&b| is_word(b)).count();
                Token::Word
            }
            _ => {
                self.at += 1;
                Token::Symbol
            }
        };
        Some((token, start..self.at))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'@' | b'.') || byte >= 0x80
}

fn end_of_quote(text: &[u8], start: usize) -> Option<usize> {
    let quote = text[start];
    let mut at = start + 1;
    loop {
        match *text.get(at)? {
            b'\\' if quote != b'`' => at += 2,
            b if b == quote && text.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

impl<'a> Tokens<'a> {
    /// The next token as an upper-case word; empty for anything else.
    fn word(&mut self) -> String {
        match self.next() {
            Some((Token::Word, range)) => String::from_utf8_lossy(&self.text[range]).to_ascii_uppercase(),
            _ => String::new(),
        }
    }

    /// A name, quoted or not, without its schema; and its place with the schema.
    fn name(&mut self) -> Option<(String, Range<usize>)> {
        let (token, mut range) = self.next()?;
        let mut name = unquoted(token, &self.text[range.clone()]);
        while self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            let (token, last) = self.next()?;
            name = unquoted(token, &self.text[last.clone()]);
            range.end = last.end;
        }
        Some((name, range))
    }

    /// A name after what may stand before it: `IF NOT EXISTS`.
    fn name_after_conditions(&mut self) -> Option<(String, Range<usize>)> {
        loop {
            let mut ahead = self.clone();
            match ahead.word().as_str() {
                "IF" | "NOT" | "EXISTS" => *self = ahead,
                _ => return self.name(),
            }
        }
    }

    /// The account after `DEFINER`; where the clause ends.
    fn account(&mut self) -> Option<(usize, String)> {
        let (_, equals) = self.next()?;
        if self.text[equals] != *b"=" {
            return None;
        }
        let (token, user) = self.next()?;
        let mut account = unquoted(token, &self.text[user.clone()]);
        let mut end = user.end;
        if self.text.get(end) == Some(&b'@') {
            let (_, at) = self.next()?;
            end = at.end;
            // `a`@localhost is one word with its mark.
            account.push_str(&String::from_utf8_lossy(&self.text[at.clone()]));
            if at.len() == 1 {
                let (token, host) = self.next()?;
                account.push_str(&unquoted(token, &self.text[host.clone()]));
                end = host.end;
            }
        } else if self.text[end..].starts_with(b"()") {
            self.at += 2;
            end += 2;
        }
        Some((end, account))
    }
}

fn unquoted(token: Token, text: &[u8]) -> String {
    if token != Token::Quoted {
        return String::from_utf8_lossy(text).into_owned();
    }
    let quote = char::from(text[0]);
    let inner = String::from_utf8_lossy(&text[1..text.len() - 1]).into_owned();
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

/// Tells what a statement is.
pub fn read(statement: &[u8]) -> Statement {
    let mut tokens = Tokens { text: statement, at: 0 };
    let first = tokens.word();
    match first.as_str() {
        "INSERT" | "REPLACE" => Statement::Rows,
        "USE" => tokens.name().map_or(Statement::Other, |(name, _)| Statement::Use(name)),
        "SET" => set(tokens),
        "LOCK" | "UNLOCK" => Statement::Lock,
        "CREATE" => create(tokens).unwrap_or(Statement::Other),
        "DROP" | "ALTER" => match (tokens.word().as_str(), tokens.name_after_conditions()) {
            ("DATABASE" | "SCHEMA", Some((name, _))) if first == "DROP" => Statement::DropDatabase(name),
            ("DATABASE" | "SCHEMA", Some((_, name))) => Statement::AlterDatabase { name },
            (other @ ("USER" | "ROLE" | "SERVER" | "INSTANCE"), _) => Statement::Server(format!("{first} {other}")),
            _ => Statement::Other,
        },
        "GRANT" | "REVOKE" | "FLUSH" | "CHANGE" | "START" | "STOP" | "RESET" | "INSTALL" | "UNINSTALL" | "PURGE" => {
            // `START TRANSACTION` is the session's.
            let second = tokens.word();
            if second == "TRANSACTION" {
                Statement::Other
            } else {
                Statement::Server(format!("{first} {second}").trim_end().to_owned())
            }
        }
        _ => Statement::Other,
    }
}

fn set(mut tokens: Tokens<'_>) -> Statement {
    let name = tokens.word();
    let variable = name.rsplit('.').next().unwrap_or_default().to_owned();
    match name.as_str() {
        "GLOBAL" | "PERSIST" | "PERSIST_ONLY" => Statement::Global(tokens.word()),
        "PASSWORD" | "DEFAULT" => Statement::Server(format!("SET {name}")),
        "SESSION" | "LOCAL" if tokens.word() == "SQL_LOG_BIN" => Statement::LogBin,
        _ if variable == "SQL_LOG_BIN" || name == "@@SQL_LOG_BIN" => Statement::LogBin,
        _ if name.starts_with("@@GLOBAL.") || name.starts_with("@@PERSIST") => Statement::Global(variable),
        _ => Statement::Session,
    }
}

fn create(mut tokens: Tokens<'_>) -> Option<Statement> {
    let mut definer = None;
    let mut security = None;
    let mut last = String::new();
    loop {
        let (token, range) = tokens.next()?;
        if token != Token::Word {
            // `ALGORITHM=UNDEFINED`
            continue;
        }
        let word = String::from_utf8_lossy(&tokens.text[range.clone()]).to_ascii_uppercase();
        let kind = match word.as_str() {
            "DATABASE" | "SCHEMA" => {
                return tokens
                    .name_after_conditions()
                    .map(|(name, _)| Statement::CreateDatabase(name));
            }
            "TABLE" => {
                return tokens
                    .name_after_conditions()
                    .map(|(name, _)| Statement::CreateTable(name));
            }
            "USER" | "ROLE" | "SERVER" | "TABLESPACE" => return Some(Statement::Server(format!("CREATE {word}"))),
            "INDEX" | "SEQUENCE" | "UNIQUE" | "TEMPORARY" => return Some(Statement::Other),
            "DEFINER" if last == "SECURITY" => {
                security = Some(range.clone());
                None
            }
            "DEFINER" => {
                let (end, account) = tokens.account()?;
                definer = Some((range.start..end, account));
                None
            }
            "FUNCTION" => Some(Kind::Function),
            "PROCEDURE" => Some(Kind::Procedure),
            "PACKAGE" => {
                let mut ahead = tokens.clone();
                if ahead.word() == "BODY" {
                    tokens = ahead;
                    Some(Kind::PackageBody)
                } else {
                    Some(Kind::Package)
                }
            }
            "VIEW" => Some(Kind::View),
            "TRIGGER" => Some(Kind::Trigger),
            "EVENT" => Some(Kind::Event),
            _ => None,
        };
        if let Some(kind) = kind {
            let (name, _) = tokens.name_after_conditions()?;
            return Some(Statement::Program(Program {
                kind,
                name,
                definer,
                security,
                at: range.start,
            }));
        }
        last = word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(text: &str) -> Program {
        match read(text.as_bytes()) {
            Statement::Program(program) => program,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn definers_in_every_form_that_the_tools_write() {
        let forms = [
            (
                "CREATE DEFINER=`a``b`@`%` PROCEDURE `p q`() SELECT 1",
                Kind::Procedure,
                "a`b@%",
                "p q",
            ),
            (
                "CREATE DEFINER=\"ghost\"@\"%\" PROCEDURE \"p ansi\"(IN \"a\" INT)",
                Kind::Procedure,
                "ghost@%",
                "p ansi",
            ),
            (
                "CREATE DEFINER=`r`@`l` AGGREGATE FUNCTION `f`(x INT) RETURNS int",
                Kind::Function,
                "r@l",
                "f",
            ),
            (
                "CREATE DEFINER=\"r\"@\"l\" PACKAGE BODY \"pack\" AS",
                Kind::PackageBody,
                "r@l",
                "pack",
            ),
            (
                "CREATE DEFINER=root@localhost VIEW v AS SELECT 1",
                Kind::View,
                "root@localhost",
                "v",
            ),
            (
                "CREATE DEFINER=`root`@localhost EVENT e ON SCHEDULE",
                Kind::Event,
                "root@localhost",
                "e",
            ),
            (
                "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER `t` BEFORE DELETE ON `x` FOR EACH ROW SET @a=1 */",
                Kind::Trigger,
                "root@localhost",
                "t",
            ),
            (
                "/*!50020 CREATE*/ /*!50020 DEFINER=`a`@`b`*/ /*!50003 FUNCTION `f`() RETURNS int RETURN 1 */",
                Kind::Function,
                "a@b",
                "f",
            ),
            (
                "/*!50106 CREATE*/ /*!50117 DEFINER=`g`@`n`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY DO SELECT 1 */",
                Kind::Event,
                "g@n",
                "e",
            ),
        ];
        for (text, kind, definer, name) in forms {
            let found = program(text);
            assert_eq!((found.kind, found.name.as_str()), (kind, name), "{text}");
            let (range, account) = found.definer.expect("a definer");
            assert_eq!(account, definer, "{text}");
            assert!(text[range.clone()].starts_with("DEFINER="), "{text}");
            assert!(
                text[range.end..].starts_with([' ', '*']),
                "{text}: {}",
                &text[range.end..]
            );
        }
    }

    #[test]
    fn a_view_with_its_security() {
        let text = "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`b` SQL SECURITY DEFINER */\n/*!50001 VIEW `v` AS select 'DEFINER' */";
        let found = program(text);
        assert_eq!(found.kind, Kind::View);
        assert_eq!(&text[found.security.expect("its security")], "DEFINER");
        assert_eq!(&text[found.definer.expect("its definer").0], "DEFINER=`a`@`b`");
        assert_eq!(&text[found.at..found.at + 4], "VIEW");
    }

    #[test]
    fn what_belongs_to_the_server_is_told_from_what_belongs_to_the_session() {
        let read = |text: &str| read(text.as_bytes());
        assert_eq!(read("SET @@SESSION.SQL_LOG_BIN= 0"), Statement::LogBin);
        assert_eq!(
            read("SET @@SESSION.SQL_LOG_BIN = @MYSQLDUMP_TEMP_LOG_BIN"),
            Statement::LogBin
        );
        assert_eq!(read("SET sql_log_bin=0"), Statement::LogBin);
        assert_eq!(
            read("SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN"),
            Statement::Session
        );
        assert_eq!(
            read("SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'a:1-2'"),
            Statement::Global("GTID_PURGED".into())
        );
        assert_eq!(
            read("SET GLOBAL gtid_slave_pos='0-1-2'"),
            Statement::Global("GTID_SLAVE_POS".into())
        );
        assert_eq!(read("/*!40101 SET NAMES utf8mb4 */"), Statement::Session);
        assert_eq!(
            read("CREATE DATABASE /*!32312 IF NOT EXISTS*/ `ha``rd` /*!40100 DEFAULT CHARACTER SET utf8mb4 */"),
            Statement::CreateDatabase("ha`rd".into())
        );
        assert_eq!(
            read("/*!40000 DROP DATABASE IF EXISTS `x`*/"),
            Statement::DropDatabase("x".into())
        );
        assert_eq!(read("USE `a b`"), Statement::Use("a b".into()));
        assert_eq!(
            read("CHANGE MASTER TO MASTER_LOG_FILE='x'"),
            Statement::Server("CHANGE MASTER".into())
        );
        assert_eq!(
            read("CREATE TABLE `t` (\n  `a` int)"),
            Statement::CreateTable("t".into())
        );
        assert_eq!(read("INSERT INTO `t` VALUES ('CREATE DEFINER=x')"), Statement::Rows);
        assert_eq!(read("/*!40000 ALTER TABLE `t` DISABLE KEYS */"), Statement::Other);
        for torn in [
            "CREATE",
            "CREATE DEFINER",
            "CREATE DEFINER=",
            "CREATE DEFINER=`a",
            "/*!",
            "SET",
            "USE",
            "/* x",
        ] {
            read(torn);
        }
    }
}
