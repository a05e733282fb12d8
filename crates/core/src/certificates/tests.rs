//! Rows: when certificates are made, and when each is used.

use rstest::rstest;

use super::*;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const OFF: SignedDuration = SignedDuration::from_mins(10);

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

/// Made so long ago.
fn authority(age: SignedDuration) -> Validity {
    Validity::of_authority(now() - age, &Lifetimes::default())
}

/// Made so long ago by an authority that outlives it.
fn leaf(age: SignedDuration) -> Leaf {
    let lifetimes = Lifetimes { authority: DAY * 36_500, ..Lifetimes::default() };
    let authority = Validity::of_authority(now() - age, &lifetimes);
    let validity = Validity::of_leaf(now() - age, authority, &lifetimes);
    Leaf { validity, names: service_names("ops"), signer: Signer::Current }
}

/// All is well, and for long.
fn steady() -> Facts {
    Facts {
        current: Some(authority(DAY * 30)),
        next: None,
        old: false,
        told: Told::Current,
        unkept: false,
        leaf: Some(leaf(DAY * 30)),
        published_for: None,
    }
}

/// Another authority is about to take over.
fn introduced(published_for: Option<SignedDuration>) -> Facts {
    let current = Some(authority(DAY * 2440));
    Facts { current, next: Some(authority(MINUTE)), published_for, ..steady() }
}

/// The Secret of the authority is gone; the leaf isn't.
fn lost() -> Facts {
    Facts { current: None, old: true, told: Told::Others, leaf: Some(by(Signer::Trusted)), ..steady() }
}

/// And a new authority has been made since.
fn lost_and_introduced(published_for: Option<SignedDuration>) -> Facts {
    Facts { next: Some(authority(MINUTE)), published_for, ..lost() }
}

fn by(signer: Signer) -> Leaf {
    Leaf { signer, ..leaf(DAY * 30) }
}

fn named(names: Vec<String>) -> Leaf {
    Leaf { names, ..leaf(DAY * 30) }
}

fn nothing() -> Facts {
    Facts { current: None, told: Told::Nobody, leaf: None, ..steady() }
}

fn at(facts: &Facts, now: Timestamp) -> Step {
    decide(facts, &service_names("ops"), &Lifetimes::default(), now)
}

#[rstest]
#[case::a_first_install(nothing(), Step::Begin)]
#[case::a_leaf_of_nobody_is_no_reason_to_wait(Facts { leaf: Some(by(Signer::Unknown)), ..nothing() }, Step::Begin)]
#[case::the_first_authority_signs_at_once(Facts { leaf: None, told: Told::Nobody, ..steady() }, Step::Issue)]
#[case::before_the_first_publication(Facts { told: Told::Nobody, ..steady() }, Step::Rest)]
#[case::all_is_well(steady(), Step::Rest)]
fn a_first_install(#[case] facts: Facts, #[case] expected: Step) {
    assert_eq!(at(&facts, now()), expected);
}

#[rstest]
#[case::over_a_third_is_left(Some(leaf(DAY * 240)), Step::Rest)]
#[case::less_than_a_third_is_left(Some(leaf(DAY * 244)), Step::Issue)]
#[case::it_has_expired(Some(leaf(DAY * 400)), Step::Issue)]
#[case::it_is_not_valid_yet(Some(leaf(-DAY)), Step::Issue)]
#[case::it_is_gone_or_garbage(None, Step::Issue)]
#[case::nobody_trusts_who_signed_it(Some(by(Signer::Unknown)), Step::Issue)]
#[case::the_authority_before_signed_it(Some(by(Signer::Trusted)), Step::Issue)]
#[case::it_lacks_a_name(Some(named(service_names("other"))), Step::Issue)]
#[case::it_has_more_names(Some(named([service_names("ops"), service_names("other")].concat())), Step::Rest)]
fn a_leaf_is_replaced_at_once_by_the_authority_that_signs(
    #[case] leaf: Option<Leaf>,
    #[case] expected: Step,
) {
    assert_eq!(at(&Facts { leaf: leaf.clone(), ..steady() }, now()), expected);
    // Also while another authority is on its way.
    assert_eq!(at(&Facts { leaf, ..introduced(Some(MINUTE)) }, now()), expected);
}

#[rstest]
#[case::over_a_third_is_left(Facts { current: Some(authority(DAY * 2432)), ..steady() }, Step::Rest)]
#[case::less_than_a_third_is_left(Facts { current: Some(authority(DAY * 2434)), ..steady() }, Step::Introduce)]
#[case::it_is_not_published_yet(introduced(None), Step::Rest)]
#[case::it_is_on_its_way(introduced(Some(MINUTE)), Step::Rest)]
#[case::it_has_arrived(introduced(Some(MINUTE * 2)), Step::Promote)]
#[case::then_it_signs_a_new_leaf(Facts { old: true, leaf: Some(by(Signer::Trusted)), ..steady() }, Step::Issue)]
#[case::the_one_before_stays_trusted(Facts { old: true, leaf: Some(leaf(DAY - MINUTE)), ..steady() }, Step::Rest)]
#[case::until_nobody_serves_with_it(Facts { old: true, leaf: Some(leaf(DAY)), ..steady() }, Step::Forget)]
#[case::one_that_waited_for_years_is_no_use(Facts { next: Some(authority(DAY * 2434)), ..introduced(Some(DAY)) }, Step::Introduce)]
fn a_change_of_authority_has_two_phases(#[case] facts: Facts, #[case] expected: Step) {
    assert_eq!(at(&facts, now()), expected);
}

#[rstest]
#[case::what_clients_trust_is_kept_first(Facts { unkept: true, old: false, ..lost() }, Step::Recover)]
#[case::then_there_is_a_new_one(lost(), Step::Introduce)]
#[case::also_before_clients_can_be_asked(Facts { told: Told::Nobody, ..lost() }, Step::Introduce)]
#[case::what_serves_goes_on(lost_and_introduced(None), Step::Rest)]
#[case::while_the_new_one_is_on_its_way(lost_and_introduced(Some(MINUTE)), Step::Rest)]
#[case::until_it_has_arrived(lost_and_introduced(Some(MINUTE * 2)), Step::Promote)]
#[case::without_a_leaf_replicas_go_on_with_theirs(Facts { leaf: None, ..lost_and_introduced(Some(MINUTE)) }, Step::Rest)]
#[case::a_leaf_that_nobody_accepts_is_nothing_to_keep(Facts { leaf: Some(by(Signer::Unknown)), ..lost_and_introduced(None) }, Step::Promote)]
#[case::nor_is_one_that_has_expired(Facts { leaf: Some(Leaf { signer: Signer::Trusted, ..leaf(DAY * 366) }), ..lost_and_introduced(None) }, Step::Promote)]
#[case::nor_does_one_that_ends_wait_for_a_bundle_that_cannot_be_written(Facts { leaf: Some(Leaf { signer: Signer::Trusted, ..leaf(DAY * 305) }), ..lost_and_introduced(None) }, Step::Promote)]
#[case::one_with_time_left_does(Facts { leaf: Some(Leaf { signer: Signer::Trusted, ..leaf(DAY * 303) }), ..lost_and_introduced(None) }, Step::Rest)]
#[case::a_foreign_authority_is_only_the_next_one(Facts { told: Told::Others, unkept: true, leaf: Some(by(Signer::Trusted)), ..steady() }, Step::Recover)]
#[case::also_while_replicas_go_on_without_a_leaf(Facts { told: Told::Others, unkept: true, leaf: None, ..steady() }, Step::Recover)]
#[case::one_that_serves_already_is_not_made_better_by_waiting(Facts { told: Told::Others, unkept: true, ..steady() }, Step::Rest)]
#[case::where_nothing_can_be_kept_it_serves_at_once(Facts { told: Told::Others, unkept: true, leaf: Some(by(Signer::Unknown)), ..steady() }, Step::Issue)]
fn an_authority_is_lost(#[case] facts: Facts, #[case] expected: Step) {
    assert_eq!(at(&facts, now()), expected);
}

/// Its leaves end with it, so a leaf that can't be renewed says that time is short.
#[rstest]
#[case::a_leaf_that_ends_with_it_stays(DAY * 3500, DAY * 3600, None, Step::Rest)]
#[case::while_that_lasts(DAY * 3500, DAY * 3620, None, Step::Rest)]
#[case::and_no_longer(DAY * 3500, DAY * 3630, None, Step::Promote)]
#[case::a_leaf_that_can_be_renewed_is(DAY * 3000, DAY * 3320, None, Step::Issue)]
#[case::one_that_has_expired_signs_nothing(DAY * 3500, DAY * 3651, None, Step::Promote)]
fn an_authority_ends_before_the_next_is_published(
    #[case] leaf_made: SignedDuration,
    #[case] looked: SignedDuration,
    #[case] published_for: Option<SignedDuration>,
    #[case] expected: Step,
) {
    let lifetimes = Lifetimes::default();
    let current = Validity::of_authority(now(), &lifetimes);
    let validity = Validity::of_leaf(now() + leaf_made, current, &lifetimes);
    assert!(validity.to <= current.to);
    let facts = Facts {
        current: Some(current),
        next: Some(Validity::of_authority(now() + DAY * 3000, &lifetimes)),
        leaf: Some(Leaf { validity, ..leaf(DAY) }),
        published_for,
        ..steady()
    };
    assert_eq!(at(&facts, now() + looked), expected);
}

/// What one controller made is well for another, whose clock is ten minutes off either way: they
/// never undo each other's steps.
#[rstest]
#[case::made_and_looked_at_by_one(SignedDuration::ZERO)]
#[case::looked_at_by_one_behind(-OFF)]
#[case::looked_at_by_one_ahead(OFF)]
fn clocks_that_differ_change_nothing(#[case] off: SignedDuration) {
    let lifetimes = Lifetimes::default();
    let age = SignedDuration::ZERO;
    let new = Facts { current: Some(authority(age)), leaf: Some(leaf(age)), ..steady() };
    assert_eq!(at(&new, now() + off), Step::Rest);
    // Renewed by who finds it old first; then new for both.
    let Validity { from, to } = leaf(age).validity;
    let stale = to - from.duration_until(to) / 3;
    let renewed = Validity::of_leaf(stale, Validity::of_authority(stale, &lifetimes), &lifetimes);
    let renewed = Facts { leaf: Some(Leaf { validity: renewed, ..leaf(age) }), ..steady() };
    assert_eq!(at(&renewed, stale + off), Step::Rest);
    // The same of authorities.
    let current = authority(age);
    let stale = current.stale_from();
    let facts =
        Facts { current: Some(current), leaf: Some(leaf(now().duration_until(stale) * -1)), ..steady() };
    assert_eq!(at(&facts, stale), Step::Introduce);
    let next = Some(Validity::of_authority(stale, &lifetimes));
    assert_eq!(at(&Facts { next, ..facts }, stale + off), Step::Rest);
    // An arrival is measured, not computed from what another clock has said.
    assert_eq!(at(&introduced(Some(MINUTE)), now() + off), Step::Rest);
    assert_eq!(at(&introduced(Some(MINUTE * 2)), now() + off), Step::Promote);
    // The old authority stays for much longer than clocks differ.
    let replaced = Facts { old: true, leaf: Some(leaf(age)), ..steady() };
    assert_eq!(at(&replaced, now() + off), Step::Rest);
}

#[rstest]
#[case::the_leaf_is_due_first(steady(), Some(DAY * 243 - DAY * 30))]
#[case::an_authority_that_was_forgotten(Facts { old: true, leaf: Some(leaf(MINUTE)), ..steady() }, Some(DAY - MINUTE))]
#[case::a_bundle_on_its_way(introduced(Some(MINUTE)), Some(MINUTE))]
#[case::nothing_is_due_by_the_clock(lost_and_introduced_without_a_leaf(), None)]
fn how_long_there_is_nothing_to_do(#[case] facts: Facts, #[case] expected: Option<SignedDuration>) {
    let found = rest(&facts, &Lifetimes::default(), now());
    let close = |one: SignedDuration, other: SignedDuration| (one - other).abs() < DAY;
    match (found, expected) {
        (Some(found), Some(expected)) if expected > DAY => assert!(close(found, expected), "{found:?}"),
        _ => assert_eq!(found, expected),
    }
}

fn lost_and_introduced_without_a_leaf() -> Facts {
    Facts { leaf: None, ..lost_and_introduced(None) }
}

/// Whoever rests as long as told never comes too late, and never finds nothing to do without end.
#[test]
fn years_of_looks_keep_a_valid_leaf_with_few_steps() {
    let lifetimes = Lifetimes::default();
    let mut now = now();
    let mut facts = nothing();
    let mut introduced_at = now;
    let mut steps = 0;
    let end = now + DAY * 365 * 30;
    while now < end {
        match at(&facts, now) {
            Step::Rest => {
                let pause = rest(&facts, &lifetimes, now).unwrap_or(MINUTE).min(DAY * 30);
                now += pause;
                facts.published_for = facts.next.map(|_| introduced_at.duration_until(now));
                let leaf = facts.leaf.as_ref().unwrap();
                assert!(leaf.validity.holds(now) && leaf.signer != Signer::Unknown, "at {now}");
                continue;
            }
            Step::Begin => facts.current = Some(Validity::of_authority(now, &lifetimes)),
            Step::Introduce => {
                facts.next = Some(Validity::of_authority(now, &lifetimes));
                introduced_at = now;
                facts.published_for = Some(SignedDuration::ZERO);
            }
            Step::Promote => {
                (facts.current, facts.old, facts.published_for) = (facts.next.take(), true, None);
                facts.leaf = facts.leaf.map(|leaf| Leaf { signer: Signer::Trusted, ..leaf });
            }
            Step::Issue => {
                let validity = Validity::of_leaf(now, facts.current.unwrap(), &lifetimes);
                facts.leaf = Some(Leaf { validity, ..leaf(DAY) });
            }
            Step::Forget => facts.old = false,
            Step::Recover => unreachable!("nothing is lost"),
        }
        facts.told = Told::Current;
        steps += 1;
    }
    // 30 years: four authorities, a leaf every eight months.
    assert!(steps < 80, "{steps}");
    assert!(!facts.old);
}

#[test]
fn the_name_that_the_api_server_verifies_is_among_the_names() {
    assert!(service_names("ops").contains(&"migrations-webhook.ops.svc".to_owned()));
}
