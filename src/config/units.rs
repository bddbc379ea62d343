//! Durations and sizes as people write them: `1h30m`, `20MiB`.

use std::time::Duration;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads `90s`, `5m`, `48h`, `7d`, `1h30m`: whole numbers, each with its unit, the larger unit first.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    let mut smaller_units = &UNITS[..];
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (digits, tail) = rest.split_at(end);
        let unit = tail.chars().next()?;
        let position = smaller_units.iter().position(|(letter, _)| *letter == unit)?;
        let (_, unit_seconds) = smaller_units.get(position)?;
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(*unit_seconds)?)?;
        smaller_units = smaller_units.get(position + 1..)?;
        rest = tail.get(unit.len_utf8()..)?;
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// The form that [`parse_duration`] reads. Parts of a second are dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    for (letter, unit_seconds) in UNITS {
        let count = seconds / unit_seconds;
        seconds %= unit_seconds;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(letter);
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads `500000B`, `64KiB`, `20MiB`, `1GiB`: a whole number and a binary unit, because 20MB is 20 MiB to some.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("5m", 300),
            ("90s", 90),
            ("48h", 172_800),
            ("7d", 604_800),
            ("1h30m", 5_400),
            ("0s", 0),
            ("1d2h3m4s", 93_784),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        for text in [
            "",
            "5",
            "m",
            "5 m",
            "-5m",
            "5M",
            "1.5h",
            "30m1h",
            "5m5m",
            "5min",
            "５m",
            "5m ",
            "99999999999999999999d",
            "1µ",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in [
            "",
            "20",
            "20MB",
            "20 MiB",
            "MiB",
            "-1MiB",
            "1.5MiB",
            "99999999999GiB9",
            "99999999999999999GiB",
        ] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        assert_eq!(parse_bytes("20MiB"), Some(20 << 20));
        assert_eq!(parse_bytes("1B"), Some(1));
    }

    proptest! {
        #[test]
        fn a_formatted_duration_is_read_back(seconds in 0..u64::from(u32::MAX)) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>()) {
            let _ = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
