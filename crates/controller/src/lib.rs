//! The controller: the shell around `migrations-core` that watches, gathers, executes and reports.
//! It decides nothing by itself.

pub mod certificates;
pub mod config;
pub mod connect;
pub mod execute;
pub mod gate;
pub mod gather;
pub mod lease;
pub mod locks;
pub mod marks;
pub mod metrics;
pub mod reconcile;
pub mod report;
pub mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::{StreamExt, stream};
use kube::Client;
use kube::runtime::controller::{self, applier};
use migrations_core::certificates::Lifetimes;
use migrations_core::snapshot::Policy;
use migrations_process::probes::Part;
use migrations_process::shutdown::Shutdown;
use tokio::sync::watch as channel;

use crate::certificates::CertificateKeeper;
use crate::execute::Executor;
use crate::gate::{GateKeeper, Gates};
use crate::gather::{Gatherer, OwnerReader};
use crate::lease::Election;
use crate::locks::Locks;
use crate::marks::Marks;
use crate::metrics::Metrics;
use crate::reconcile::{Context, after_fault, reconcile};
use crate::report::Report;
use crate::watch::Queue;
use crate::watch::jobs::JobWatch;
use crate::watch::labels::RunLabels;
use crate::watch::locks::LockWatch;
use crate::watch::migrators::Concerned;
use crate::watch::pods::PodWatches;
use crate::watch::runs::RunWatch;

/// How many Migrators are looked at at once. Each look is a handful of requests; more would only
/// queue up at the API server.
const CONCURRENCY: u16 = 8;

/// What has to be in place before the controller is ready.
#[derive(Clone)]
pub struct Parts {
    /// The lease is read: this replica knows whether it leads.
    pub lease: Part,
    /// Migrators are listed.
    pub migrators: Part,
    /// Jobs are listed.
    pub jobs: Part,
    /// Webhook entries are in place.
    pub gate: Part,
}

/// Names of [`Parts`], in order, as readiness shows them.
pub const PARTS: [&str; 4] = ["lease read", "Migrators listed", "Jobs listed", "webhook entries in place"];

impl Parts {
    /// A replica that leads has everything in place; one that stands by needs to know only that.
    fn say(&self, stands_by: bool) {
        let Self { lease, migrators, jobs, gate } = self;
        lease.set(true);
        for part in [migrators, jobs, gate] {
            part.set(stands_by);
        }
    }
}

/// Runs until `shutdown` is requested: does the work while this replica is the leader, and waits
/// for that else. No other replica may ever have the same `identity`.
pub async fn run(
    client: Client,
    namespace: String,
    identity: String,
    policy: Policy,
    parts: Parts,
    metrics: Metrics,
    shutdown: Shutdown,
) {
    let election = Election::new(client.clone(), &namespace, identity);
    let work = || {
        parts.say(false);
        Box::pin(lead(client.clone(), namespace.clone(), policy.clone(), parts.clone(), metrics.clone()))
    };
    election.work(|| parts.say(true), work, &shutdown).await;
}

/// The leader's work. It goes on until it is dropped, whether the caller leads or not.
pub async fn lead(client: Client, namespace: String, policy: Policy, parts: Parts, metrics: Metrics) {
    let (queue, queued) = Queue::new();
    let (migrators, events) = watch::migrators::start(&client);
    let _leads = metrics.leads(migrators.clone());
    let (jobs, runs, labels) = (JobWatch::default(), RunWatch::default(), RunLabels::default());
    let pods = PodWatches::new(client.clone(), queue.clone(), runs.clone());
    let gates = Gates::default();
    let (publish, bundle) = channel::channel(None);

    let keeper = GateKeeper {
        client: client.clone(),
        namespace: namespace.clone(),
        migrators: migrators.clone(),
        bundle,
        gates: gates.clone(),
        queue: queue.clone(),
        in_place: parts.gate,
    };
    let concerned =
        Concerned { pods: pods.clone(), labels: labels.clone(), gates: gates.clone(), queue: queue.clone() };
    let follow_migrators = watch::migrators::follow(events, migrators.clone(), concerned, parts.migrators);
    let follow_jobs = jobs.clone().run(client.clone(), labels.clone(), queue.clone(), parts.jobs);
    let follow_runs = runs.run(client.clone(), labels, queue.clone());
    let locks = Locks::new(client.clone(), &namespace);
    let lock_watch = LockWatch::default();
    let follow_locks = lock_watch.clone().run(locks.api().clone(), migrators.clone(), policy.clone(), queue);
    let marks = Marks { client: client.clone(), pods: pods.clone() };
    let certificates = CertificateKeeper::new(
        client.clone(),
        &namespace,
        Lifetimes::default(),
        migrators.clone(),
        publish,
        metrics.clone(),
    );

    let context = Arc::new(Context {
        executor: Executor { client: client.clone(), locks: locks.clone(), metrics: metrics.clone() },
        gatherer: Gatherer {
            client: client.clone(),
            pods,
            jobs,
            owners: OwnerReader::new(client.clone()),
            migrators: migrators.clone(),
            locks,
            lock_watch,
            policy,
        },
        gates,
        report: Report::new(client),
        metrics,
        memory: Mutex::new(HashMap::new()),
    });
    let queue = stream::unfold(queued, |mut queued| async {
        queued.recv().await.map(|migrator| (Ok::<_, std::convert::Infallible>(migrator), queued))
    });
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let reconciled = applier(
        |migrator, context| Box::pin(reconcile(migrator, context)),
        after_fault,
        context,
        migrators.clone(),
        queue.boxed(),
        config,
    );
    let work = async {
        // Before the first list nothing is in the store: a look would take everything for gone.
        if migrators.wait_until_ready().await.is_ok() {
            // Faults are told where they are handled; a Migrator that is gone is none.
            reconciled.for_each(|_| std::future::ready(())).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = follow_migrators => {}
        () = follow_jobs => {}
        () = follow_locks => {}
        () = follow_runs => {}
        () = keeper.run() => {}
        () = marks.run() => {}
        () = certificates.run() => {}
    }
}
