//! Whatever happens in whatever order, with crashes between any two effects: the invariants of the
//! contract (§5) hold on the way, and when faults stop everything comes to rest (L1, L2). S1 and S3
//! are asserted by the world itself at each start.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::{How, Migrator};
use migrations_core::answer::{Known, answer};
use migrations_core::snapshot::{ContainerState, OwnerRef, PodFacts};
use migrations_protocol::{Question, Verdict};
use proptest::prelude::*;
use serde_json::json;
use world::{World, admitted, hash, lock, owner};

#[derive(Clone, Debug)]
enum Happening {
    RollOut(&'static str, &'static str),
    Pod(&'static str, &'static str),
    PodsGone,
    Mend(&'static str, u8),
    RollOutSet(&'static str, u8),
    Look,
    Crash(usize),
    RunStarts,
    RunEnds(i32),
    JobVanishes,
    ForeignRun,
    ForeignRunEnds,
    RunIsStuck,
    SpecChanges(u8),
    Suspend(bool),
    BackoffLimit(i32),
    Lock(bool),
    LockElsewhere(bool),
    Request(u8),
    RunImage(Option<&'static str>),
    Mark(&'static str),
    TimePasses(i64),
    Serve,
    OldView(usize),
    HeldUp(usize),
    GoesOn,
}

fn happening() -> impl Strategy<Value = Happening> {
    let app = prop_oneof![Just("web"), Just("worker")];
    let image = prop_oneof![Just("shop:a"), Just("shop:b"), Just("shop:c")];
    prop_oneof![
        3 => (app.clone(), image.clone()).prop_map(|(app, image)| Happening::RollOut(app, image)),
        1 => (app.clone(), image.clone()).prop_map(|(app, image)| Happening::Pod(app, image)),
        1 => (app, 0u8..3).prop_map(|(app, number)| Happening::Mend(app, number)),
        2 => (image, 0u8..3).prop_map(|(image, number)| Happening::RollOutSet(image, number)),
        1 => Just(Happening::PodsGone),
        8 => Just(Happening::Look),
        4 => (0usize..3).prop_map(Happening::Crash),
        3 => Just(Happening::RunStarts),
        3 => prop_oneof![3 => Just(0), 1 => Just(1)].prop_map(Happening::RunEnds),
        1 => Just(Happening::JobVanishes),
        1 => Just(Happening::ForeignRun),
        1 => Just(Happening::ForeignRunEnds),
        1 => Just(Happening::RunIsStuck),
        1 => (0u8..3).prop_map(Happening::SpecChanges),
        1 => any::<bool>().prop_map(Happening::Suspend),
        1 => (0i32..3).prop_map(Happening::BackoffLimit),
        1 => any::<bool>().prop_map(Happening::Lock),
        1 => any::<bool>().prop_map(Happening::LockElsewhere),
        1 => (0u8..3).prop_map(Happening::Request),
        1 => prop_oneof![Just(None), Just(Some("ddl:1")), Just(Some("ddl:2"))].prop_map(Happening::RunImage),
        1 => prop_oneof![Just("shop:a"), Just("shop:b")].prop_map(Happening::Mark),
        2 => (1i64..400).prop_map(Happening::TimePasses),
        2 => Just(Happening::Serve),
    ]
}

fn happen(world: &mut World, happening: &Happening) {
    match happening {
        Happening::RollOut(app, image) => drop(world.roll_out(app, image)),
        // Of a revision that there was.
        Happening::Pod(app, image) if world.has_revision(app, image) => drop(world.pod(app, image)),
        Happening::Pod(..) => {}
        Happening::PodsGone => world.pods.clear(),
        Happening::Mend(app, number) => mend(world, app, *number),
        Happening::RollOutSet(image, number) => roll_out_set(world, image, *number),
        Happening::Look => drop(world.look()),
        Happening::Crash(steps) => drop(world.look_and_crash_after(*steps)),
        Happening::RunStarts => drop(world.run_starts()),
        Happening::RunEnds(code) => drop(world.run_ends(*code, "output")),
        Happening::JobVanishes => {
            let Some(job) = world.jobs.pop() else { return };
            let of = |pod: &PodFacts| pod.owner.as_ref().and_then(|owner| owner.uid.clone());
            world.run_pods.retain(|pod| of(pod) != Some(job.uid.clone()));
        }
        Happening::ForeignRun => drop(world.foreign_run()),
        Happening::ForeignRunEnds => drop(world.foreign_run_ends()),
        Happening::RunIsStuck => {
            let pod = world.run_pods.iter_mut().rfind(|pod| pod.phase == "Pending");
            let stuck = ContainerState::Waiting("ImagePullBackOff".to_owned());
            pod.map(|pod| pod.containers[0].state = stuck).unwrap_or_default();
        }
        Happening::SpecChanges(number) => world.spec.args = Some(vec![number.to_string()]),
        Happening::Suspend(suspend) => world.spec.suspend = Some(*suspend),
        Happening::BackoffLimit(limit) => world.spec.backoff_limit = Some(*limit),
        Happening::Lock(locks) => world.spec.lock = locks.then(|| "db".to_owned()),
        Happening::LockElsewhere(held) => {
            let lease = world.policy.lease("default", "db");
            world.locks.retain(|lock| lock.holder.uid == "uid-shop");
            if *held && world.locks.is_empty() {
                world.locks.push(lock(&lease, "uid-other"));
            }
        }
        Happening::Request(token) => world.requests.run = Some(token.to_string()),
        Happening::RunImage(image) => world.spec.image = image.map(str::to_owned),
        Happening::Mark(image) => world.requests.done = Some((*image).to_owned()),
        Happening::TimePasses(seconds) => drop(world.wait(*seconds)),
        Happening::Serve => drop(world.release()),
        Happening::OldView(age) => world.look_at_an_old_view(*age),
        Happening::HeldUp(steps) => world.look_and_be_held_up_after(*steps),
        Happening::GoesOn => world.go_on(),
    }
}

/// A Deployment's template changes, and not its image. No Pod of it comes: it is paused.
fn mend(world: &mut World, app: &str, number: u8) {
    if let Some(Some(object)) = world.owners.get_mut(&owner("apps/v1", "Deployment", app)) {
        object["spec"]["template"]["spec"]["serviceAccountName"] = json!(number.to_string());
    }
}

/// A StatefulSet's template changes, in its image or in something else.
fn roll_out_set(world: &mut World, image: &str, number: u8) {
    world.deploy_stateful("db", image);
    let revision = format!("db-{}-{number}", hash(image));
    let object = world.owners.get_mut(&owner("apps/v1", "StatefulSet", "db")).unwrap().as_mut().unwrap();
    object["spec"]["template"]["spec"]["serviceAccountName"] = json!(number.to_string());
    object["status"]["updateRevision"] = json!(revision);
    let kept = json!({ "data": { "spec": { "template": object["spec"]["template"] } } });
    let reference = OwnerRef { uid: None, ..owner("apps/v1", "ControllerRevision", &revision) };
    world.owners.insert(reference, Some(kept));
    control_set(world);
}

/// Its controller makes its Pod, and replaces it once it is ready: one that waits it leaves alone.
fn control_set(world: &mut World) {
    let Some(Some(object)) = world.owners.get(&owner("apps/v1", "StatefulSet", "db")) else { return };
    let revision = object["status"]["updateRevision"].as_str().unwrap().to_owned();
    let image = object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    let label = "controller-revision-hash";
    let kept = |pod: &PodFacts| !pod.application_started() || pod.labels.get(label) == Some(&revision);
    if world.pods.iter().any(|pod| pod.name == "db-0" && kept(pod)) {
        return;
    }
    let pod = world.stateful_pod("db", 0, &image);
    pod.admitted = Some(admitted(&image, Some(format!("uid-db/{revision}"))));
    pod.labels.insert(label.to_owned(), revision);
}

fn is_stuck(world: &World) -> bool {
    let stuck = |state: &ContainerState| matches!(state, ContainerState::Waiting(why) if !why.is_empty());
    world.run_pods.iter().any(|pod| pod.unfinished() && stuck(&pod.containers[0].state))
}

/// Whatever may happen, and beside it another controller that thinks it leads: it has yet to see what is
/// new, or goes on in the middle of a plan that it made long ago.
fn happening_to_two() -> impl Strategy<Value = Happening> {
    // Locks are for other Migrators: between controllers of one, they are no guard.
    let alone = happening().prop_filter("locks are tested alone", |happening| {
        !matches!(happening, Happening::Lock(_) | Happening::LockElsewhere(_))
    });
    prop_oneof![
        6 => alone,
        2 => (0usize..12).prop_map(Happening::OldView),
        2 => (0usize..3).prop_map(Happening::HeldUp),
        2 => Just(Happening::GoesOn),
    ]
}

/// The rules that Argo CD, Flux and kubectl-based tools apply to any object (kstatus): an object is
/// failed while `Stalled`, in progress while `Reconciling` or not `Ready`, else current. One of them
/// is to hold, and it is to be the one that the reason speaks of.
fn kstatus_agrees(world: &World) -> bool {
    let status = &world.status;
    let is =
        |kind: &str, value: &str| status.conditions.iter().any(|it| it.type_ == kind && it.status == value);
    if status.conditions.is_empty() {
        return true;
    }
    let result = if status.observed_generation != Some(1) {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Reconciling", "True") || !is("Ready", "True") {
        "InProgress"
    } else {
        "Current"
    };
    let both = is("Stalled", "True") && is("Reconciling", "True");
    let abnormal_ones_are_true = !is("Stalled", "False") && !is("Reconciling", "False");
    let expected: &[&str] = match world.reason().as_str() {
        "Idle" | "UpToDate" => &["Current"],
        // Something due or nothing due.
        "Suspended" => &["Current", "Failed"],
        "GatePending" | "Pending" | "Running" | "BackOff" | "Locked" | "EarlierRunUnfinished" => {
            &["InProgress"]
        }
        _ => &["Failed"],
    };
    expected.contains(&result)
        && !both
        && abnormal_ones_are_true
        && is("Ready", "True") == (result == "Current")
}

/// What the waiter of a Pod is told at the end: that it may start, or a reason that isn't just "wait".
fn released_or_told(world: &World, pod: &PodFacts) -> bool {
    let admitted = pod.admitted.clone().unwrap();
    let question = Question {
        namespace: "default".to_owned(),
        migrator: "shop".to_owned(),
        containers: admitted.containers,
        revision: admitted.revision,
        follower: false,
        labels: pod.labels.clone(),
        seen: None,
    };
    let mut migrator = Migrator::new("shop", world.spec.clone());
    migrator.status = Some(world.status.clone());
    let answer = answer(&question, &pod.uid, Known::Migrator(&migrator));
    let mut told = vec!["MigrationFailed", "ResultUnknown"];
    if pod.name != "db-0" {
        // Nobody else replaces one of a StatefulSet, so that none is left behind.
        told.push("Superseded");
    }
    answer.verdict == Verdict::Released || told.contains(&answer.reason.as_str())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_the_invariants_and_comes_to_rest(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let mut world = World::new();
        for happening in &happenings {
            let before: Vec<_> = world.done().into_iter().map(str::to_owned).collect();
            happen(&mut world, happening);
            for key in before {
                prop_assert!(world.done().contains(&key.as_str()), "S5: the record of {key} is lost");
            }
            prop_assert!(kstatus_agrees(&world), "{:?}", world.status.conditions);
        }
        // Faults stop.
        world.foreign_run_ends();
        world.spec.suspend = None;
        world.locks.retain(|lock| lock.holder.uid == "uid-shop");
        for _ in 0..12 {
            world.wait(400).settle().run_starts().settle().run_ends(0, "");
            control_set(&mut world);
        }
        world.wait(400).settle();
        prop_assert!(world.locks.is_empty(), "a lock is held for nothing");
        for pod in &world.pods {
            prop_assert!(released_or_told(&world, pod), "L1: {} {:?}", pod.name, world.status);
        }
        prop_assert!(kstatus_agrees(&world), "{:?}", world.status.conditions);
        let unfinished = world.run_pods.iter().filter(|pod| pod.unfinished()).count();
        prop_assert_eq!(unfinished, 0);
        prop_assert!(world.status.current.is_none(), "{:?}", world.status.current);
        prop_assert!(!world.decide().acts(), "L2: something is written while nothing changes");
    }

    /// S1, S3 and S4 are asserted by the world, at each write whose precondition holds.
    #[test]
    fn a_second_controller_with_an_old_view_breaks_no_invariant(
        happenings in proptest::collection::vec(happening_to_two(), 1..80),
    ) {
        let mut world = World::new();
        for happening in &happenings {
            if matches!(happening, Happening::ForeignRun) {
                // Nothing that the operator writes could tell of it.
                world.forget();
            }
            if matches!(happening, Happening::RunStarts) && is_stuck(&world) {
                // While it is given up, no precondition tells of it: its result counts (contract §3).
                continue;
            }
            let before: Vec<_> = world.done().into_iter().map(str::to_owned).collect();
            happen(&mut world, happening);
            world.remember();
            for key in before {
                prop_assert!(world.done().contains(&key.as_str()), "S5: the record of {key} is lost");
            }
            for done in world.status.done.iter().filter(|done| done.how == How::Succeeded) {
                prop_assert!(world.succeeded.contains(&done.key), "S2: {} has never succeeded", done.key);
            }
        }
        // One of them is gone, and faults stop.
        world.forget();
        world.foreign_run_ends();
        world.spec.suspend = None;
        for _ in 0..12 {
            world.wait(400).settle().run_starts().settle().run_ends(0, "");
            control_set(&mut world);
        }
        world.wait(400).settle();
        for pod in &world.pods {
            prop_assert!(released_or_told(&world, pod), "L1: {} {:?}", pod.name, world.status);
        }
    }

    #[test]
    fn the_order_of_what_is_listed_does_not_matter(
        happenings in proptest::collection::vec(happening(), 1..40),
    ) {
        let mut world = World::new();
        for happening in &happenings {
            happen(&mut world, happening);
        }
        let clock = world.clock;
        let plan = world.decide();
        world.clock = clock;
        world.pods.reverse();
        world.jobs.reverse();
        world.run_pods.reverse();
        prop_assert_eq!(world.decide(), plan);
    }
}
