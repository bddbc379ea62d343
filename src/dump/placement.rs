//! Where a table's file lies, and whether it is encrypted, is the server's own affair: a plain load elsewhere must not
//! fail over it. Pure.

const OPTIONS: &[u8] = b"\n) ";
const TABLESPACE: &[u8] = b"\n) /*!50100 TABLESPACE `";
const ENCRYPTED: &[u8] = b" /*!80016 ENCRYPTION='Y' */";
const SCHEMA_ENCRYPTED: &[u8] = b" /*!80016 DEFAULT ENCRYPTION='Y' */";

/// A table's or schema's definition that any server takes, and what it lacks. A directory stays in it: the dump's
/// sql_mode has the server pass over that.
pub fn portable(create: &[u8]) -> (Vec<u8>, Vec<&'static str>) {
    let mut text = create.to_vec();
    let mut lacks = Vec::new();
    // The first of the options; within comments line breaks are printed as \n.
    if let Some(at) = place(&text, TABLESPACE)
        && let Some(length) = place(&text[at..], b"` */ ")
        && !text[at..].starts_with(b"\n) /*!50100 TABLESPACE `innodb_")
    {
        text.drain(at + OPTIONS.len()..at + length + b"` */ ".len());
        lacks.push("its general tablespace is left out");
    }
    // Within comments quotes are doubled.
    for encrypted in [ENCRYPTED, SCHEMA_ENCRYPTED] {
        if let Some(at) = place(&text, encrypted) {
            text.drain(at..at + encrypted.len());
            lacks.push("it is encrypted at the source and will not be where it is loaded, unless that server does so by default");
        }
    }
    let options = place(&text, OPTIONS).unwrap_or(text.len());
    if [&b" DATA DIRECTORY"[..], b" INDEX DIRECTORY"]
        .iter()
        .any(|word| place(&text[options..], word).is_some())
    {
        lacks.push("its directory is passed over when it is loaded (NO_DIR_IN_CREATE)");
    }
    (text, lacks)
}

fn place(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_server_has_is_left_out() {
        for (create, portable_create, word) in [
            (
                "CREATE TABLE `t` (\n  `a` int\n) /*!50100 TABLESPACE `ts` */ ENGINE=InnoDB",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB",
                "tablespace",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB COMMENT='/*!80016 ENCRYPTION=''Y'' */' /*!80016 ENCRYPTION='Y' */",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB COMMENT='/*!80016 ENCRYPTION=''Y'' */'",
                "encrypted",
            ),
            (
                "CREATE DATABASE `s` /*!80016 DEFAULT ENCRYPTION='Y' */",
                "CREATE DATABASE `s`",
                "encrypted",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DATA DIRECTORY='/x/'",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DATA DIRECTORY='/x/'",
                "directory",
            ),
        ] {
            let (text, lacks) = portable(create.as_bytes());
            assert_eq!(String::from_utf8_lossy(&text), portable_create);
            assert!(lacks.len() == 1 && lacks[0].contains(word), "{lacks:?}");
        }
        for create in [
            "CREATE TABLE `t` (\n  `a` int COMMENT 'DATA DIRECTORY=1'\n) /*!50100 TABLESPACE `innodb_system` */ ENGINE=InnoDB",
            "CREATE DATABASE `s` /*!80016 DEFAULT ENCRYPTION='N' */",
        ] {
            assert_eq!(portable(create.as_bytes()), (create.as_bytes().to_vec(), Vec::new()));
        }
    }
}
