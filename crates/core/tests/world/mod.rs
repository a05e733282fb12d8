//! A cluster small enough to reason about: one Migrator, its workloads, and a Job controller and
//! kubelet that act when told. Plans are carried out as the API server would, up to a crash where a
//! test wants one.

// Each test program uses its part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use migrations_api::conditions::READY;
use migrations_api::{DoneKey, How, MigratorSpec, MigratorStatus, names};
use migrations_core::decide::decide;
use migrations_core::plan::{Effect, Plan};
use migrations_core::snapshot::{
    Admitted, ClaimFacts, ContainerFacts, ContainerState, Gate, JobFacts, JobOutcome, LockFacts, LockHolder,
    OwnerRef, Owners, PodFacts, PodRefused, Policy, Requests, Snapshot, Termination,
};
use migrations_core::validate::validate;
use migrations_protocol::Container;
use serde_json::{Value, json};

/// Name of the Pod of a run that isn't this Migrator's.
const FOREIGN: &str = "foreign";

/// How many earlier views are kept.
const VIEWS: usize = 12;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) spec: MigratorSpec,
    pub(crate) status: MigratorStatus,
    pub(crate) pods: Vec<PodFacts>,
    pub(crate) owners: Owners,
    pub(crate) jobs: Vec<JobFacts>,
    pub(crate) run_pods: Vec<PodFacts>,
    pub(crate) gate: Gate,
    pub(crate) refused: Option<String>,
    pub(crate) pod_refused: Option<PodRefused>,
    pub(crate) requests: Requests,
    pub(crate) claims: BTreeMap<String, ClaimFacts>,
    pub(crate) locks: Vec<LockFacts>,
    pub(crate) policy: Policy,
    /// Jobs as they were created, by name.
    pub(crate) rendered: BTreeMap<String, Value>,
    /// Every start, in order: the key that it was of.
    pub(crate) started: Vec<String>,
    /// Keys of which a run has succeeded.
    pub(crate) succeeded: BTreeSet<String>,
    /// How often the status was written: its version.
    pub(crate) version: u64,
    /// Whether Pods come and go in steps of their own after a Job's start and deletion.
    pub(crate) in_small_steps: bool,
    /// How many Jobs were created: what tells their uids apart.
    created: u64,
    /// What could be read at earlier times, the latest last.
    views: Vec<(u64, Snapshot)>,
    /// What a controller is about to do that was held up in the middle of a plan.
    held_up: Option<(u64, Plan)>,
    pub(crate) clock: i64,
}

impl World {
    /// A Migrator for Pods labelled `app: shop`, its gate in place, nothing else.
    pub(crate) fn new() -> Self {
        let spec = json!({
            "selector": { "matchLabels": { "app": "shop" } },
            "command": ["python", "manage.py", "migrate"],
            // Tests of attempts say how many they want.
            "backoffLimit": 0,
        });
        Self {
            spec: serde_json::from_value(spec).unwrap(),
            status: MigratorStatus::default(),
            pods: Vec::new(),
            owners: Owners::new(),
            jobs: Vec::new(),
            run_pods: Vec::new(),
            gate: Gate::InPlace,
            refused: None,
            pod_refused: None,
            requests: Requests::default(),
            claims: BTreeMap::new(),
            locks: Vec::new(),
            policy: Policy::default(),
            rendered: BTreeMap::new(),
            started: Vec::new(),
            succeeded: BTreeSet::new(),
            version: 0,
            in_small_steps: false,
            created: 0,
            views: Vec::new(),
            held_up: None,
            clock: 1_000_000_000,
        }
    }

    /// A shop at v1, migrated and serving.
    pub(crate) fn at_v1() -> Self {
        let mut world = Self::new();
        world.roll_out("web", "shop:v1").migrate().release().settle();
        world
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, seconds: i64) -> &mut Self {
        self.clock += seconds;
        self
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::from_second(self.clock).unwrap()
    }

    /// Sets a Deployment's template to `image`. Pods come by [`World::pod`].
    pub(crate) fn deploy(&mut self, deployment: &str, image: &str) -> &mut Self {
        self.owners.insert(
            owner("apps/v1", "Deployment", deployment),
            Some(json!({ "metadata": {}, "spec": { "template": template(deployment, image, None) } })),
        );
        let replica_set = format!("{deployment}-{}", hash(image));
        self.owners.insert(
            owner("apps/v1", "ReplicaSet", &replica_set),
            Some(json!({
                "metadata": { "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment,
                    "uid": format!("uid-{deployment}"), "controller": true,
                }]},
                "spec": { "template": template(deployment, image, Some(&hash(image))) },
            })),
        );
        self
    }

    /// Whether a Deployment has had that image.
    pub(crate) fn has_revision(&self, deployment: &str, image: &str) -> bool {
        let replica_set = format!("{deployment}-{}", hash(image));
        self.owners.contains_key(&owner("apps/v1", "ReplicaSet", &replica_set))
    }

    /// A held Pod of a Deployment's revision with that image.
    pub(crate) fn pod(&mut self, deployment: &str, image: &str) -> &mut PodFacts {
        let created = self.now();
        let name = format!("{deployment}-{}-{}", hash(image), self.clock);
        let replica_set = format!("{deployment}-{}", hash(image));
        let revision = format!("uid-{replica_set}/{}", hash(image));
        self.pods.push(PodFacts {
            uid: format!("uid-{name}"),
            name,
            labels: BTreeMap::from([
                ("app".to_owned(), "shop".to_owned()),
                ("pod-template-hash".to_owned(), hash(image)),
            ]),
            owner: Some(owner("apps/v1", "ReplicaSet", &replica_set)),
            created: Some(created),
            terminating: false,
            phase: "Pending".to_owned(),
            containers: vec![waiting("app", image)],
            init_containers: vec![waiting("migrate-wait-shop", "waiter")],
            admitted: Some(admitted(image, Some(revision))),
            ..PodFacts::default()
        });
        self.pods.last_mut().unwrap()
    }

    /// Rolls out an image and shows its first Pod.
    pub(crate) fn roll_out(&mut self, deployment: &str, image: &str) -> &mut Self {
        self.deploy(deployment, image);
        self.pod(deployment, image);
        self
    }

    /// Sets a StatefulSet's template to `image`; its earlier ones are kept as the controller does.
    pub(crate) fn deploy_stateful(&mut self, set: &str, image: &str) -> &mut Self {
        let revision = format!("{set}-{}", hash(image));
        self.owners.insert(
            owner("apps/v1", "StatefulSet", set),
            Some(json!({
                "metadata": { "generation": 1 },
                "spec": { "template": template(set, image, None) },
                "status": { "observedGeneration": 1, "updateRevision": revision },
            })),
        );
        let kept = OwnerRef { uid: None, ..owner("apps/v1", "ControllerRevision", &revision) };
        let template = template(set, image, None);
        self.owners.insert(kept, Some(json!({ "data": { "spec": { "template": template } } })));
        self
    }

    /// A held Pod of a StatefulSet's revision with that image.
    pub(crate) fn stateful_pod(&mut self, set: &str, ordinal: u32, image: &str) -> &mut PodFacts {
        let name = format!("{set}-{ordinal}");
        self.pods.retain(|pod| pod.name != name);
        let revision = format!("{set}-{}", hash(image));
        let uid = format!("uid-{name}-{}", self.clock);
        let pod = self.pod(set, image);
        pod.name = name;
        pod.uid = uid;
        pod.owner = Some(owner("apps/v1", "StatefulSet", set));
        pod.admitted = Some(admitted(image, Some(format!("uid-{set}/{revision}"))));
        pod.labels.remove("pod-template-hash");
        pod.labels.insert("controller-revision-hash".to_owned(), revision);
        pod
    }

    /// Starts the application of every Pod whose image is done.
    pub(crate) fn release(&mut self) -> &mut Self {
        for pod in &mut self.pods {
            if self.status.done.iter().any(|done| done.key == pod.containers[0].image) {
                serve(pod);
            }
        }
        self
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            namespace: "default".to_owned(),
            name: "shop".to_owned(),
            uid: "uid-shop".to_owned(),
            generation: Some(1),
            status: self.status.clone(),
            pods: self.pods.clone(),
            owners: self.owners.clone(),
            jobs: self.jobs.clone(),
            run_pods: self.run_pods.clone(),
            gate: self.gate.clone(),
            create_refused: self.refused.clone(),
            pod_refused: self.pod_refused.clone(),
            claims: self.claims.clone(),
            requests: self.requests.clone(),
            locks: self.locks.clone(),
            policy: self.policy.clone(),
        }
    }

    pub(crate) fn decide(&mut self) -> Plan {
        let now = self.now();
        decide(validate(&self.spec).as_ref(), &self.snapshot(), now)
    }

    /// Decides and carries out the first `steps` of the plan; the status is the first step.
    pub(crate) fn look_and_crash_after(&mut self, steps: usize) -> Plan {
        let plan = self.decide();
        self.carry_out(self.version, plan.clone(), steps);
        plan
    }

    /// As another controller that hasn't seen yet what is newer than `age` views.
    pub(crate) fn look_at_an_old_view(&mut self, age: usize) {
        let now = self.now();
        let Some(index) = self.views.len().checked_sub(age + 1) else { return };
        let (version, view) = self.views[index].clone();
        let plan = decide(validate(&self.spec).as_ref(), &view, now);
        self.carry_out(version, plan, usize::MAX);
    }

    /// As another controller that is held up after `steps` of its plan.
    pub(crate) fn look_and_be_held_up_after(&mut self, steps: usize) {
        let plan = self.decide();
        let left = self.carry_out(self.version, plan, steps);
        self.held_up = left.map(|left| (self.version, left));
    }

    /// That controller goes on.
    pub(crate) fn go_on(&mut self) {
        if let Some((version, plan)) = self.held_up.take() {
            self.carry_out(version, plan, usize::MAX);
        }
    }

    /// What can be read now, for [`Self::look_at_an_old_view`].
    pub(crate) fn remember(&mut self) {
        let view = self.snapshot();
        self.views.push((self.version, view));
        if self.views.len() > VIEWS {
            self.views.remove(0);
        }
    }

    /// No controller has a view that is older than this.
    pub(crate) fn forget(&mut self) {
        self.views.clear();
        self.held_up = None;
    }

    /// Carries out a plan that was made of a status of that version, as the controller does: up to the
    /// first write whose precondition doesn't hold. What is left of it after so many steps.
    pub(crate) fn carry_out(&mut self, version: u64, mut plan: Plan, steps: usize) -> Option<Plan> {
        let mut left = steps;
        if plan.status.is_some() {
            if left == 0 {
                return Some(plan);
            }
            if version != self.version {
                return None;
            }
            self.status = *plan.status.take()?;
            self.version += 1;
            left -= 1;
        }
        while !plan.effects.is_empty() {
            if left == 0 {
                return Some(plan);
            }
            if !self.apply(&plan.effects.remove(0)) {
                return None;
            }
            left -= 1;
        }
        None
    }

    pub(crate) fn look(&mut self) -> Plan {
        self.look_and_crash_after(usize::MAX)
    }

    /// Looks until nothing changes.
    pub(crate) fn settle(&mut self) -> &mut Self {
        for _ in 0..20 {
            if !self.look().acts() {
                return self;
            }
        }
        panic!("never comes to rest: {:?}", self.decide());
    }

    /// Whether its precondition held.
    fn apply(&mut self, effect: &Effect) -> bool {
        match effect {
            Effect::CreateJob(job) => {
                let name = job["metadata"]["name"].as_str().unwrap().to_owned();
                if self.jobs.iter().any(|job| job.name == name) {
                    return false;
                }
                self.clock += 1;
                self.created += 1;
                let annotation = |key: &str| job["metadata"]["annotations"][key].as_str().map(str::to_owned);
                self.jobs.push(JobFacts {
                    uid: format!("uid-{name}-{}", self.created),
                    resource_version: "1".to_owned(),
                    owner_uid: Some("uid-shop".to_owned()),
                    run_of: job["metadata"]["labels"][names::RUN_LABEL].as_str().map(str::to_owned),
                    key: annotation(names::KEY_ANNOTATION),
                    attempt: annotation(names::ATTEMPT_ANNOTATION),
                    run_hash: annotation(names::RUN_HASH_ANNOTATION),
                    suspended: job["spec"]["suspend"] == json!(true),
                    terminating: false,
                    outcome: None,
                    created: Some(Timestamp::from_second(self.clock).unwrap()),
                    name: name.clone(),
                });
                self.rendered.insert(name, (**job).clone());
            }
            Effect::StartJob { name, uid, resource_version } => {
                let as_read = |job: &JobFacts| {
                    job.name == *name && job.uid == *uid && job.resource_version == *resource_version
                };
                if !self.jobs.iter().any(as_read) {
                    return false;
                }
                let others = self.run_pods.iter().filter(|pod| pod.unfinished()).count();
                assert_eq!(others, 0, "S1: started beside an unfinished Pod");
                let let_go = |job: &&JobFacts| !job.suspended && job.outcome.is_none();
                assert_eq!(self.jobs.iter().filter(let_go).count(), 0, "S1: started beside another Job");
                let bound = self.status.current.as_ref().and_then(|run| run.job_uid.clone());
                assert_eq!(bound.as_ref(), Some(uid), "started unbound");
                if let Some(job) = self.jobs.iter_mut().find(|job| job.name == *name && job.uid == *uid) {
                    let done = |done: &&DoneKey| Some(&done.key) == job.key.as_ref();
                    // A mark that comes once the Job is bound comes while the run is under way.
                    let counts = |done: &&DoneKey| done.how == How::Succeeded || !self.in_small_steps;
                    let again =
                        self.status.done.iter().filter(counts).find(done).is_some_and(|done| !done.rerun);
                    assert!(!again, "S3: started again after its success");
                    if let Some(lock) = &self.spec.lock {
                        let held = self.locks.iter().any(|held| held.holder.uid == "uid-shop");
                        assert!(held, "started without the lock {lock}");
                    }
                    job.suspended = false;
                    job.resource_version.push('+');
                    self.started.push(job.key.clone().unwrap());
                }
                if !self.in_small_steps {
                    self.make_run_pods();
                }
            }
            Effect::DeleteJob { name, uid, resource_version } => {
                let as_read = |job: &JobFacts| {
                    let same = resource_version.as_ref().is_none_or(|it| *it == job.resource_version);
                    job.name == *name && job.uid == *uid && same
                };
                if !self.jobs.iter().any(as_read) {
                    // That it is gone is an outcome.
                    return true;
                }
                let of_job = |pod: &&PodFacts| pod.owner.as_ref().and_then(|it| it.uid.as_ref()) == Some(uid);
                let runs = |pod: &PodFacts| matches!(pod.containers[0].state, ContainerState::Running(_));
                assert!(!self.run_pods.iter().filter(of_job).any(runs), "S4: ended a running migration");
                self.job_vanishes(&uid.clone());
            }
            Effect::EndPod { uid, .. } => {
                let Some(pod) = self.run_pods.iter_mut().find(|pod| pod.uid == *uid) else { return true };
                let ended = matches!(pod.containers[0].state, ContainerState::Terminated(_));
                assert!(ended, "S4: ended a running migration");
                pod.phase = "Failed".to_owned();
                let job = pod.owner.as_ref().and_then(|owner| owner.uid.clone());
                if let Some(job) = self.jobs.iter_mut().find(|it| Some(&it.uid) == job.as_ref()) {
                    let why = "Job has reached the specified backoff limit".to_owned();
                    job.outcome.get_or_insert(JobOutcome::Failed(why));
                }
            }
            Effect::DeletePod { uid, .. } => {
                let Some(index) = self.pods.iter().position(|pod| pod.uid == *uid) else { return true };
                let deleted = self.pods.remove(index);
                assert!(!deleted.application_started(), "deleted a Pod that serves");
            }
            Effect::TakeLock { lease, found } => {
                let before = self.locks.iter().position(|lock| lock.lease == *lease);
                assert_eq!(before.is_some(), found.is_some(), "the lease is not as it was found");
                if let Some(index) = before {
                    assert!(self.locks.remove(index).abandoned, "took a lock that is held");
                }
                self.locks.push(lock(lease, "uid-shop"));
            }
            Effect::ReleaseLock { lease, .. } => {
                let unfinished = self.run_pods.iter().any(PodFacts::unfinished);
                assert!(!unfinished, "gave a lock back beside an unfinished Pod");
                self.locks.retain(|lock| lock.lease != *lease);
            }
        }
        true
    }

    /// The Job controller makes the Pods of Jobs that were let go.
    pub(crate) fn make_run_pods(&mut self) {
        let made: Vec<_> = self.podless_jobs().map(run_pod).collect();
        self.run_pods.extend(made);
    }

    /// Whether it has any to make.
    pub(crate) fn has_run_pods_to_make(&self) -> bool {
        self.podless_jobs().next().is_some()
    }

    fn podless_jobs(&self) -> impl Iterator<Item = &JobFacts> {
        let has_pod = |job: &JobFacts| self.run_pods.iter().any(|pod| pod.belongs_to(&job.uid));
        self.jobs.iter().filter(move |job| !job.suspended && job.outcome.is_none() && !has_pod(job))
    }

    /// A Job is deleted, and with it its Pods: at once, or in steps of their own.
    pub(crate) fn job_vanishes(&mut self, uid: &str) {
        self.jobs.retain(|job| job.uid != *uid);
        if self.in_small_steps {
            for pod in self.run_pods.iter_mut().filter(|pod| pod.belongs_to(uid)) {
                pod.terminating = true;
            }
        } else {
            self.run_pods.retain(|pod| !pod.belongs_to(uid));
        }
    }

    /// The current run's container starts.
    pub(crate) fn run_starts(&mut self) -> &mut Self {
        let since = self.now();
        if let Some(pod) = self.run_pods.iter_mut().rfind(|pod| pod.unfinished() && pod.name != FOREIGN) {
            pod.phase = "Running".to_owned();
            pod.containers[0].state = ContainerState::Running(Some(since));
        }
        self
    }

    /// The current run's container ends, and with it Pod and Job.
    pub(crate) fn run_ends(&mut self, exit_code: i32, message: &str) -> &mut Self {
        let now = self.now();
        let Some(pod) = self.run_pods.iter_mut().rfind(|pod| pod.unfinished() && pod.name != FOREIGN) else {
            return self;
        };
        let (reason, message) = (String::new(), message.to_owned());
        let end = Termination { exit_code, reason, started: Some(now), finished: Some(now), message };
        pod.containers[0].state = ContainerState::Terminated(end);
        pod.phase = if exit_code == 0 { "Succeeded" } else { "Failed" }.to_owned();
        let uid = pod.owner.as_ref().and_then(|owner| owner.uid.clone()).unwrap();
        if exit_code == 0 {
            self.succeeded.insert(pod.containers[0].image.clone());
        }
        if let Some(job) = self.jobs.iter_mut().find(|job| job.uid == uid) {
            job.resource_version.push('+');
            job.outcome = Some(match exit_code {
                0 => JobOutcome::Complete,
                _ => JobOutcome::Failed("Job has reached the specified backoff limit".to_owned()),
            });
        }
        self
    }

    /// A Pod of the original's run, or of a deleted Migrator of this name, is at work.
    pub(crate) fn foreign_run(&mut self) -> &mut Self {
        self.foreign_run_ends();
        let mut pod = self.pod("web", "shop:v0").clone();
        self.pods.pop();
        pod.name = FOREIGN.to_owned();
        pod.phase = "Running".to_owned();
        pod.owner = Some(owner("batch/v1", "Job", "shop-migrations"));
        self.run_pods.push(pod);
        self
    }

    /// That Pod ends.
    pub(crate) fn foreign_run_ends(&mut self) -> &mut Self {
        self.run_pods.retain(|pod| pod.name != FOREIGN);
        self
    }

    /// A whole run of what is due, to its success.
    pub(crate) fn migrate(&mut self) -> &mut Self {
        self.settle().run_starts().settle().run_ends(0, "").settle()
    }

    /// Reason and message of the Ready condition.
    pub(crate) fn standing(&self) -> (String, String) {
        let ready = self.status.conditions.iter().find(|condition| condition.type_ == READY).unwrap();
        (ready.reason.clone(), ready.message.clone())
    }

    pub(crate) fn reason(&self) -> String {
        self.standing().0
    }

    /// Types of the conditions that are true.
    pub(crate) fn true_conditions(&self) -> Vec<&str> {
        let all = self.status.conditions.iter().filter(|condition| condition.status == "True");
        all.map(|condition| condition.type_.as_str()).collect()
    }

    pub(crate) fn done(&self) -> Vec<&str> {
        self.status.done.iter().map(|done| done.key.as_str()).collect()
    }
}

/// What admission wrote into a Pod's waiter.
pub(crate) fn admitted(image: &str, revision: Option<String>) -> Admitted {
    let app = Container { name: "app".to_owned(), image: image.to_owned() };
    Admitted { containers: vec![app], revision }
}

/// A lock as held by the Migrator with that uid.
pub(crate) fn lock(lease: &str, holder: &str) -> LockFacts {
    LockFacts {
        lease: lease.to_owned(),
        uid: format!("uid-{lease}"),
        resource_version: "1".to_owned(),
        holder: LockHolder {
            namespace: "elsewhere".to_owned(),
            name: "other".to_owned(),
            uid: holder.to_owned(),
        },
        abandoned: false,
    }
}

/// The application starts.
pub(crate) fn serve(pod: &mut PodFacts) {
    pod.phase = "Running".to_owned();
    pod.containers[0].state = ContainerState::Running(None);
}

pub(crate) fn owner(api_version: &str, kind: &str, name: &str) -> OwnerRef {
    OwnerRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: Some(format!("uid-{name}")),
    }
}

pub(crate) fn waiting(name: &str, image: &str) -> ContainerFacts {
    ContainerFacts {
        name: name.to_owned(),
        image: image.to_owned(),
        sidecar: false,
        state: ContainerState::Waiting(String::new()),
    }
}

pub(crate) fn hash(image: &str) -> String {
    names::short_hash(image.as_bytes())
}

pub(crate) fn template(app: &str, image: &str, pod_template_hash: Option<&str>) -> Value {
    let mut labels = json!({ "app": "shop", "component": app });
    if let Some(hash) = pod_template_hash {
        labels["pod-template-hash"] = json!(hash);
    }
    json!({
        "metadata": { "labels": labels },
        "spec": { "containers": [{ "name": "app", "image": image, "args": ["serve"] }] },
    })
}

/// The Pod that the Job controller makes.
pub(crate) fn run_pod(job: &JobFacts) -> PodFacts {
    let name = format!("{}-pod", job.name);
    PodFacts {
        uid: format!("uid-{name}"),
        name,
        labels: BTreeMap::from([("migrations".to_owned(), "shop".to_owned())]),
        owner: Some(OwnerRef { uid: Some(job.uid.clone()), ..owner("batch/v1", "Job", &job.name) }),
        created: None,
        terminating: false,
        phase: "Pending".to_owned(),
        containers: vec![waiting("migrations", job.key.as_deref().unwrap_or_default())],
        init_containers: Vec::new(),
        no_wait: true,
        ..PodFacts::default()
    }
}
