//! Namespaces whose waiters can't be told whom to trust, for a moment or for long.

use std::time::Duration;

use http::Method;
use migrations_api::{DoneKey, How, Migrator, MigratorStatus};
use migrations_controller::watch::Guarded;
use migrations_core::snapshot::Gate;
use migrations_testkit::builders::{Object, migrator};
use migrations_testkit::recording::{Fault, RecordingServer};
use rstest::rstest;

use crate::Kept;

/// A Migrator that selects what all of these do.
fn one(namespace: &str, name: &str, done: &[&str]) -> Object<Migrator> {
    let key = |image: &&str| DoneKey::new((*image).to_owned(), (*image).to_owned(), How::Succeeded);
    let status = MigratorStatus { done: done.iter().map(key).collect(), ..MigratorStatus::default() };
    let migrator = migrator(name).namespace(namespace).uid(&format!("{namespace}-{name}"));
    migrator.selecting("app", "shop").status(&status)
}

fn guarded(migrators: &[Object<Migrator>]) -> Vec<Guarded> {
    migrators.iter().map(|it| serde_json::from_value(it.json()).unwrap()).collect()
}

/// How often the `ConfigMap` of a namespace was asked for, or written.
fn asked(server: &RecordingServer, namespace: &str, method: &Method) -> usize {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/migrations-ca-bundle");
    server.requests().iter().filter(|it| it.method == method && it.path == path).count()
}

/// The entry that they share would be written as if the other were gone: Pods would start that it holds.
#[tokio::test(start_paused = true)]
async fn migrators_that_share_an_entry_share_a_fault() {
    let mut kept = Kept::start(true).await;
    kept.list(guarded(&[one("shop", "a", &["v1", "v2"]), one("shop", "b", &["v1"])]));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = kept.entries();
    assert_eq!(before.len(), 1);
    assert!(before[0]["matchConditions"].to_string().contains(r#"[\"v1\"]"#), "{before:?}");

    kept.server.fail(Fault::refuse(Method::GET, "/namespaces/shop/configmaps", 500));
    for _ in 0..70 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kept.entries(), before);
    }
    assert_eq!(asked(&kept.server, "shop", &Method::GET), 3, "at first, after a minute, after the fault");
}

/// A quota that is used up, a policy, a namespace that doesn't end: they may stay for ever.
#[rstest]
#[case::cannot_be_read(Method::GET, "can't be read: not this one")]
#[case::cannot_be_written(Method::PATCH, "can't be written: not this one")]
#[tokio::test(start_paused = true)]
async fn what_a_namespace_refuses_concerns_its_own_migrators_alone(
    #[case] method: Method,
    #[case] told: &str,
) {
    let mut kept = Kept::start(true).await;
    for _ in 0..4000 {
        let path = "/namespaces/shop/configmaps";
        kept.server.fail(Fault::refuse_saying(method.clone(), path, 403, "not this one"));
    }
    let [shop, blog] = [one("shop", "a", &[]), one("blog", "a", &[])];
    let of = |gates: &migrations_controller::gate::Gates, one: &Object<Migrator>| gates.of(&one.build());
    kept.list(guarded(&[shop.clone(), blog.clone()]));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(kept.is_ready());
    assert_eq!(of(&kept.gates, &blog), Gate::InPlace);
    assert_eq!(kept.entries().len(), 1);
    let why = format!("the ConfigMap migrations-ca-bundle {told}");
    assert_eq!(of(&kept.gates, &shop), Gate::Pending(why));

    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!((50..70).contains(&asked(&kept.server, "shop", &method)), "ever more seldom, to a minute");
}

/// It may have come with a new namespace of the same name, which was told nothing.
#[tokio::test(start_paused = true)]
async fn a_new_migrator_is_not_taken_for_one_that_was_told() {
    let mut kept = Kept::start(true).await;
    for uid in ["one", "another"] {
        let before = asked(&kept.server, "shop", &Method::GET);
        kept.list(guarded(&[one("shop", "a", &[]).uid(uid)]));
        kept.gates.look();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(asked(&kept.server, "shop", &Method::GET), before + 1);
        assert_eq!(kept.entries().len(), 1);
    }
}
