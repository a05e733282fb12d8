//! The runs of a shop's Migrator, whose kubelet is the test.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use migrations_api::conditions::READY;
use migrations_api::{MigratorStatus, RunResult, names};
use migrations_testkit::builders::deployment;

use super::shop::{Shop, image_of, live};

/// Reasons of a Migrator for which nothing is due. Where no configurations are shipped, its gate never
/// comes.
const AT_REST: [&str; 3] = ["Idle", "UpToDate", "GatePending"];

impl Shop {
    /// Waits for the Pod of the run of `image`, and has it run.
    pub(crate) async fn run_starts(&self, image: &str) -> String {
        let of_image = |pods: &[Pod]| {
            let run = |pod: &&Pod| self.is_run(pod) && live(pod) && image_of(pod) == Some(image);
            pods.iter().find(run).map(ResourceExt::name_any)
        };
        let name = self.namespace.until::<Pod, _>("the run's Pod", of_image).await;
        self.namespace.start_pod(&name).await;
        name
    }

    /// The run in that Pod ends.
    pub(crate) async fn run_ends(&self, pod: &str, exit_code: i32, message: &str) {
        self.namespace.end_container(pod, names::RUN_CONTAINER, exit_code, message).await;
    }

    /// Has the run of `image` start and succeed.
    pub(crate) async fn migrate(&self, image: &str) -> MigratorStatus {
        let run = self.run_starts(image).await;
        let current = self.until_status("a run", |status| status.current.is_some()).await.current;
        self.run_ends(&run, 0, "").await;
        self.until_status("its success", |status| {
            let newest =
                status.history.first().filter(|it| Some(&it.job) == current.as_ref().map(|it| &it.job));
            newest.is_some_and(|it| it.image == image && it.result == RunResult::Succeeded)
        })
        .await
    }

    /// The images of all runs so far, in order. Whatever was due by now has had its turn: a last image
    /// is migrated, and after that nothing is left to do.
    pub(crate) async fn all_runs(&self) -> Vec<String> {
        const LAST: &str = "last:v1";
        // Of a Deployment, since a bare Pod might be adopted by a workload of the test.
        let template = self.template(LAST).label("role", "web").label("last", "true");
        self.namespace.create(&deployment("last").template(&template)).await;
        self.migrate(LAST).await;
        let status = self
            .until_status("nothing to do", |status| {
                status.conditions.iter().any(|it| it.type_ == READY && AT_REST.contains(&it.reason.as_str()))
            })
            .await;
        self.delete::<Deployment>("last").await;
        let runs = status.history.into_iter().rev().map(|it| it.image);
        runs.filter(|image| image != LAST).collect()
    }

    /// How many Pods there are or were of runs.
    pub(crate) async fn runs(&self) -> usize {
        let pods: Api<Pod> = self.namespace.api();
        let pods = pods.list(&kube::api::ListParams::default()).await.expect("Pods");
        pods.iter().filter(|pod| self.is_run(pod)).count()
    }

    pub(crate) fn is_run(&self, pod: &Pod) -> bool {
        pod.labels().get(names::RUN_LABEL).is_some_and(|label| label == self.name)
    }
}
