//! Every order in which two controllers, the Job controller, a kubelet and people can act around a
//! run, one read and one write at a time: none breaks an invariant of the contract (§5), and from
//! wherever it leads one controller brings everything to rest. S1, S3 and S4 are asserted by the
//! world at each write. A cheaper order of writes would have to pass here (ADR 2).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]
#![allow(clippy::print_stderr, reason = "a test that fails tells how it came to that")]

#[cfg(test)]
mod world;

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use jiff::Timestamp;
use migrations_api::How;
use migrations_core::decide::decide;
use migrations_core::plan::Plan;
use migrations_core::snapshot::{ContainerState, PodFacts, Snapshot};
use migrations_core::validate::validate;
use rstest::rstest;
use world::World;

/// Where a controller is with its look.
#[derive(Clone, Debug)]
enum Controller {
    Rests,
    /// It has what the watches brought, and has read the Migrator again, at that version.
    ReadMigrator(u64, Box<Snapshot>),
    /// It has read the Jobs, too.
    ReadJobs(u64, Box<Snapshot>),
    /// It has decided, and has that left to write.
    Decided(u64, Plan),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A controller reads or writes the next thing.
    Acts(usize),
    /// A controller starts afresh.
    Crashes(usize),
    PodIsMade,
    RunStarts,
    RunEnds(i32),
    TerminatingPodIsGone,
    TimePasses,
    NewImage,
    JobIsDeleted,
    RunIsRequested,
    ImageIsMarked,
}

/// How often each of these may still happen.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    crashes: u8,
    pauses: u8,
    images: u8,
    deletions: u8,
    requests: u8,
    marks: u8,
}

#[derive(Clone)]
struct Scene {
    world: World,
    controllers: [Controller; 2],
    left: Left,
}

const STEPS: [Step; 14] = [
    Step::Acts(0),
    Step::Acts(1),
    Step::Crashes(0),
    Step::Crashes(1),
    Step::PodIsMade,
    Step::RunStarts,
    Step::RunEnds(0),
    Step::RunEnds(1),
    Step::TerminatingPodIsGone,
    Step::TimePasses,
    Step::NewImage,
    Step::JobIsDeleted,
    Step::RunIsRequested,
    Step::ImageIsMarked,
];

fn runs(pod: &PodFacts) -> bool {
    pod.unfinished() && matches!(pod.containers[0].state, ContainerState::Running(_))
}

impl Scene {
    fn new(left: Left) -> Self {
        let mut world = World::new();
        world.in_small_steps = true;
        world.spec.backoff_limit = Some(1);
        world.roll_out("web", "shop:a");
        Self { world, controllers: [Controller::Rests, Controller::Rests], left }
    }

    /// Whether a step can happen now.
    fn can(&self, step: Step) -> bool {
        let run_pods = || self.world.run_pods.iter();
        match step {
            // Where nothing is to be done, there is nothing to read again.
            Step::Acts(index) => !self.rests(index) || self.world.clone().decide().acts(),
            Step::Crashes(index) => self.left.crashes > 0 && !self.rests(index),
            Step::PodIsMade => self.world.has_run_pods_to_make(),
            Step::RunStarts => run_pods().any(|pod| pod.unfinished() && !runs(pod)),
            Step::RunEnds(_) => run_pods().any(runs),
            Step::TerminatingPodIsGone => run_pods().any(|pod| pod.terminating),
            Step::TimePasses => self.left.pauses > 0,
            Step::NewImage => self.left.images > 0,
            Step::JobIsDeleted => self.left.deletions > 0 && !self.world.jobs.is_empty(),
            Step::RunIsRequested => self.left.requests > 0,
            Step::ImageIsMarked => self.left.marks > 0,
        }
    }

    fn rests(&self, index: usize) -> bool {
        matches!(self.controllers[index], Controller::Rests)
    }

    /// The scene after a step that can happen.
    fn after(&self, step: Step) -> Self {
        let mut scene = self.clone();
        let Self { world, controllers, left } = &mut scene;
        match step {
            Step::Acts(index) => scene.act(index),
            Step::Crashes(index) => {
                left.crashes -= 1;
                controllers[index] = Controller::Rests;
            }
            Step::PodIsMade => world.make_run_pods(),
            Step::RunStarts => {
                world.run_starts();
                let running = world.run_pods.iter().filter(|pod| runs(pod)).count();
                assert!(running <= 1, "S1: {running} containers run at once");
            }
            Step::RunEnds(code) => drop(world.run_ends(code, "output")),
            Step::TerminatingPodIsGone => world.run_pods.retain(|pod| !pod.terminating),
            Step::TimePasses => left.pauses -= 1,
            Step::NewImage => {
                left.images -= 1;
                world.pods.clear();
                world.roll_out("web", "shop:b");
            }
            Step::JobIsDeleted => {
                left.deletions -= 1;
                let newest = world.jobs.last().unwrap().uid.clone();
                world.job_vanishes(&newest);
            }
            Step::RunIsRequested => {
                left.requests -= 1;
                world.requests.run = Some("again".to_owned());
            }
            Step::ImageIsMarked => {
                left.marks -= 1;
                world.requests.done = Some("shop:a".to_owned());
            }
        }
        // Only what happens tells scenes apart, not when.
        scene.world.clock = self.world.clock + if matches!(step, Step::TimePasses) { 400 } else { 0 };
        scene
    }

    /// The order of reads is that of the controller: `gather::Gatherer::read_again`.
    fn act(&mut self, index: usize) {
        let world = &mut self.world;
        let now = Timestamp::from_second(world.clock).unwrap();
        let controller = std::mem::replace(&mut self.controllers[index], Controller::Rests);
        self.controllers[index] = match controller {
            Controller::Rests => Controller::ReadMigrator(world.version, Box::new(world.snapshot())),
            Controller::ReadMigrator(version, mut view) => {
                view.jobs = world.snapshot().jobs;
                Controller::ReadJobs(version, view)
            }
            Controller::ReadJobs(version, mut view) => {
                let listed = world.snapshot().run_pods;
                let gone = view.run_pods.iter().filter(|it| listed.iter().all(|pod| pod.uid != it.uid));
                let gone: Vec<_> = gone.map(|pod| PodFacts { gone: true, ..pod.clone() }).collect();
                view.run_pods = listed.into_iter().chain(gone).collect();
                let plan = decide(validate(&world.spec).as_ref(), &view, now);
                if plan.acts() { Controller::Decided(version, plan) } else { Controller::Rests }
            }
            Controller::Decided(version, plan) => match world.carry_out(version, plan, 1) {
                Some(plan) if plan.acts() => Controller::Decided(version, plan),
                _ => Controller::Rests,
            },
        };
    }

    /// Scenes with the same are one, whichever of the two controllers is which.
    fn fingerprint(&self) -> u64 {
        let mut controllers = self.controllers.each_ref().map(|controller| match controller {
            Controller::Rests => String::new(),
            Controller::ReadMigrator(version, view) => format!("1 {version} {}", facts(view)),
            Controller::ReadJobs(version, view) => format!("2 {version} {}", facts(view)),
            Controller::Decided(version, plan) => format!("3 {version} {plan:?}"),
        });
        controllers.sort();
        hash(&(world_facts(&self.world), format!("{:?}", self.left), controllers))
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What of a view changes in these scenes.
fn facts(view: &Snapshot) -> String {
    let Snapshot { status, jobs, run_pods, pods, requests, .. } = view;
    let pods: Vec<_> = pods.iter().map(|pod| &pod.name).collect();
    format!("{status:?} {jobs:?} {run_pods:?} {pods:?} {requests:?}")
}

fn world_facts(world: &World) -> String {
    format!("{} {} {:?}", facts(&world.snapshot()), world.clock, world.succeeded)
}

/// How a scene was come to: the index of the one before, and the step from there. Told when an
/// assertion ends the test.
struct Trail {
    steps: Vec<(usize, Step)>,
    at: usize,
}

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let before = |at: &usize| (*at != 0).then(|| self.steps[*at].0);
            let back: Vec<_> = std::iter::successors(Some(self.at), before).filter(|at| *at != 0).collect();
            let steps: Vec<_> = back.iter().rev().map(|at| self.steps[*at].1).collect();
            eprintln!("after {steps:?}");
        }
    }
}

/// S2 and S5, from one scene to the next.
fn the_record_is_kept_and_true(before: &World, after: &World) {
    for done in &before.status.done {
        assert!(after.done().contains(&done.key.as_str()), "S5: the record of {} is lost", done.key);
    }
    for done in after.status.done.iter().filter(|done| done.how == How::Succeeded) {
        assert!(after.succeeded.contains(&done.key), "S2: {} has never succeeded", done.key);
    }
}

/// L1: left alone with one controller, every run succeeds, and what waits is released or says why not.
fn comes_to_rest(mut world: World) {
    for _ in 0..6 {
        world.wait(400).settle();
        world.make_run_pods();
        world.run_starts().settle().run_ends(0, "");
        world.run_pods.retain(|pod| !pod.terminating);
    }
    world.wait(400).settle();
    assert_eq!(world.run_pods.iter().filter(|pod| pod.unfinished()).count(), 0, "L1: a Pod is left");
    assert_eq!(world.status.current, None, "L1: a run is left");
    let released = |pod: &PodFacts| world.done().contains(&pod.containers[0].image.as_str());
    let told = ["MigrationFailed", "ResultUnknown"].contains(&world.reason().as_str());
    assert!(told || world.pods.iter().all(released), "L1: {:?}", world.status);
}

#[rstest]
#[case::of_one_migration(Left::default())]
#[case::with_a_crash(Left { crashes: 1, ..Left::default() })]
#[case::with_a_second_attempt(Left { pauses: 1, ..Left::default() })]
#[case::with_a_new_image(Left { images: 1, ..Left::default() })]
#[case::with_a_deleted_job(Left { deletions: 1, ..Left::default() })]
#[case::with_a_request(Left { requests: 1, ..Left::default() })]
#[case::with_a_mark(Left { marks: 1, ..Left::default() })]
fn no_order_breaks_an_invariant(#[case] left: Left) {
    let first = Scene::new(left);
    let mut seen = HashSet::from([first.fingerprint()]);
    let mut worlds = HashSet::new();
    let mut trail = Trail { steps: vec![(0, Step::Acts(0))], at: 0 };
    let mut next = VecDeque::from([(first, 0)]);
    while let Some((scene, from)) = next.pop_front() {
        for step in STEPS.into_iter().filter(|step| scene.can(*step)) {
            trail.at = trail.steps.len();
            trail.steps.push((from, step));
            let after = scene.after(step);
            if !seen.insert(after.fingerprint()) {
                trail.steps.pop();
                continue;
            }
            the_record_is_kept_and_true(&scene.world, &after.world);
            if worlds.insert(hash(&world_facts(&after.world))) {
                comes_to_rest(after.world.clone());
            }
            next.push_back((after, trail.at));
        }
    }
    assert!(seen.len() > 400, "only {} scenes: the controllers don't get far", seen.len());
}
