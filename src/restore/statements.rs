//! SQL text into statements, as the `mysql` client splits it: `DELIMITER`, comments, quotes. Pure.
//!
//! Text may come in any pieces; a statement is handed out once its end was seen.

/// A statement longer than this is no statement: the protocol carries no packet beyond 1 GiB.
const LONGEST_BYTES: usize = (1 << 30) + (1 << 20);

/// Why a text cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error("the text ends in the middle of a statement: {0}")]
    Incomplete(String),
    #[error("a statement is longer than 1 GiB: {0}")]
    TooLong(String),
    #[error("the backup holds a statement that this planb does not understand: {0}; restore it with a newer one")]
    Strange(String),
}

/// Where the scan stands, so that no byte is looked at twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Nothing.
    Plain,
    Quote(u8),
    /// `-- ` or `#`, to the end of the line.
    Line,
    /// `/* … */`. A version comment is text like any other: quotes count in it, as they do for the server.
    Block,
}

/// Splits text into statements.
#[derive(Debug)]
pub struct Splitter {
    text: Vec<u8>,
    /// Where the next statement begins.
    start: usize,
    /// Up to where `text` was scanned.
    at: usize,
    inside: Inside,
    delimiter: Vec<u8>,
    backslash_escapes: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            text: Vec::new(),
            start: 0,
            at: 0,
            inside: Inside::Plain,
            delimiter: b";".to_vec(),
            backslash_escapes: true,
        }
    }
}

impl Splitter {
    /// All statements of a complete text.
    ///
    /// # Errors
    /// [`ScriptError`] where it does not end with a statement's end.
    pub fn all(text: &[u8]) -> Result<Vec<Vec<u8>>, ScriptError> {
        let mut splitter = Self::default();
        splitter.push(text);
        let mut statements = Vec::new();
        while let Some(statement) = splitter.next_statement()? {
            statements.push(statement);
        }
        statements.extend(splitter.finish()?);
        Ok(statements)
    }

    /// Takes more text.
    pub fn push(&mut self, text: &[u8]) {
        if self.start > 0 {
            self.text.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
        }
        self.text.extend_from_slice(text);
    }

    /// The next statement without its delimiter; none until more text comes.
    ///
    /// # Errors
    /// [`ScriptError::TooLong`].
    pub fn next_statement(&mut self) -> Result<Option<Vec<u8>>, ScriptError> {
        loop {
            if self.inside == Inside::Plain && !self.skip_to_a_statement(false) {
                return Ok(None);
            }
            let Some(end) = self.scan(false) else {
                let length = self.text.len() - self.start;
                return if length > LONGEST_BYTES {
                    Err(ScriptError::TooLong(beginning(&self.text[self.start..])))
                } else {
                    Ok(None)
                };
            };
            if let Some(statement) = self.take(end) {
                return Ok(Some(statement));
            }
        }
    }

    /// The last statement, which may lack its delimiter. Nothing may follow.
    ///
    /// # Errors
    /// [`ScriptError::Incomplete`] inside a quote or a comment.
    pub fn finish(mut self) -> Result<Option<Vec<u8>>, ScriptError> {
        if self.inside == Inside::Plain && !self.skip_to_a_statement(true) {
            return Ok(None);
        }
        if let Some(end) = self.scan(true)
            && let Some(statement) = self.take(end)
        {
            return Ok(Some(statement));
        }
        match self.inside {
            Inside::Plain | Inside::Line => {
                let rest = self.text[self.start.min(self.text.len())..].trim_ascii();
                Ok((!rest.is_empty()).then(|| rest.to_vec()))
            }
            Inside::Quote(_) | Inside::Block => Err(ScriptError::Incomplete(beginning(&self.text[self.start..]))),
        }
    }

    /// Passes over blanks, whole-line comments and `DELIMITER` lines. False if more text is needed to tell.
    fn skip_to_a_statement(&mut self, is_end: bool) -> bool {
        if self.at > self.start {
            return true;
        }
        loop {
            let rest = &self.text[self.start..];
            let blanks = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.start += blanks;
            self.at = self.start;
            let rest = &self.text[self.start..];
            if rest.is_empty() {
                return false;
            }
            let is_comment = rest.starts_with(b"#") || is_dash_comment(rest, is_end);
            let word = rest.get(..9).unwrap_or(rest);
            let is_delimiter = word.len() == 9 && word.eq_ignore_ascii_case(b"delimiter");
            // Too little to tell whether it is one of them.
            if !is_end && (rest.len() < 3 || (word.len() < 9 && b"delimiter".starts_with(&word.to_ascii_lowercase()))) {
                return false;
            }
            let is_sandbox = rest.starts_with(b"/*M!999999\\-");
            if !is_comment && !is_delimiter && !is_sandbox {
                return true;
            }
            let Some(end) = rest.iter().position(|&b| b == b'\n').or(is_end.then_some(rest.len())) else {
                return false;
            };
            if is_delimiter {
                let new = rest[9..end].trim_ascii();
                if !new.is_empty() {
                    self.delimiter = new.to_vec();
                }
            }
            self.start += end;
            self.at = self.start;
        }
    }

    /// Where the statement's delimiter begins; none if the text ends before.
    fn scan(&mut self, is_end: bool) -> Option<usize> {
        loop {
            let rest = &self.text[self.at..];
            match self.inside {
                Inside::Plain => {
                    let first = self.delimiter[0];
                    let stop = |&b: &u8| matches!(b, b'\'' | b'"' | b'`' | b'-' | b'#' | b'/') || b == first;
                    let Some(found) = rest.iter().position(stop) else {
                        self.at = self.text.len();
                        return None;
                    };
                    self.at += found;
                    let rest = &self.text[self.at..];
                    // A mark of several letters may be cut off here.
                    if !is_end && rest.len() < self.delimiter.len().max(4) {
                        let unsure = self.delimiter.starts_with(rest)
                            || b"/*!".starts_with(&rest[..rest.len().min(3)])
                            || b"/*M!".starts_with(rest)
                            || b"--".starts_with(&rest[..rest.len().min(2)])
                            || rest.starts_with(b"--");
                        if unsure && !rest.starts_with(&self.delimiter) {
                            return None;
                        }
                    }
                    if rest.starts_with(&self.delimiter) {
                        return Some(self.at);
                    }
                    let (inside, length) = match rest[0] {
                        quote @ (b'\'' | b'"' | b'`') => (Inside::Quote(quote), 1),
                        b'#' => (Inside::Line, 1),
                        b'-' if is_dash_comment(rest, is_end) => (Inside::Line, 2),
                        b'/' if rest.starts_with(b"/*!") => (Inside::Plain, 3),
                        b'/' if rest.starts_with(b"/*M!") => (Inside::Plain, 4),
                        b'/' if rest.starts_with(b"/*") => (Inside::Block, 2),
                        _ => (Inside::Plain, 1),
                    };
                    self.inside = inside;
                    self.at += length;
                }
                Inside::Quote(quote) => {
                    let escapes = self.backslash_escapes && quote != b'`';
                    let Some(found) = rest.iter().position(|&b| b == quote || (escapes && b == b'\\')) else {
                        self.at = self.text.len();
                        return None;
                    };
                    if rest[found] == quote {
                        self.inside = Inside::Plain;
                        self.at += found + 1;
                    } else if found + 1 < rest.len() {
                        self.at += found + 2;
                    } else {
                        self.at += found;
                        return None;
                    }
                }
                Inside::Line => {
                    let Some(found) = rest.iter().position(|&b| b == b'\n') else {
                        self.at = self.text.len();
                        return None;
                    };
                    self.inside = Inside::Plain;
                    self.at += found + 1;
                }
                Inside::Block => {
                    let Some(found) = rest.windows(2).position(|pair| pair == b"*/") else {
                        self.at = self.text.len() - usize::from(!rest.is_empty());
                        return None;
                    };
                    self.inside = Inside::Plain;
                    self.at += found + 2;
                }
            }
        }
    }

    fn take(&mut self, end: usize) -> Option<Vec<u8>> {
        let statement = self.text[self.start..end].trim_ascii().to_vec();
        self.start = end + self.delimiter.len();
        self.at = self.start;
        if statement.is_empty() {
            return None;
        }
        self.note_sql_mode(&statement);
        Some(statement)
    }

    /// A backslash is a letter like any other under `NO_BACKSLASH_ESCAPES`.
    fn note_sql_mode(&mut self, statement: &[u8]) {
        const LONGEST_SETTING_BYTES: usize = 2_000;
        if statement.len() > LONGEST_SETTING_BYTES {
            return;
        }
        let upper = String::from_utf8_lossy(statement).to_ascii_uppercase();
        let body = upper.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        if body.trim_start_matches("M!").starts_with("SET") && upper.contains("SQL_MODE") {
            self.backslash_escapes = !upper.contains("NO_BACKSLASH_ESCAPES");
        }
    }
}

/// `--` begins a comment only before a blank or the end of the line.
fn is_dash_comment(rest: &[u8], is_end: bool) -> bool {
    rest.starts_with(b"--")
        && match rest.get(2) {
            Some(next) => next.is_ascii_whitespace() || next.is_ascii_control(),
            None => is_end,
        }
}

/// The beginning of a statement for messages; never its data.
fn beginning(statement: &[u8]) -> String {
    let head = &statement[..statement.len().min(60)];
    let text = String::from_utf8_lossy(head);
    text.split(['(', '\'']).next().unwrap_or_default().trim().to_owned() + " …"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> Vec<String> {
        let statements = Splitter::all(text.as_bytes()).expect("a complete text");
        statements
            .into_iter()
            .map(|s| String::from_utf8(s).expect("UTF-8"))
            .collect()
    }

    const HARD: &str = "-- a comment; with 'a quote\n\
        SET NAMES utf8mb4;\n# another; one\nINSERT INTO `a;b` VALUES ('x;\\'y', \"z;\"\"\", 'it''s');\n\
        /* ; */ SELECT 1 -- ; here\n, 2;\nSELECT 5--1;\n/*!50003 SET sql_mode = 'NO_BACKSLASH_ESCAPES' */;\n\
        DELIMITER ;;\nCREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET @a = ' [2]\\'; END;;\ndelimiter ;\n\
        SET sql_mode = '';\nSELECT '\\';';\n\
        /*!50001 VIEW `v` AS select 'it\\'s; */' /* it's; */ AS `;` */;\n-- Dump completed\n";

    #[test]
    fn as_the_client_splits() {
        assert_eq!(
            split(HARD),
            [
                "SET NAMES utf8mb4",
                "INSERT INTO `a;b` VALUES ('x;\\'y', \"z;\"\"\", 'it''s')",
                "/* ; */ SELECT 1 -- ; here\n, 2",
                "SELECT 5--1",
                "/*!50003 SET sql_mode = 'NO_BACKSLASH_ESCAPES' */",
                "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET @a = ' [2]\\'; END",
                "SET sql_mode = ''",
                "SELECT '\\';'",
                "/*!50001 VIEW `v` AS select 'it\\'s; */' /* it's; */ AS `;` */",
            ]
        );
    }

    #[test]
    fn the_last_may_lack_its_delimiter_but_no_quote() {
        assert_eq!(split("SELECT 1;\nSELECT 2"), ["SELECT 1", "SELECT 2"]);
        assert!(matches!(
            Splitter::all(b"INSERT INTO t VALUES ('secret"),
            Err(ScriptError::Incomplete(text)) if !text.contains("secret")
        ));
        assert!(Splitter::all(b"SELECT 1 /* never closed").is_err());
    }

    #[test]
    fn a_sandbox_line_is_the_client_s_own() {
        assert_eq!(
            split("/*M!999999\\- enable the sandbox mode */ \nSELECT 1;"),
            ["SELECT 1"]
        );
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0..HARD.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut splitter = Splitter::default();
            let mut statements = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([HARD.len()]) {
                splitter.push(&HARD.as_bytes()[from..cut]);
                from = cut;
                while let Some(statement) = splitter.next_statement().expect("short") {
                    statements.push(String::from_utf8(statement).expect("UTF-8"));
                }
            }
            statements.extend(splitter.finish().expect("complete").map(|s| String::from_utf8(s).expect("UTF-8")));
            prop_assert_eq!(statements, split(HARD));
        }
    }
}
