//! What the view says after what it was told, and when. Time is the test's.

use super::*;
use futures::FutureExt;
use kube::Resource;
use serde_json::{Value, json};

fn object(namespace: &str, name: &str, spec: &Value) -> DeserializeGuard<Migrator> {
    serde_json::from_value(json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }))
    .unwrap()
}

/// One whose name is its uid.
fn identified(uid: &str, spec: &Value) -> DeserializeGuard<Migrator> {
    let mut object = object("a", uid, spec);
    object.meta_mut().uid = Some(uid.to_owned());
    object
}

fn selecting(app: &str) -> Value {
    json!({"selector": {"matchLabels": {"app": app}}})
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}

#[test]
fn a_namespace_has_its_own_gates_in_order() {
    let view = View::default();
    view.apply(object("a", "two", &selecting("x")));
    view.apply(object("a", "one", &selecting("x")));
    view.apply(object("b", "other", &selecting("x")));
    let gates: Vec<_> = view.gates("a").iter().map(|gate| gate.migrator.clone()).collect();
    assert_eq!(gates, ["one", "two"]);
    assert_eq!(view.gates("c").iter().count(), 0);
}

#[test]
fn one_that_cannot_be_read_is_known_and_leaves_the_others_alone() {
    let view = View::default();
    view.apply(object("a", "good", &selecting("x")));
    view.apply(object("a", "bad", &json!({"selector": "x"})));
    let readable: Vec<_> = view.gates("a").iter().map(|gate| gate.selector.is_ok()).collect();
    assert_eq!(readable, [false, true]);
    assert!(matches!(view.watch("a", "bad").unwrap().current(), Entry::Unreadable { .. }));
}

#[test]
fn gates_are_as_the_last_change_left_them() {
    let view = View::default();
    view.apply(object("a", "one", &selecting("x")));
    let open = || view.gates("a").iter().filter(|gate| gate.container.is_some()).count();
    assert_eq!(open(), 0);
    let named = json!({"selector": {"matchLabels": {"app": "x"}}, "container": "web"});
    view.apply(object("a", "one", &named));
    assert_eq!(open(), 1);
    view.apply(object("a", "two", &named));
    assert_eq!(open(), 2);
    view.remove(&key("a", "one"));
    assert_eq!(open(), 1);
    view.retain(&HashSet::new());
    assert_eq!(open(), 0);
}

#[tokio::test]
async fn a_change_wakes_only_who_watches_that_migrator() {
    let view = View::default();
    view.apply(object("a", "one", &selecting("x")));
    let (mut one, mut two) = (view.watch("a", "one").unwrap(), view.watch("a", "two").unwrap());
    one.current();
    view.apply(object("a", "one", &selecting("x")));
    assert!(one.changed().now_or_never().is_none(), "nothing has changed");
    view.apply(object("a", "one", &selecting("y")));
    assert!(one.changed().now_or_never().is_some());
    assert!(two.changed().now_or_never().is_none());
    view.apply(object("a", "two", &selecting("y")));
    assert!(two.changed().now_or_never().is_some(), "one that was awaited came");
}

fn named(uid: &str, version: u64) -> [Named; 1] {
    [Named { uid: uid.to_owned(), version: Some(version) }]
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_what_its_entry_was_written_for() {
    let view = View::default();
    view.restart_at(Some(40));
    let patience = Duration::from_secs(3);
    let (start, ours) = (Instant::now(), named("7d1f", 41));
    assert_eq!(view.catch_up(&ours, patience).await, Err(ours[0].clone()));
    assert_eq!(start.elapsed(), patience);

    let waits = view.catch_up(&ours, patience);
    let comes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        view.advance(Some("41"));
    };
    let (caught_up, ()) = tokio::join!(waits, comes);
    assert_eq!(caught_up, Ok(()));
    assert_eq!(start.elapsed(), patience + Duration::from_secs(1), "at once when it comes");
    assert_eq!(view.catch_up(&named("gone", 30), patience).await, Ok(()));
    assert_eq!(start.elapsed(), patience + Duration::from_secs(1), "nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_view_counts_up_until_the_cluster_starts_again() {
    let view = View::default();
    let is_at = async |version| {
        let now = Duration::ZERO;
        view.catch_up(&named("x", version), now).await.is_ok()
            && view.catch_up(&named("x", version + 1), now).await.is_err()
    };
    view.restart_at(Some(7));
    view.advance(Some("9"));
    view.advance(Some("8"));
    view.advance(Some("no number"));
    view.advance(None);
    assert!(is_at(9).await);
    view.restart_at(Some(5));
    assert!(is_at(5).await);
}

#[tokio::test]
async fn without_numbers_those_that_are_known_are_answered_for() {
    let view = View::default();
    view.apply(identified("7d1f", &selecting("x")));
    assert_eq!(view.catch_up(&named("7d1f", 41), Duration::ZERO).await, Ok(()));
    assert!(view.catch_up(&named("other", 41), Duration::ZERO).await.is_err());
}

/// Its entry asks for Pods that it held: they would start unmigrated.
#[tokio::test(start_paused = true)]
async fn no_answer_is_given_for_one_that_cannot_be_read() {
    let view = View::default();
    view.restart_at(Some(50));
    let sharing = [named("good", 41), named("bad", 41)].concat();
    let mut answers = Vec::new();
    let (readable, unreadable) = (selecting("x"), json!({"selector": "x"}));
    for spec in [&readable, &unreadable, &readable, &unreadable] {
        view.apply(identified("good", &readable));
        view.apply(identified("bad", spec));
        assert_eq!(view.catch_up(&named("good", 41), Duration::ZERO).await, Ok(()));
        answers.push(view.catch_up(&sharing, Duration::from_secs(3)).await.map_err(|named| named.uid));
    }
    view.remove(&key("a", "bad"));
    answers.push(view.catch_up(&sharing, Duration::ZERO).await.map_err(|named| named.uid));
    let refused = || Err("bad".to_owned());
    assert_eq!(answers, [Ok(()), refused(), Ok(()), refused(), Ok(())]);
}

#[tokio::test]
async fn a_new_list_replaces_the_old_one() {
    let view = View::default();
    view.apply(object("a", "stays", &selecting("x")));
    view.apply(object("b", "goes", &selecting("x")));
    let mut watched = view.watch("b", "goes").unwrap();
    watched.current();
    view.retain(&HashSet::from([key("a", "stays")]));
    assert_eq!(view.gates("a").iter().count(), 1);
    assert_eq!(view.gates("b").iter().count(), 0);
    assert!(watched.changed().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn questions_about_what_does_not_exist_are_forgotten_after_a_while() {
    let view = View::default();
    drop(view.watch("a", "x").unwrap());
    let watched = view.watch("a", "y").unwrap();
    view.apply(object("a", "z", &selecting("x")));
    tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
    drop(view.watch("b", "now").unwrap());
    let known = view.read();
    let names: Vec<_> = known.namespaces.values().flat_map(|entries| entries.keys().cloned()).collect();
    assert!(!names.contains(&"x".to_owned()) && names.len() == 3, "{names:?}");
    drop(watched);
}

#[tokio::test(start_paused = true)]
async fn no_number_of_made_up_names_takes_memory_or_keeps_others_out_for_long() {
    let view = View::default();
    view.apply(object("a", "there", &selecting("x")));
    for name in 0..10_000 {
        drop(view.watch("a", &format!("made-up-{name}")));
    }
    assert_eq!(view.read().namespaces["a"].len(), 1 + MOST_ABSENT);
    assert_eq!(view.watch("a", "another").unwrap_err(), TooManyAbsent);
    assert!(view.watch("a", "there").is_ok(), "one that is there");
    assert!(view.watch("a", "made-up-7").is_ok(), "one that is remembered");
    assert!(view.watch("b", "another").is_ok(), "in another namespace");
    view.apply(object("a", "another", &selecting("x")));
    assert!(view.watch("a", "another").is_ok(), "one that came");
    tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
    assert!(view.watch("a", "yet-another").is_ok(), "after a while");
}

#[tokio::test(start_paused = true)]
async fn a_question_is_woken_when_its_migrator_is_gone_for_good() {
    let view = View::default();
    view.apply(object("a", "one", &selecting("x")));
    view.remove(&key("a", "one"));
    let start = Instant::now();
    // As a waiter does: it asks again and again.
    for _ in 0..3 {
        let mut watched = view.watch("a", "one").unwrap();
        watched.current();
        tokio::select! {
            () = watched.changed() => assert!(start.elapsed() >= GONE_FOR_GOOD),
            () = tokio::time::sleep(Duration::from_secs(25)) => {}
        }
    }
    let answer::Known::Absent { since } = view.watch("a", "one").unwrap().current().known() else { panic!() };
    assert!(since >= GONE_FOR_GOOD, "{since:?}");
}

/// A Migrator that was gone for a moment may be back where nobody can see it.
#[tokio::test(start_paused = true)]
async fn nothing_is_gone_for_good_while_the_cluster_is_out_of_sight() {
    let view = View::default();
    view.apply(object("a", "one", &selecting("x")));
    view.remove(&key("a", "one"));
    let mut watched = view.watch("a", "one").unwrap();
    let gone_for = |watched: &mut Watched| match watched.current().known() {
        answer::Known::Absent { since } => since,
        other => panic!("{other:?}"),
    };
    tokio::time::advance(GONE_FOR_GOOD / 2).await;
    assert!(gone_for(&mut watched) >= GONE_FOR_GOOD / 2);

    view.lose_sight();
    let mut asked_about = view.watch("a", "another").unwrap();
    tokio::time::advance(GONE_FOR_GOOD * 60).await;
    for watched in [&mut watched, &mut asked_about] {
        assert_eq!(gone_for(watched), Duration::ZERO);
        assert!(watched.changed().now_or_never().is_none(), "nothing to answer anew");
    }

    // It counts from when it could be seen.
    let start = Instant::now();
    view.advance(Some("41"));
    assert_eq!([&mut watched, &mut asked_about].map(gone_for), [Duration::ZERO; 2]);
    tokio::join!(watched.changed(), asked_about.changed());
    assert_eq!([&mut watched, &mut asked_about].map(gone_for), [GONE_FOR_GOOD; 2]);
    assert_eq!(start.elapsed(), GONE_FOR_GOOD);
}

#[tokio::test(start_paused = true)]
async fn a_new_list_brings_the_cluster_in_sight() {
    let view = View::default();
    let mut watched = view.watch("a", "one").unwrap();
    view.lose_sight();
    assert!(!view.is_in_sight());
    watched.current();
    let again = async {
        tokio::time::sleep(GONE_FOR_GOOD * 2).await;
        view.restart_at(None);
    };
    // A question that is held meanwhile.
    let (start, woken) = (Instant::now(), watched.changed());
    let ((), ()) = tokio::join!(woken, again);
    assert!(view.is_in_sight());
    assert_eq!(start.elapsed(), GONE_FOR_GOOD * 2, "since then the minute counts");
    watched.current();
    watched.changed().await;
    assert_eq!(start.elapsed(), GONE_FOR_GOOD * 3);
}

/// Who isn't asked about must not take memory for as long as an outage lasts.
#[tokio::test(start_paused = true)]
async fn out_of_sight_made_up_names_are_forgotten_as_well() {
    let view = View::default();
    view.lose_sight();
    for name in 0..MOST_ABSENT {
        drop(view.watch("a", &format!("made-up-{name}")));
    }
    assert!(view.watch("a", "another").is_err());
    tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
    assert!(view.watch("a", "another").is_ok());
}
