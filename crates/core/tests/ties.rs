//! Pods that no revision tells from others, a test a sentence of the contract (§3): bare ones, and those of
//! kinds with one template, which can be changed under them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::RerunOn;
use migrations_core::snapshot::{OwnerRef, PodFacts};
use rstest::rstest;
use serde_json::json;
use world::{World, admitted, owner, serve};

const CONTROLLER: (&str, &str) = ("v1", "ReplicationController");
const REPLICA_SET: (&str, &str) = ("apps/v1", "ReplicaSet");
const CLONE_SET: (&str, &str) = ("apps.kruise.io/v1beta1", "CloneSet");

/// Sets the one template of an object of that kind; it has been changed so many times.
fn set(
    world: &mut World,
    (api_version, kind): (&str, &str),
    name: &str,
    image: &str,
    generation: i64,
) -> OwnerRef {
    let reference = owner(api_version, kind, name);
    let created = jiff::Timestamp::from_second(world.clock).unwrap().to_string();
    let object = json!({
        "metadata": { "generation": generation, "creationTimestamp": created },
        "spec": { "template": world::template(name, image, None) },
    });
    world.owners.insert(reference.clone(), Some(object));
    reference
}

/// A Pod that was admitted with that image and revision. Its uid.
fn held(world: &mut World, reference: Option<&OwnerRef>, image: &str, revision: Option<&str>) -> String {
    let pod = world.pod("alone", image);
    if let Some(owner) = reference {
        pod.name = pod.name.replace("alone", &owner.name);
    }
    pod.owner = reference.cloned();
    pod.labels.remove("pod-template-hash");
    if let Some((_, hash)) = revision.and_then(|it| it.split_once('/')) {
        pod.labels.insert("controller-revision-hash".to_owned(), hash.to_owned());
    }
    pod.admitted = Some(admitted(image, revision.map(str::to_owned)));
    let (name, uid) = (pod.name.clone(), pod.uid.clone());
    let whole = json!({ "spec": { "containers": [{ "name": "app", "image": image }] } });
    world.owners.insert(owner("v1", "Pod", &name), Some(whole));
    uid
}

/// The Migrator takes its templates from a Deployment, which is at `image`.
fn following(world: &mut World, image: &str) {
    let selector = json!({ "matchLabels": { "role": "leader" } });
    world.spec.template_selector = Some(serde_json::from_value(selector).unwrap());
    world.deploy("web", image);
    world.pods.retain(|pod| !pod.labels.contains_key("role"));
    world.pod("web", image).labels.insert("role".to_owned(), "leader".to_owned());
}

fn tied<'w>(world: &'w World, key: &str) -> &'w [String] {
    world.status.done.iter().find(|done| done.key == key).map_or(&[], |done| &done.revisions)
}

#[rstest]
#[case::bare(None, None)]
#[case::of_a_replication_controller(Some(CONTROLLER), None)]
#[case::of_a_bare_replica_set(Some(REPLICA_SET), Some("uid-worker/5f6"))]
#[case::of_a_custom_kind(Some(CLONE_SET), Some("uid-worker/5f6"))]
fn a_follower_that_no_revision_tells_from_others_is_tied_by_its_own_uid(
    #[case] kind: Option<(&str, &str)>,
    #[case] revision: Option<&str>,
) {
    let mut world = World::new();
    following(&mut world, "shop:v1");
    let reference = kind.map(|kind| set(&mut world, kind, "worker", "worker:v1", 7));
    let uid = held(&mut world, reference.as_ref(), "worker:v1", revision);
    world.migrate();
    assert_eq!(tied(&world, "shop:v1"), [uid]);
    assert_eq!((world.status.waiting, world.reason().as_str()), (Some(0), "UpToDate"));
    // What others have as well ties nobody to what was done before they came.
    following(&mut world, "shop:v2");
    held(&mut world, reference.as_ref(), "worker:v1", revision);
    world.settle();
    assert_eq!(world.status.waiting, Some(2), "the new leader and its follower");
    world.run_starts().settle().run_ends(0, "").settle();
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
    assert_eq!(world.status.waiting, Some(0));
}

/// An owner that can't be read: whether its label tells templates apart is anybody's guess.
#[test]
fn a_follower_of_an_unreadable_owner_is_tied_by_its_own_uid() {
    let mut world = World::new();
    following(&mut world, "shop:v1");
    let hidden = owner("example.com/v1", "Hidden", "worker");
    world.owners.insert(hidden.clone(), None);
    let uid = held(&mut world, Some(&hidden), "worker:v1", Some("uid-worker/1"));
    world.migrate();
    assert_eq!(tied(&world, "shop:v1"), [uid]);
}

/// The API server counts the changes: before the first, its Pods can only be of the template as it stands.
#[rstest]
fn a_rewritten_image_of_a_template_that_was_never_changed_is_migrated_as_the_templates(
    #[values(CONTROLLER, REPLICA_SET, CLONE_SET)] kind: (&str, &str),
) {
    let mut world = World::new();
    let reference = set(&mut world, kind, "web", "shop:v1", 1);
    let uid = held(&mut world, Some(&reference), "mirror/shop@sha256:1", Some("uid-web/1"));
    world.migrate();
    assert_eq!(world.started, ["shop:v1"]);
    assert_eq!(tied(&world, "shop:v1"), [uid]);
    assert_eq!((world.status.waiting, world.reason().as_str()), (Some(0), "UpToDate"));
}

/// Adopted: whatever it was made from, it wasn't this template.
#[rstest]
#[case::older_than_its_owner(|pod: &mut PodFacts| pod.created = Some(jiff::Timestamp::UNIX_EPOCH))]
#[case::named_by_someone_else(|pod: &mut PodFacts| pod.name = "by-hand".to_owned())]
fn an_orphan_is_not_released_by_the_template_of_the_owner_that_adopted_it(#[case] change: fn(&mut PodFacts)) {
    let mut world = World::new();
    let reference = set(&mut world, CONTROLLER, "web", "shop:v2", 1);
    held(&mut world, Some(&reference), "shop:v2", None);
    held(&mut world, Some(&reference), "shop:v1", None);
    change(world.pods.last_mut().unwrap());
    world.migrate().release().settle();
    assert_eq!((world.done(), world.status.waiting), (vec!["shop:v2"], Some(1)));
    assert_eq!(world.reason(), "PodsStranded");
}

/// What it was admitted with is what it is of.
#[test]
fn a_pod_that_is_given_another_hash_is_not_of_the_newest_revision() {
    let mut world = World::new();
    let reference = set(&mut world, CLONE_SET, "web", "shop:v2", 5);
    let newest = json!({ "observedGeneration": 5, "updateRevision": "web-2" });
    world.owners.get_mut(&reference).unwrap().as_mut().unwrap()["status"] = newest;
    held(&mut world, Some(&reference), "shop:v1", Some("uid-web/1"));
    let hash = ("controller-revision-hash".to_owned(), "2".to_owned());
    world.pods.last_mut().unwrap().labels.extend([hash]);
    world.settle();
    assert!(world.started.is_empty());
    assert_eq!(world.reason(), "PodsStranded");
}

/// As those of Kruise do.
#[test]
fn a_custom_kind_that_tells_its_newest_revision_is_followed_whatever_the_images() {
    let mut world = World::new();
    let reference = set(&mut world, CLONE_SET, "web", "shop:v2", 5);
    let newest = json!({ "observedGeneration": 5, "updateRevision": "web-2" });
    world.owners.get_mut(&reference).unwrap().as_mut().unwrap()["status"] = newest;
    held(&mut world, Some(&reference), "mirror/shop@sha256:1", Some("uid-web/1"));
    held(&mut world, Some(&reference), "mirror/shop@sha256:2", Some("uid-web/2"));
    world.migrate();
    assert_eq!(world.started, ["shop:v2"]);
    assert_eq!(tied(&world, "shop:v2"), ["uid-web/2"]);
    let superseded: Vec<_> = world.status.superseded.iter().map(|it| it.revision.as_str()).collect();
    assert_eq!(superseded, ["uid-web/1"]);
    assert_eq!((world.status.waiting, world.reason().as_str()), (Some(1), "UpToDate"));
}

#[rstest]
fn a_pod_that_may_be_older_or_rewritten_waits_in_vain_and_that_is_told(
    #[values(CONTROLLER, REPLICA_SET, CLONE_SET)] kind: (&str, &str),
) {
    let mut world = World::new();
    let reference = set(&mut world, kind, "web", "shop:v2", 2);
    let uid = held(&mut world, Some(&reference), "mirror/shop:v2", None);
    held(&mut world, Some(&reference), "mirror/shop:v2", None);
    let plan = world.look();
    assert!(
        plan.events.iter().any(|it| it.warning && it.reason.as_str() == "PodsStranded"),
        "{:?}",
        plan.events
    );
    world.settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("PodsStranded", vec!["Stalled"]));
    let message = world.standing().1;
    for word in [&world.pods[0].name, "1 more", kind.1, "mirror/shop:v2", "no-wait"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(world.status.waiting, Some(2));
    assert!(world.started.is_empty() && world.done().is_empty());
    // Its waiter is told as well.
    assert!(
        world
            .status
            .superseded
            .iter()
            .any(|it| it.revision == uid && it.reason.contains("nothing tells which"))
    );
    // Deleted, as the condition says, and made anew of the template.
    world.pods.clear();
    held(&mut world, Some(&reference), "shop:v2", None);
    world.migrate().release().settle();
    assert_eq!((world.done(), world.reason().as_str()), (vec!["shop:v2"], "UpToDate"));
}

#[test]
fn a_suspended_migrator_with_pods_that_wait_in_vain_is_not_ready() {
    let mut world = World::new();
    let reference = set(&mut world, CONTROLLER, "web", "shop:v2", 2);
    held(&mut world, Some(&reference), "mirror/shop:v2", None);
    world.spec.suspend = Some(true);
    world.settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("PodsStranded", vec!["Stalled"]));
}

/// The image alone releases nobody then.
#[test]
fn a_pod_that_nothing_names_is_tied_by_its_uid_where_templates_count() {
    let mut world = World::new();
    world.spec.rerun_on = Some(RerunOn::Template);
    let bare = held(&mut world, None, "shop:v1", None);
    world.migrate();
    assert_eq!(tied(&world, "shop:v1"), [bare]);

    let reference = set(&mut world, CONTROLLER, "web", "web:v1", 3);
    let of_controller = held(&mut world, Some(&reference), "web:v1", None);
    world.migrate();
    let key = world.done()[0].to_owned();
    assert!(key.starts_with("web:v1#"), "{key}");
    assert_eq!(tied(&world, &key), [of_controller]);
}

/// Scaling counts as a change of the spec.
#[test]
fn scaling_a_custom_kind_is_no_migration_where_templates_count() {
    let mut world = World::new();
    world.spec.rerun_on = Some(RerunOn::Template);
    let reference = set(&mut world, CLONE_SET, "web", "shop:v1", 1);
    held(&mut world, Some(&reference), "shop:v1", Some("uid-web/1"));
    world.migrate();
    set(&mut world, CLONE_SET, "web", "shop:v1", 2);
    held(&mut world, Some(&reference), "shop:v1", Some("uid-web/1"));
    world.settle();
    let object = world.owners.get_mut(&reference).unwrap().as_mut().unwrap();
    object["status"] = json!({ "observedGeneration": 2, "updateRevision": "web-1" });
    held(&mut world, Some(&reference), "shop:v1", Some("uid-web/1"));
    world.settle();
    assert_eq!((world.started.len(), world.status.waiting), (1, Some(0)), "{:?}", world.done());
}

/// An init container runs once more when its node is started anew.
#[test]
fn a_pods_uid_is_kept_while_it_lives_and_revisions_are_not_forgotten_over_those_of_pods() {
    let mut world = World::new();
    world.spec.rerun_on = Some(RerunOn::Template);
    let kept = held(&mut world, None, "shop:v1", None);
    world.migrate();
    serve(world.pods.last_mut().unwrap());
    world.status.done[0].revisions.push("uid-web/1".to_owned());
    for _ in 0..25 {
        held(&mut world, None, "shop:v1", None);
        world.settle();
        world.pods.truncate(1);
    }
    world.settle();
    let revisions = tied(&world, "shop:v1");
    assert!(revisions.contains(&kept) && revisions.contains(&"uid-web/1".to_owned()), "{revisions:?}");
    assert!(revisions.len() <= 22, "{revisions:?}");
    assert_eq!(world.started.len(), 1);
}

/// The Migrator came to what runs already.
#[rstest]
#[case::older_than_the_gate(|world: &mut World| {
    let pod = world.pods.last_mut().unwrap();
    pod.init_containers.clear();
    pod.admitted = None;
})]
#[case::exempt(|world: &mut World| world.pods.last_mut().unwrap().no_wait = true)]
fn a_follower_that_does_not_wait_leaves_the_migrator_ready(#[case] change: fn(&mut World)) {
    let mut world = World::new();
    following(&mut world, "shop:v1");
    world.roll_out("worker", "worker:v1");
    change(&mut world);
    serve(world.pods.last_mut().unwrap());
    world.migrate();
    assert_eq!((world.reason().as_str(), world.status.ungated), ("UpToDate", Some(0)));
}

/// Its controller will tell in a moment; until then it is not true that all is well.
#[test]
fn a_pod_whose_revision_is_not_yet_told_leaves_the_migrator_at_work() {
    let mut world = World::new();
    world.deploy_stateful("db", "shop:v2").deploy_stateful("db", "shop:v1").stateful_pod("db", 0, "shop:v2");
    let object = world.owners.iter_mut().find(|(it, _)| it.kind == "StatefulSet").unwrap().1;
    object.as_mut().unwrap()["metadata"] = json!({ "generation": 2 });
    world.settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("Pending", vec!["Reconciling"]));
    assert!(world.standing().1.contains("StatefulSet db"), "{}", world.standing().1);
}
