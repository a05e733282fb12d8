//! What lets a Pod start without asking anyone: a mark on the Pod itself, as the kubelet writes it
//! into the waiter's directory. Init containers run again whenever a Pod's sandbox is lost, perhaps
//! years later, when there may be nobody left to ask.

use std::fs;
use std::path::Path;

use migrations_protocol::{ANNOTATIONS_FILE, NO_WAIT_ANNOTATION, RELEASED_ANNOTATION, UID_FILE};

/// Why a Pod needs no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It was released before: the operator has marked this very Pod.
    Released,
    /// Someone has annotated it to start without waiting.
    NoWait,
}

impl Pass {
    /// What the directory says by now. Whatever can't be read is no pass.
    pub(crate) fn find(files: &Path) -> Option<Self> {
        let annotations = fs::read_to_string(files.join(ANNOTATIONS_FILE)).ok()?;
        let uid = fs::read_to_string(files.join(UID_FILE)).unwrap_or_default();
        Self::of(&annotations, uid.trim_end())
    }

    /// The kubelet writes an annotation a line, `key="value"`, the value as a Go string literal. The
    /// values that count hold nothing that would have to be escaped, so each has one form, and no
    /// line of another can look like it: line ends in a value are escaped.
    fn of(annotations: &str, uid: &str) -> Option<Self> {
        let has = |key: &str, value: &str| {
            let line = format!("{key}=\"{value}\"");
            annotations.lines().any(|one| one == line)
        };
        if is_uid(uid) && has(RELEASED_ANNOTATION, uid) {
            return Some(Self::Released);
        }
        has(NO_WAIT_ANNOTATION, "true").then_some(Self::NoWait)
    }

    /// The same, for a person.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Released => {
                format!("this Pod was released before, as its annotation {RELEASED_ANNOTATION} says")
            }
            Self::NoWait => format!("the Pod is annotated {NO_WAIT_ANNOTATION}: \"true\""),
        }
    }
}

/// Whether that is a uid, and not the lack of one.
fn is_uid(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const UID: &str = "0b6a6b4e-6d4c-4f3e-9a4b-1d2c3e4f5a6b";

    fn released(value: &str) -> String {
        format!("a.example/x=\"1\"\n{RELEASED_ANNOTATION}={value}\nz=\"2\"\n")
    }

    #[rstest]
    #[case::nothing("", UID, None)]
    #[case::others("a.example/x=\"1\"\nb=\"\"\n", UID, None)]
    #[case::marked(&released(&format!("\"{UID}\"")), UID, Some(Pass::Released))]
    #[case::marked_without_a_last_line_end(
        &released(&format!("\"{UID}\"")).replace("\nz=\"2\"\n", ""), UID, Some(Pass::Released)
    )]
    #[case::copied_from_another_pod(&released("\"11111111-6d4c-4f3e-9a4b-1d2c3e4f5a6b\""), UID, None)]
    #[case::marked_true(&released("\"true\""), UID, None)]
    #[case::marked_with_more(&released(&format!("\"{UID} \"")), UID, None)]
    #[case::unquoted(&released(UID), UID, None)]
    #[case::cut_off(&released(&format!("\"{UID}")), UID, None)]
    #[case::own_uid_unknown(&released("\"\""), "", None)]
    #[case::own_uid_is_nonsense(&released("\"a\"b\""), "a\"b", None)]
    #[case::inside_another_value(&format!("x=\"\\n{RELEASED_ANNOTATION}=\\\"{UID}\\\"\\n\"\n"), UID, None)]
    #[case::as_the_end_of_another_key(&format!("x.{RELEASED_ANNOTATION}=\"{UID}\"\n"), UID, None)]
    #[case::no_wait(&format!("{NO_WAIT_ANNOTATION}=\"true\"\n"), UID, Some(Pass::NoWait))]
    #[case::no_wait_without_a_uid(&format!("{NO_WAIT_ANNOTATION}=\"true\""), "", Some(Pass::NoWait))]
    #[case::no_wait_is_not_true(&format!("{NO_WAIT_ANNOTATION}=\"false\"\n"), UID, None)]
    #[case::no_wait_in_capitals(&format!("{NO_WAIT_ANNOTATION}=\"True\"\n"), UID, None)]
    fn a_pass_is_one_exact_line(#[case] annotations: &str, #[case] uid: &str, #[case] pass: Option<Pass>) {
        assert_eq!(Pass::of(annotations, uid), pass);
    }

    #[test]
    fn what_cannot_be_read_is_no_pass() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Pass::find(directory.path()), None);
        fs::write(directory.path().join(ANNOTATIONS_FILE), [0xff, b'\n']).unwrap();
        assert_eq!(Pass::find(directory.path()), None);
        fs::write(directory.path().join(ANNOTATIONS_FILE), released(&format!("\"{UID}\""))).unwrap();
        assert_eq!(Pass::find(directory.path()), None, "its own uid is missing");
        fs::write(directory.path().join(UID_FILE), UID).unwrap();
        assert_eq!(Pass::find(directory.path()), Some(Pass::Released));
    }
}
