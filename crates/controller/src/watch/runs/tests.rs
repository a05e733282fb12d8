//! What is kept of deleted Pods, and for how long.

use jiff::ToSpan;
use migrations_core::result::{Progress, progress};
use migrations_testkit::builders::{job, pod};
use rstest::rstest;

use super::*;

fn run_of() -> RunOf {
    RunOf::migrator("shop", "shop")
}

/// A Pod of a run's Job, made `second` seconds after the others.
fn run_pod(name: &str, of_job: &str, second: u32) -> PodFacts {
    let made = pod(name)
        .label(names::RUN_LABEL, "shop")
        .created(&format!("2026-01-01T00:00:{second:02}Z"))
        .owned_by(&job(of_job))
        .container(names::RUN_CONTAINER, "shop:v1");
    PodFacts::from(&made.finished(1, "no such table").build())
}

fn at(seconds: i64) -> Timestamp {
    "2026-01-01T01:00:00Z".parse::<Timestamp>().unwrap() + seconds.seconds()
}

/// Names of the Pods that are seen, those that are gone with a `-` before them.
fn seen(runs: &Runs, now: Timestamp) -> Vec<String> {
    let pods = runs.of(&run_of(), now).unwrap();
    let mut names: Vec<_> =
        pods.iter().map(|pod| format!("{}{}", if pod.gone { "-" } else { "" }, pod.name)).collect();
    names.sort();
    names
}

fn listed(pods: impl IntoIterator<Item = PodFacts>) -> Runs {
    let mut runs = Runs::default();
    assert!(runs.replace(pods.into_iter().map(|pod| (run_of(), pod)).collect(), at(0)), "the first list");
    runs
}

#[test]
fn before_the_first_list_nothing_is_known() {
    let mut runs = Runs::default();
    assert_eq!(runs.of(&run_of(), at(0)), None);
    assert!(runs.replace(Vec::new(), at(0)));
    assert_eq!(runs.of(&run_of(), at(0)), Some(Vec::new()));
}

#[test]
fn a_deleted_pods_last_state_is_that_of_its_deletion() {
    let mut runs = listed([run_pod("a", "one", 0)]);
    let last = PodFacts { phase: "Failed".to_owned(), ..run_pod("a", "one", 0) };
    runs.delete(&run_of(), last.clone(), at(0));
    assert_eq!(runs.of(&run_of(), at(1)), Some(vec![PodFacts { gone: true, ..last }]));
}

#[rstest]
#[case::just_before(599, &["-a"])]
#[case::after_ten_minutes(600, &[])]
fn it_is_kept_for_ten_minutes(#[case] later: i64, #[case] expected: &[&str]) {
    let mut runs = listed([run_pod("a", "one", 0)]);
    runs.delete(&run_of(), run_pod("a", "one", 0), at(0));
    assert_eq!(seen(&runs, at(later)), expected);
    // Nor is it held any longer than the next deletion.
    runs.delete(&RunOf::migrator("shop", "other"), run_pod("b", "two", 0), at(later));
    assert_eq!(runs.gone.contains_key(&run_of()), !expected.is_empty());
}

#[rstest]
#[case::newer_run(run_pod("b", "two", 1), &["b"])]
#[case::same_run(run_pod("b", "one", 1), &["-a", "b"])]
#[case::older_run(run_pod("b", "two", 0), &["-a", "b"])]
fn it_is_kept_until_a_newer_runs_pod_is_seen(#[case] next: PodFacts, #[case] expected: &[&str]) {
    let mut runs = listed([run_pod("a", "one", 0)]);
    runs.delete(&run_of(), run_pod("a", "one", 0), at(0));
    assert!(runs.apply(&run_of(), next));
    assert_eq!(seen(&runs, at(1)), expected);
}

#[test]
fn the_newest_four_are_kept() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut runs = listed(names.map(|name| run_pod(name, "one", 0)));
    for name in names {
        runs.delete(&run_of(), run_pod(name, "one", 0), at(0));
    }
    assert_eq!(seen(&runs, at(1)), ["-c", "-d", "-e", "-f"]);
}

#[test]
fn what_a_new_list_lacks_was_deleted_unseen() {
    let mut runs = listed([run_pod("a", "one", 0), run_pod("b", "one", 0)]);
    assert!(!runs.replace(vec![(run_of(), run_pod("b", "one", 0))], at(0)));
    assert_eq!(seen(&runs, at(1)), ["-a", "b"]);
}

#[test]
fn another_migrators_are_not_among_them() {
    let mut runs = listed([run_pod("a", "one", 0)]);
    runs.delete(&run_of(), run_pod("a", "one", 0), at(0));
    for other in [RunOf::migrator("shop", "other"), RunOf::migrator("other", "shop")] {
        assert_eq!(runs.of(&other, at(1)), Some(Vec::new()));
    }
}

#[test]
fn an_unchanged_pod_is_no_news() {
    let mut runs = listed([run_pod("a", "one", 0)]);
    assert!(!runs.apply(&run_of(), run_pod("a", "one", 0)));
    assert!(runs.apply(&run_of(), PodFacts { terminating: true, ..run_pod("a", "one", 0) }));
}

#[rstest]
#[case::deleted_before_the_list(&["a", "b"], &["b"], &["-a", "b"])]
#[case::all_there(&["a"], &["a"], &["a"])]
#[case::come_since(&[], &["a"], &["a"])]
fn a_live_list_is_completed_with_what_it_lacks(
    #[case] before: &[&str],
    #[case] live: &[&str],
    #[case] expected: &[&str],
) {
    let pods = |names: &[&str]| names.iter().map(|name| run_pod(name, "one", 0)).collect::<Vec<_>>();
    let merged = with_gone(pods(live).into_iter(), pods(before));
    let mut names: Vec<_> =
        merged.iter().map(|pod| format!("{}{}", if pod.gone { "-" } else { "" }, pod.name)).collect();
    names.sort();
    assert_eq!(names, expected);
}

/// It holds up nothing, and what it was doing is not still going on.
#[test]
fn a_gone_pod_is_neither_live_nor_running() {
    let made = pod("a").container(names::RUN_CONTAINER, "shop:v1").running();
    let there = PodFacts::from(&made.build());
    let gone = PodFacts { gone: true, ..there.clone() };
    assert!(there.live() && there.unfinished() && !gone.live() && !gone.unfinished());
    assert_eq!(progress(None, &[&there], false), Progress::Running);
    assert!(matches!(progress(None, &[&gone], false), Progress::Ended(_)));
}
