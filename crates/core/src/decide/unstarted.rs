//! Why a run that was let go has not started, in the words of the scheduler, the kubelet or the Job
//! controller, and which field helps (contract §6).

use jiff::SignedDuration;
use migrations_api::CurrentRun;

use super::{Draft, LOOK_AGAIN};
use crate::snapshot::JobFacts;

/// How long a Job may be without a Pod before its controller's events are asked for the reason.
pub const ASK_AFTER: SignedDuration = SignedDuration::from_secs(3);

/// How long it may be without a Pod before that is told although nobody says why.
const TELL_AFTER: SignedDuration = SignedDuration::from_secs(15);

impl Draft<'_> {
    /// Why a run's container has not started, with the field that helps. `said` is what its Pod tells;
    /// nothing is returned while all is well.
    pub(super) fn why_not_started(&mut self, run: &CurrentRun, job: Option<&JobFacts>, said: &str) -> String {
        let podless = self.snapshot.podless_job(self.now, SignedDuration::ZERO);
        if !said.is_empty() || podless.is_none() || job != podless {
            return helped(said);
        }
        // An event of the Job is no event of ours: nothing else brings another look.
        self.look_again_in(LOOK_AGAIN);
        for pause in [ASK_AFTER, TELL_AFTER] {
            let at = run.started.0.saturating_add(pause).unwrap_or(self.now);
            if self.now < at {
                self.look_again_at(at);
            }
        }
        let refused = self.snapshot.pod_refused.as_ref();
        match refused.filter(|refused| Some(&refused.job_uid) == run.job_uid.as_ref()) {
            Some(refused) => {
                helped(&format!("the Job controller can't make its Pod: {}", words(&refused.message)))
            }
            None if self.snapshot.podless_job(self.now, TELL_AFTER).is_some() => format!(
                "it has no Pod yet; 'kubectl describe job {} -n {}' shows why",
                run.job, self.snapshot.namespace
            ),
            None => String::new(),
        }
    }
}

/// What the Job controller says in an event, without the name that it draws for each attempt: else the
/// same reason would be news again and again.
fn words(message: &str) -> String {
    let text = message.strip_prefix("(combined from similar events): ").unwrap_or(message);
    let text = text.strip_prefix("Error creating: ").unwrap_or(text);
    let named = text.strip_prefix("pods \"").or_else(|| text.strip_prefix("Pod \""));
    match named.and_then(|rest| rest.split_once("\" ")) {
        Some((_, rest)) => format!("it {rest}"),
        None => text.to_owned(),
    }
}

/// What helps where all of the words are in a refusal, in lower case. The first that fits is it.
const REFUSED: [(&[&str], &str); 17] = [
    (&["errimageneverpull"], IMAGE),
    (&["errimagepull"], IMAGE),
    (&["imagepullbackoff"], IMAGE),
    (&["invalidimagename"], IMAGE),
    (
        &["exceeded quota", "jobs.batch"],
        "raise the ResourceQuota, or lower spec.successfulJobsHistoryLimit and spec.failedJobsHistoryLimit of the \
         Migrator",
    ),
    (
        &["exceeded quota"],
        "lower spec.resources of the Migrator, or raise the ResourceQuota (waiting Pods count in it as well)",
    ),
    (&["failed quota", "must specify"], "set spec.resources of the Migrator"),
    (&["usage per "], "set spec.resources of the Migrator to what the LimitRange allows"),
    (&["limit to request ratio per "], "set spec.resources of the Migrator to what the LimitRange allows"),
    (
        &["serviceaccount", "not found"],
        "create that ServiceAccount, or name another in spec.serviceAccountName of the Migrator (without it, it is \
         the Pod template's)",
    ),
    (
        &["violates podsecurity"],
        "the run has the securityContext of the Pod template: make that fit the namespace's level",
    ),
    (&["priorityclass"], "change priorityClassName in the Pod template"),
    (&["runtimeclass"], "change runtimeClassName in the Pod template"),
    (
        &["failed calling webhook"],
        "repair that webhook's service, or have its configuration leave the namespace or the run alone",
    ),
    (
        &[" denied ", "request"],
        "spec.labels and spec.annotations of the Migrator are added to the run, if it lacks any",
    ),
    (&["labels: invalid value"], "correct spec.labels of the Migrator"),
    (&["annotations: invalid value"], "correct spec.annotations of the Migrator"),
];

const IMAGE: &str = "correct spec.image of the Migrator (without it, the image is the Pod template's), or add \
                     imagePullSecrets to the Pod template or the ServiceAccount";

/// What helps where a kubelet can't make a container.
const UNMADE: [(&str, &str); 2] = [
    (
        "createcontainerconfigerror",
        "correct spec.env and spec.envFrom of the Migrator, or what the Pod template names there",
    ),
    ("createcontainererror", "correct spec.command and spec.args of the Migrator, or the Pod template"),
];

/// What helps where the scheduler says so; it may say several things at once.
const UNSCHEDULED: [(&str, &str); 6] = [
    ("insufficient ", "lower spec.resources of the Migrator"),
    ("node affinity", "change nodeSelector and affinity in the Pod template"),
    ("untolerated taint", "change tolerations in the Pod template"),
    ("topology spread", "change topologySpreadConstraints in the Pod template"),
    ("affinity rules", "change affinity in the Pod template"),
    ("persistentvolumeclaim", "look at the claims that the Pod template's volumes name"),
];

/// Words of others with the field that helps, where one is known.
pub(super) fn helped(words: &str) -> String {
    let said = words.to_lowercase();
    let refused = REFUSED.iter().find(|(needles, _)| needles.iter().all(|it| said.contains(it)));
    let says = |(needle, _): &&(&str, &'static str)| said.contains(needle);
    let hints: Vec<_> = match refused {
        Some((_, hint)) => vec![*hint],
        None => UNMADE.iter().chain(&UNSCHEDULED).filter(says).map(|(_, hint)| *hint).collect(),
    };
    if hints.is_empty() { words.to_owned() } else { format!("{words}; {}", hints.join("; or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::quota(
        "pods \"x\" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=9, limited: requests.cpu=10",
        "spec.resources"
    )]
    #[case::quota_of_jobs(
        "jobs.batch \"x\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=2",
        "spec.failedJobsHistoryLimit"
    )]
    #[case::quota_of_what_is_not_set(
        "failed quota: q: must specify limits.cpu for: migrations",
        "set spec.resources"
    )]
    #[case::limit_range("maximum memory usage per Container is 1Gi, but limit is 2Gi", "LimitRange")]
    #[case::ratio("cpu max limit to request ratio per Container is 2, but provided ratio is 4", "LimitRange")]
    #[case::service_account(
        "error looking up service account shop/ddl: serviceaccount \"ddl\" not found",
        "spec.serviceAccountName"
    )]
    #[case::pod_security("violates PodSecurity \"restricted:latest\": privileged", "securityContext")]
    #[case::webhook(
        "admission webhook \"policy.example.com\" denied the request: no owner label",
        "spec.labels"
    )]
    #[case::webhook_that_is_down(
        "Internal error occurred: failed calling webhook \"policy.example.com\": failed to call webhook: denied",
        "repair that webhook"
    )]
    #[case::policy("ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no", "spec.labels")]
    #[case::priority("no PriorityClass with name urgent was found", "priorityClassName")]
    #[case::runtime("pod rejected: RuntimeClass \"gvisor\" not found", "runtimeClassName")]
    #[case::label("spec.template.labels: Invalid value: \"no!\": a valid label must", "correct spec.labels")]
    #[case::pull("container migrations of Pod x waits: ImagePullBackOff: not found", "imagePullSecrets")]
    #[case::pull_at_first(
        "container migrations of Pod x waits: ErrImagePull: pull access denied for a, it may require a login",
        "spec.image"
    )]
    #[case::secret("waits: CreateContainerConfigError: secret \"db\" not found", "spec.envFrom")]
    #[case::command("waits: CreateContainerError: no command specified", "spec.command")]
    #[case::cpu("0/3 nodes are available: 3 Insufficient cpu.", "spec.resources")]
    #[case::selector(
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        "nodeSelector"
    )]
    #[case::taint("1 node(s) had untolerated taint {gpu: true}", "tolerations")]
    #[case::spread("1 node(s) didn't match pod topology spread constraints", "topologySpreadConstraints")]
    #[case::anti_affinity("1 node(s) didn't match pod anti-affinity rules", "change affinity")]
    #[case::claim("persistentvolumeclaim \"data\" not found", "claims")]
    fn the_field_that_helps_is_named(#[case] words: &str, #[case] field: &str) {
        let told = helped(words);
        let hint = told.strip_prefix(words).unwrap_or_default();
        assert!(hint.starts_with("; ") && hint.contains(field), "{told}");
    }

    #[rstest]
    #[case::nobody_said_anything("")]
    #[case::unheard_of("the moon is in the wrong place")]
    fn what_nobody_knows_a_field_for_is_told_as_it_is(#[case] words: &str) {
        assert_eq!(helped(words), words);
    }

    #[test]
    fn all_that_the_scheduler_asks_for_is_named() {
        let told =
            helped("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}.");
        assert!(told.contains("spec.resources") && told.contains("tolerations"), "{told}");
    }

    #[rstest]
    #[case::drawn_name(
        "Error creating: pods \"shop-1-x2k4f\" is forbidden: exceeded quota: q",
        "it is forbidden: exceeded quota: q"
    )]
    #[case::combined(
        "(combined from similar events): Error creating: pods \"shop-1-9z\" is forbidden: no",
        "it is forbidden: no"
    )]
    #[case::invalid(
        "Error creating: Pod \"shop-1-x2k4f\" is invalid: spec.x: Required value",
        "it is invalid: spec.x: Required value"
    )]
    #[case::of_a_webhook(
        "Error creating: admission webhook \"a\" denied the request",
        "admission webhook \"a\" denied the request"
    )]
    fn the_job_controllers_words_are_the_same_at_each_attempt(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(words(message), expected);
    }
}
