//! Definitions as they stand in a dump: loadable by a plain client, definers on a line of their own. Pure.

use std::collections::BTreeSet;

use super::catalog::Definition;
use super::literal::{identifier, string};

/// What begins a line that holds a DEFINER clause and nothing else, so that one `sed` removes it:
/// `sed '/^\/\*!50013 DEFINER=.*\*\/$/d'`. Data lines begin otherwise, and their line breaks are escaped.
pub const DEFINER_LINE: &str = "/*!50013 DEFINER=";

/// A `CREATE` statement cut around its DEFINER clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut<'a> {
    /// `CREATE`, perhaps with `ALGORITHM=…`.
    pub before: &'a [u8],
    /// The account as written, e.g. `` `app`@`%` ``; None where there is no clause.
    pub definer: Option<&'a [u8]>,
    pub after: &'a [u8],
}

/// Finds the DEFINER clause at the beginning of a statement as `SHOW CREATE` prints it.
pub fn cut(create: &[u8]) -> Cut<'_> {
    const WORD: &[u8] = b" DEFINER=";
    let whole = Cut {
        before: create,
        definer: None,
        after: b"",
    };
    // The clause comes before the object's kind, so never after the first quote.
    let Some(at) = create.windows(WORD.len()).position(|window| window == WORD) else {
        return whole;
    };
    if create[..at].iter().any(|b| matches!(b, b'`' | b'"' | b'\'' | b'(')) {
        return whole;
    }
    let start = at + WORD.len();
    let Some(mut end) = quoted_end(create, start) else {
        return whole;
    };
    if create.get(end) == Some(&b'@') {
        let Some(host_end) = quoted_end(create, end + 1) else {
            return whole;
        };
        end = host_end;
    }
    Cut {
        before: &create[..at],
        definer: Some(&create[start..end]),
        after: create[end..].trim_ascii_start(),
    }
}

/// Where the quoted word that begins at `start` ends; the quote doubled stands for itself.
fn quoted_end(text: &[u8], start: usize) -> Option<usize> {
    let quote = *text.get(start).filter(|b| matches!(b, b'`' | b'"' | b'\''))?;
    let mut at = start + 1;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b, Some(next)) if *b == quote && *next == quote => at += 2,
            (b, _) if *b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// An account as text without quotes: `app@%`.
pub fn account(definer: &[u8]) -> String {
    String::from_utf8_lossy(definer).replace(['`', '"'], "")
}

/// A delimiter that does not occur in the statement.
pub fn delimiter(statement: &[u8]) -> String {
    let occurs = |delimiter: &str| {
        statement
            .windows(delimiter.len())
            .any(|window| window == delimiter.as_bytes())
    };
    let first = [";;", "$$", "//"].into_iter().map(str::to_owned);
    let more = (0_u32..).map(|n| format!("@planb{n}@"));
    first
        .chain(more)
        .find(|candidate| !occurs(candidate))
        .unwrap_or_default()
}

/// Appends a stored program (routine, trigger, event) with the session it was made in, so that it comes out the
/// same: its sql_mode, character sets and time zone are part of its meaning.
pub fn write_program(out: &mut Vec<u8>, definition: &Definition, schema_collation: &str) {
    let cut = cut(&definition.create);
    let schema = identifier(&definition.schema);
    // A routine remembers its schema's collation at the time; parameters without one of their own take it.
    let collated = !definition.database_collation.is_empty() && definition.database_collation != schema_collation;
    if collated {
        push(
            out,
            &format!("ALTER DATABASE {schema} COLLATE {};\n", definition.database_collation),
        );
    }
    push(out, &format!("SET sql_mode = {};\n", string(&definition.sql_mode)));
    if !definition.time_zone.is_empty() {
        push(out, &format!("SET time_zone = {};\n", string(&definition.time_zone)));
    }
    let delimiter = delimiter(&definition.create);
    push(out, &format!("DELIMITER {delimiter}\n"));
    if !definition.character_set_client.is_empty() {
        push(
            out,
            &format!(
                "SET character_set_client = {}, collation_connection = {}{delimiter}\n",
                definition.character_set_client, definition.collation_connection
            ),
        );
    }
    write_cut(out, &cut);
    push(out, &format!("{delimiter}\nDELIMITER ;\nSET NAMES utf8mb4;\n"));
    if collated {
        push(out, &format!("ALTER DATABASE {schema} COLLATE {schema_collation};\n"));
    }
}

/// Appends a view; one that the server calls broken as a comment, since no server would take it.
pub fn write_view(out: &mut Vec<u8>, definition: &Definition) {
    if let Some(why) = &definition.broken {
        push(
            out,
            &format!(
                "-- Not created, since it was unusable at the source ({}):\n",
                why.replace(['\n', '\r'], " ")
            ),
        );
        for line in definition.create.split(|&b| b == b'\n') {
            push(out, "-- ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        return;
    }
    // A function of the view's own schema stands there without the schema's name.
    push(
        out,
        &format!(
            "USE {};\nSET character_set_client = {}, collation_connection = {};\n",
            identifier(&definition.schema),
            definition.character_set_client,
            definition.collation_connection
        ),
    );
    write_cut(out, &cut(&definition.create));
    push(out, ";\nSET NAMES utf8mb4;\n");
}

fn write_cut(out: &mut Vec<u8>, cut: &Cut<'_>) {
    out.extend_from_slice(cut.before);
    if let Some(definer) = cut.definer {
        push(out, "\n");
        push(out, DEFINER_LINE);
        out.extend_from_slice(definer);
        push(out, " */\n");
        out.extend_from_slice(cut.after);
    }
}

/// Views in an order that loads: each after those it names. A name is looked for as `SHOW CREATE VIEW` prints it,
/// so a mention in a string or alias can only move a view further back.
pub fn order_views(views: Vec<Definition>) -> Vec<Definition> {
    let names: Vec<Vec<u8>> = views
        .iter()
        .map(|v| format!("{}.{}", identifier(&v.schema), identifier(&v.name)).into_bytes())
        .collect();
    let needs: Vec<BTreeSet<usize>> = views
        .iter()
        .enumerate()
        .map(|(i, view)| {
            let body = body_of(&view.create);
            (0..names.len())
                .filter(|&j| j != i && contains(body, &names[j]))
                .collect()
        })
        .collect();
    let mut placed = BTreeSet::new();
    let mut order = Vec::with_capacity(views.len());
    while order.len() < views.len() {
        let ready = (0..views.len()).find(|i| !placed.contains(i) && needs[*i].is_subset(&placed));
        // No cycle can exist on the server; if strings feign one, any order is as good.
        let Some(next) = ready.or_else(|| (0..views.len()).find(|i| !placed.contains(i))) else {
            break;
        };
        placed.insert(next);
        order.push(next);
    }
    let mut views: Vec<Option<Definition>> = views.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| views[i].take()).collect()
}

/// Views that need a schema of `others`, by themselves or through a view that does; with that schema's name. As in
/// [`order_views`], a mention in a string or alias counts.
pub fn reaching_elsewhere<'a>(views: &[&'a Definition], others: &[String]) -> Vec<(&'a Definition, String)> {
    let mut reaching: Vec<(&Definition, String)> = Vec::new();
    loop {
        let next = views.iter().find_map(|view| {
            if reaching.iter().any(|(known, _)| known == view) {
                return None;
            }
            let body = body_of(&view.create);
            let named = |name: &String| contains(body, format!("{}.", identifier(name)).as_bytes());
            let through = |known: &Definition| {
                let name = format!("{}.{}", identifier(&known.schema), identifier(&known.name));
                contains(body, name.as_bytes())
            };
            let other = others.iter().find(|name| named(name)).or_else(|| {
                let known = reaching.iter().find(|(known, _)| through(known));
                known.map(|(_, other)| other)
            })?;
            Some((*view, other.clone()))
        });
        match next {
            Some(found) => reaching.push(found),
            None => return reaching,
        }
    }
}

/// What follows ` AS `: the view's own name stands before it.
fn body_of(create: &[u8]) -> &[u8] {
    create
        .windows(4)
        .position(|window| window == b" AS ")
        .map_or(create, |at| &create[at..])
}

fn contains(text: &[u8], name: &[u8]) -> bool {
    text.windows(name.len()).any(|window| window == name)
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(schema: &str, name: &str, body: &str) -> Definition {
        Definition {
            schema: schema.into(),
            name: name.into(),
            kind: "VIEW",
            create: format!(
                "CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`b` SQL SECURITY DEFINER VIEW `{schema}`.`{name}` AS {body}"
            )
            .into_bytes(),
            sql_mode: String::new(),
            character_set_client: "utf8mb4".into(),
            collation_connection: "utf8mb4_0900_ai_ci".into(),
            database_collation: String::new(),
            time_zone: String::new(),
            broken: None,
        }
    }

    #[test]
    fn the_definer_is_cut_out_whatever_its_name() {
        for (create, definer) in [
            (
                "CREATE DEFINER=`root`@`localhost` PROCEDURE `p`() SELECT 1",
                Some("root@localhost"),
            ),
            (
                "CREATE ALGORITHM=MERGE DEFINER=`a``b`@`%` SQL SECURITY INVOKER VIEW `v` AS select 1",
                Some("a``b@%".replace("``", "").as_str()),
            ),
            (
                "CREATE DEFINER=\"app\"@\"%\" FUNCTION \"f\"() RETURNS int RETURN 1",
                Some("app@%"),
            ),
            ("CREATE DEFINER=`role` PROCEDURE `p`() SELECT 1", Some("role")),
            ("CREATE PROCEDURE `p`() SELECT ' DEFINER=`x`@`y`'", None),
            ("CREATE PACKAGE `p` AS COMMENT ' DEFINER=`x`'", None),
        ] {
            assert_eq!(
                cut(create.as_bytes()).definer.map(account).as_deref(),
                definer,
                "{create}"
            );
        }
    }

    #[test]
    fn the_definer_stands_on_a_line_that_sed_removes() {
        let mut out = Vec::new();
        write_view(&mut out, &view("s", "v", "select 1"));
        let text = String::from_utf8(out).expect("UTF-8");
        let line = text.lines().find(|line| line.contains("DEFINER=")).expect("a definer");
        assert_eq!(line, "/*!50013 DEFINER=`a`@`b` */");
    }

    #[test]
    fn a_delimiter_never_occurs_in_the_body() {
        assert_eq!(delimiter(b"BEGIN SELECT 1; END"), ";;");
        assert_eq!(delimiter(b"BEGIN SELECT ';;', '$$'; END"), "//");
        assert_eq!(delimiter(b";; $$ //"), "@planb0@");
    }

    #[test]
    fn views_on_views_come_after_them() {
        let views = vec![
            view("s", "a", "select * from `s`.`b` join `t`.`c`"),
            view("s", "b", "select * from `s`.`z`"),
            view("t", "c", "select 1"),
            view("s", "z", "select 1"),
        ];
        let names: Vec<String> = order_views(views).into_iter().map(|v| v.name).collect();
        let place = |name: &str| names.iter().position(|n| n == name).expect("kept");
        assert!(
            place("a") > place("b") && place("b") > place("z") && place("a") > place("c"),
            "{names:?}"
        );
    }

    #[test]
    fn views_that_need_another_schema_are_found_through_others() {
        let views = [
            view("s", "a", "select `t`.`x` AS `x` from `s`.`t`"),
            view("s", "b", "select 1 from `s`.`c`"),
            view("s", "c", "select 1 from (`s`.`t` join `away`.`t`)"),
            view("s", "d", "select 1 from `s`.`awaY`"),
        ];
        let reaching = reaching_elsewhere(&views.iter().collect::<Vec<_>>(), &["away".to_owned()]);
        let names: Vec<_> = reaching
            .iter()
            .map(|(view, other)| (view.name.as_str(), other.as_str()))
            .collect();
        assert_eq!(names, [("c", "away"), ("b", "away")]);
    }

    #[test]
    fn a_broken_view_becomes_a_comment() {
        let mut out = Vec::new();
        write_view(
            &mut out,
            &Definition {
                broken: Some("gone".into()),
                ..view("s", "v", "select\n1")
            },
        );
        assert!(
            String::from_utf8(out)
                .expect("UTF-8")
                .lines()
                .all(|line| line.starts_with("-- "))
        );
    }
}
