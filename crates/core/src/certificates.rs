//! Which of the operator's certificates are renewed when (contract §7). Makes and reads none.

use jiff::{SignedDuration, Timestamp};
use migrations_api::names;

/// How long a certificate authority is valid: ten years.
pub const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// How long a serving certificate is valid: a year.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// How far a certificate's life starts in the past, for nodes whose clocks run behind.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before this.
    pub from: Timestamp,
    /// Not after this.
    pub to: Timestamp,
}

/// What matters of a serving certificate that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// When it is valid.
    pub validity: Validity,
    /// The DNS names it speaks for.
    pub names: Vec<String>,
    /// Whether the present authority signed it.
    pub by_authority: bool,
}

/// What is renewed. A new authority signs a new leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// All is well.
    Nothing,
    /// The serving certificate, from the present authority.
    Leaf,
    /// Both. Until a change of authority has two phases (the bundle with old and new first, the
    /// leaf once bundles have had time to arrive), waiters may have to try again meanwhile.
    Authority,
}

impl Validity {
    /// Of a certificate made now.
    pub fn starting(now: Timestamp, life: SignedDuration) -> Self {
        let at = |offset| now.checked_add(offset).unwrap_or(now);
        Self { from: at(-CLOCK_SKEW), to: at(life) }
    }

    /// Whether it is valid and more than a third of its life is left.
    fn is_fresh(self, now: Timestamp) -> bool {
        let life = self.from.duration_until(self.to);
        self.from <= now && now.duration_until(self.to) > life / 3
    }
}

/// Names that a serving certificate speaks for: the webhook's Service as the API server and waiters
/// verify it, and as people may call it.
pub fn service_names(namespace: &str) -> Vec<String> {
    let service = names::WEBHOOK_SERVICE;
    ["svc", "svc.cluster.local"].map(|domain| format!("{service}.{namespace}.{domain}")).into()
}

/// What is renewed now. `None` stands for a certificate that is missing or can't be read.
pub fn decide(
    authority: Option<Validity>,
    leaf: Option<&Leaf>,
    service_names: &[String],
    now: Timestamp,
) -> Renewal {
    if !authority.is_some_and(|validity| validity.is_fresh(now)) {
        return Renewal::Authority;
    }
    let serves = leaf.is_some_and(|leaf| {
        leaf.by_authority
            && leaf.validity.is_fresh(now)
            && service_names.iter().all(|name| leaf.names.contains(name))
    });
    if serves { Renewal::Nothing } else { Renewal::Leaf }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    /// Made `days` ago.
    fn aged(life: SignedDuration, days: i32) -> Validity {
        Validity::starting(now() - DAY * days, life)
    }

    fn leaf(days: i32) -> Leaf {
        Leaf { validity: aged(LEAF_LIFE, days), names: service_names("ops"), by_authority: true }
    }

    #[rstest]
    #[case::nothing_exists(None, None, Renewal::Authority)]
    #[case::only_a_leaf_exists(None, Some(leaf(0)), Renewal::Authority)]
    #[case::only_an_authority_exists(Some(0), None, Renewal::Leaf)]
    #[case::both_are_new(Some(0), Some(leaf(0)), Renewal::Nothing)]
    #[case::the_leaf_has_over_a_third_left(Some(300), Some(leaf(240)), Renewal::Nothing)]
    #[case::the_leaf_has_less_than_a_third_left(Some(300), Some(leaf(244)), Renewal::Leaf)]
    #[case::the_leaf_has_expired(Some(400), Some(leaf(400)), Renewal::Leaf)]
    #[case::the_leaf_is_not_valid_yet(Some(0), Some(leaf(-2)), Renewal::Leaf)]
    #[case::another_authority_signed_the_leaf(Some(0), Some(Leaf { by_authority: false, ..leaf(0) }), Renewal::Leaf)]
    #[case::the_leaf_lacks_a_name(Some(0), Some(Leaf { names: vec!["other".into()], ..leaf(0) }), Renewal::Leaf)]
    #[case::the_leaf_has_more_names(Some(0), Some(Leaf { names: [service_names("ops"), vec!["more".into()]].concat(), ..leaf(0) }), Renewal::Nothing)]
    #[case::the_authority_has_over_a_third_left(Some(2432), Some(leaf(0)), Renewal::Nothing)]
    #[case::the_authority_has_less_than_a_third_left(Some(2434), Some(leaf(0)), Renewal::Authority)]
    #[case::the_authority_has_expired(Some(4000), Some(leaf(0)), Renewal::Authority)]
    fn renewal(#[case] authority: Option<i32>, #[case] leaf: Option<Leaf>, #[case] expected: Renewal) {
        let authority = authority.map(|days| aged(AUTHORITY_LIFE, days));
        assert_eq!(decide(authority, leaf.as_ref(), &service_names("ops"), now()), expected);
    }

    #[test]
    fn the_name_that_the_api_server_verifies_is_among_the_names() {
        assert!(service_names("ops").contains(&"migrations-webhook.ops.svc".to_owned()));
    }
}
