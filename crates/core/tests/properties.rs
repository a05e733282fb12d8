//! Whatever happens in whatever order, with crashes between any two effects: the invariants of the
//! contract (§5) hold on the way, and when faults stop everything comes to rest (L1, L2). S1 and S3
//! are asserted by the world itself at each start.

#[cfg(test)]
mod world;

use migrations_core::snapshot::PodFacts;
use proptest::prelude::*;
use world::World;

#[derive(Clone, Debug)]
enum Happening {
    RollOut(&'static str, &'static str),
    Pod(&'static str, &'static str),
    PodsGone,
    Look,
    Crash(usize),
    RunStarts,
    RunEnds(i32),
    JobVanishes,
    ForeignRun,
    ForeignRunEnds,
    SpecChanges(u8),
    Serve,
}

fn happening() -> impl Strategy<Value = Happening> {
    let app = prop_oneof![Just("web"), Just("worker")];
    let image = prop_oneof![Just("shop:a"), Just("shop:b"), Just("shop:c")];
    prop_oneof![
        3 => (app.clone(), image.clone()).prop_map(|(app, image)| Happening::RollOut(app, image)),
        1 => (app, image).prop_map(|(app, image)| Happening::Pod(app, image)),
        1 => Just(Happening::PodsGone),
        8 => Just(Happening::Look),
        4 => (0usize..3).prop_map(Happening::Crash),
        3 => Just(Happening::RunStarts),
        3 => prop_oneof![3 => Just(0), 1 => Just(1)].prop_map(Happening::RunEnds),
        1 => Just(Happening::JobVanishes),
        1 => Just(Happening::ForeignRun),
        1 => Just(Happening::ForeignRunEnds),
        1 => (0u8..3).prop_map(Happening::SpecChanges),
        2 => Just(Happening::Serve),
    ]
}

fn happen(world: &mut World, happening: &Happening) {
    match happening {
        Happening::RollOut(app, image) => drop(world.roll_out(app, image)),
        Happening::Pod(app, image) => drop(world.pod(app, image)),
        Happening::PodsGone => world.pods.clear(),
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
        Happening::SpecChanges(number) => world.spec.args = Some(vec![number.to_string()]),
        Happening::Serve => drop(world.release()),
    }
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
        }
        world.foreign_run_ends();
        for _ in 0..10 {
            world.settle().run_starts().settle().run_ends(0, "");
        }
        world.settle();
        let unfinished = world.run_pods.iter().filter(|pod| pod.unfinished()).count();
        prop_assert_eq!(unfinished, 0);
        prop_assert!(world.status.current.is_none(), "{:?}", world.status.current);
        prop_assert!(!world.decide().acts(), "L2: something is written while nothing changes");
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
