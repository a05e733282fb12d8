//! The path of an entry tells a replica of the webhook who called, and whether its view of Migrators
//! is recent enough to answer (contract §7).

use migrations_api::names;

/// Who called admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The controller, which wants to know whether the API server gets through.
    Probe,
    /// An entry that speaks of no Migrator.
    Nobody,
    /// The entry of these Migrators.
    Migrators(Vec<Named>),
}

/// A Migrator as an entry's path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its uid.
    pub uid: String,
    /// Version of the Migrator that this entry was first written for. None where the API server's
    /// versions are no numbers.
    pub version: Option<u64>,
}

const PROBE: &str = "probe";

/// Also where the entry for required Pods calls.
const REQUIRED: &str = "required";

impl Caller {
    /// Reads a request's path; what isn't below [`names::ADMIT_PATH`] is nobody.
    pub fn of(path: &str) -> Self {
        let below = path.strip_prefix(names::ADMIT_PATH).unwrap_or_default();
        let mut segments = below.split('/').filter(|segment| !segment.is_empty()).peekable();
        match segments.peek() {
            None | Some(&REQUIRED) => Self::Nobody,
            Some(&PROBE) => Self::Probe,
            Some(_) => Self::Migrators(segments.map(Named::of).collect()),
        }
    }

    /// The Migrators that are named.
    pub fn migrators(&self) -> &[Named] {
        match self {
            Self::Probe | Self::Nobody => &[],
            Self::Migrators(named) => named,
        }
    }
}

impl Named {
    /// Reads a segment, `UID.VERSION`: the API server takes only what could be a DNS name.
    fn of(segment: &str) -> Self {
        let (uid, version) = segment.split_once('.').unwrap_or((segment, ""));
        Self { uid: uid.to_owned(), version: version.parse().ok() }
    }

    /// Whether a view may answer for this Migrator: one that has `seen` the version which the entry
    /// was written for. If that doesn't know the Migrator, it is gone. Where versions can't be
    /// compared, a view may that knows it.
    pub fn is_seen(&self, known: impl FnOnce() -> bool, seen: Option<u64>) -> bool {
        match (self.version, seen) {
            (Some(written), Some(seen)) => seen >= written,
            (None, _) | (_, None) => known(),
        }
    }
}

/// The path of an entry of these Migrators.
pub(super) fn path<'a>(migrators: impl IntoIterator<Item = &'a Named>) -> String {
    migrators.into_iter().fold(names::ADMIT_PATH.to_owned(), |path, Named { uid, version }| match version {
        Some(version) => format!("{path}/{uid}.{version}"),
        None => format!("{path}/{uid}"),
    })
}

pub(super) fn probe_path() -> String {
    format!("{}/{PROBE}", names::ADMIT_PATH)
}

pub(super) fn required_path() -> String {
    format!("{}/{REQUIRED}", names::ADMIT_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn named(uid: &str, version: Option<u64>) -> Named {
        Named { uid: uid.to_owned(), version }
    }

    #[rstest]
    #[case::probe(&probe_path(), Caller::Probe)]
    #[case::required(&required_path(), Caller::Nobody)]
    #[case::bare("/admit", Caller::Nobody)]
    #[case::slash("/admit/", Caller::Nobody)]
    #[case::one("/admit/7d1f-a.41", Caller::Migrators(vec![named("7d1f-a", Some(41))]))]
    #[case::two("/admit/a.41/b.9", Caller::Migrators(vec![named("a", Some(41)), named("b", Some(9))]))]
    #[case::no_version("/admit/a", Caller::Migrators(vec![named("a", None)]))]
    #[case::odd_version("/admit/a.x1", Caller::Migrators(vec![named("a", None)]))]
    fn a_path_tells_who_called(#[case] path: &str, #[case] caller: Caller) {
        assert_eq!(Caller::of(path), caller);
    }

    #[test]
    fn a_path_is_read_as_it_was_written() {
        let migrators = [named("a-b", Some(7)), named("c", None)];
        assert_eq!(Caller::of(&path(&migrators)).migrators(), migrators);
    }

    #[rstest]
    #[case::at_it_and_known(Some(41), true, Some(41), true)]
    #[case::past_it_and_known(Some(41), true, Some(50), true)]
    #[case::past_it_and_unknown_is_gone(Some(41), false, Some(41), true)]
    #[case::older_and_unknown(Some(41), false, Some(40), false)]
    #[case::older_and_known_may_have_another_selector(Some(41), true, Some(40), false)]
    #[case::nothing_seen_and_unknown(Some(41), false, None, false)]
    #[case::nothing_seen_but_known(Some(41), true, None, true)]
    #[case::no_numbers_and_unknown(None, false, Some(40), false)]
    #[case::no_numbers_but_known(None, true, Some(40), true)]
    fn a_view_answers_once_it_has_seen_what_the_entry_was_written_for(
        #[case] version: Option<u64>,
        #[case] known: bool,
        #[case] seen: Option<u64>,
        #[case] answers: bool,
    ) {
        assert_eq!(named("7d1f", version).is_seen(|| known, seen), answers);
    }
}
