#![doc = include_str!("../PROTOCOL.md")]

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use crate::reason::{EndReason, WaitReason};
    use crate::step::NoteReason;
    use crate::values::{Answer, Field, InProgress, LastReboot, Request, Waiting, read_json};
    use crate::{annotations, values};

    const TEXT: &str = include_str!("../PROTOCOL.md");

    /// The words in the first column of the table under this heading.
    fn first_column(heading: &str) -> Vec<&'static str> {
        let (_, section) = TEXT.split_once(&format!("\n## {heading}\n")).unwrap();
        let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        table.skip(2).map(|row| row.split('`').nth(1).unwrap()).collect()
    }

    #[track_caller]
    fn check(heading: &str, expected: &[&str]) {
        assert_eq!(first_column(heading), expected, "the table under {heading:?}");
    }

    /// The example of a value, which must read back as it is written.
    #[track_caller]
    fn check_example<T: Display>(key: &str, read: impl Fn(&str) -> Field<T>) {
        let (_, section) = TEXT.split_once(&format!("\n### `{key}`\n")).unwrap();
        let (_, example) = section.split_once("```json\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let plain = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        match read(example) {
            Field::Set(value) => assert_eq!(plain(&value.to_string()), plain(example), "the example of {key}"),
            Field::Absent | Field::Malformed(_) => panic!("the example of {key} is malformed"),
        }
    }

    #[test]
    fn the_page_names_every_key_and_every_reason() {
        check("Keys", &annotations::ALL.map(|key| key.trim_start_matches(annotations::PREFIX)));
        check("Giving back", &EndReason::ALL.map(EndReason::code));
        check("Why a node waits", &WaitReason::CODES);
    }

    #[test]
    fn the_page_names_every_event() {
        let mut expected = NoteReason::ALL.map(NoteReason::code);
        let mut named = first_column("Events");
        expected.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, expected);
    }

    #[test]
    fn the_page_is_of_this_protocol() {
        assert!(TEXT.contains(&format!("This page is protocol number {};", values::PROTOCOL)));
        assert!(TEXT.contains(&format!("`{}`", crate::ledger::NAME)));
    }

    #[test]
    fn the_examples_are_values_as_the_code_writes_them() {
        check_example("reboot-request", |text| match Answer::read(Some(text)) {
            Field::Set(Answer::Compatible(request)) => Field::<Request>::Set(request),
            _ => Field::Absent,
        });
        check_example("reboot-in-progress", |text| read_json::<InProgress>(Some(text)));
        check_example("reboot-waiting", |text| read_json::<Waiting>(Some(text)));
        check_example("last-reboot", |text| read_json::<LastReboot>(Some(text)));
    }
}
