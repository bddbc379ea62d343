use super::*;
use crate::notify::notice::tests::one_of_each;

fn is_hangul(text: &str) -> bool {
    text.chars().any(|letter| ('가'..='힣').contains(&letter))
}

#[test]
fn everything_is_said_in_both_languages_in_one_paragraph() {
    for what in one_of_each() {
        let notice = Notice::new(what, Timestamp::UNIX_EPOCH);
        let (en, ko) = (words(&notice, Language::En), words(&notice, Language::Ko));
        for words in [&en, &ko] {
            for text in [&words.title, &words.means, &words.todo] {
                assert!(!text.trim().is_empty() && !text.contains('\n'), "{words:?}");
            }
            assert!(words.title.chars().count() <= 80, "{}", words.title);
        }
        assert!(is_hangul(&ko.title) && is_hangul(&ko.todo), "{ko:?}");
        assert!(!is_hangul(&format!("{}{}{}", en.title, en.means, en.todo)), "{en:?}");
        assert_eq!(en.command, ko.command);
        if notice.severity == crate::notify::notice::Severity::Critical {
            assert!(en.command.is_some(), "nothing to type for {}", en.title);
        }
    }
}

#[test]
fn durations_are_short() {
    for (seconds, en, ko) in [
        (0, "0 s", "0초"),
        (59, "59 s", "59초"),
        (60, "1 min", "1분"),
        (3_661, "1 h 1 min", "1시간 1분"),
        (86_400 * 3 + 30, "3 d", "3일"),
        (7_325, "2 h 2 min", "2시간 2분"),
    ] {
        assert_eq!(duration(seconds, Language::En), en);
        assert_eq!(duration(seconds, Language::Ko), ko);
    }
}

#[test]
fn an_error_of_many_lines_and_letters_stays_one_short_line() {
    let told = line(&format!("first\nsecond\t{}", "가".repeat(5_000)));
    assert!(told.starts_with("first second 가") && told.ends_with('…'));
    assert!(told.chars().count() < 410);
}

#[test]
fn whoever_reads_it_types_resume_without_the_stage() {
    let stopped = What::OperationStopped {
        operation: 1,
        command: "planb failover --stage 3".to_owned(),
        why: "x".to_owned(),
    };
    let words = words(&Notice::new(stopped, Timestamp::UNIX_EPOCH), Language::En);
    assert_eq!(words.command.as_deref(), Some("planb failover --resume"));
}
