//! Whether the API server reaches the webhook: asked with a Pod that is never created, before any
//! entry that could refuse a user's Pod is written (contract §7).

use migrations_api::names;
use serde_json::{Value, json};

use super::{Endpoint, Entry, WEBHOOK_PORT_NAME, probe_path, webhook};

/// What the webhook says to a probe. It refuses, so that no other admission has a say after it and
/// nothing can ever be created.
pub const REACHED: &str = "the API server reaches the webhook";

/// Name of the probe's entry.
fn name() -> String {
    format!("probe.{}", names::GROUP)
}

/// The entry that asks for probes and nothing else.
pub(super) fn entry(endpoint: &Endpoint) -> Entry {
    let namespaces = json!({ "matchLabels": { "kubernetes.io/metadata.name": endpoint.namespace } });
    let probes = json!({ "matchLabels": { (names::PROBE_LABEL): "true" } });
    let body = webhook(&name(), &probe_path(), endpoint, &namespaces, &probes, &[]);
    Entry { migrators: Vec::new(), body }
}

/// The Pod to create with `dryRun`. It asks for nothing that a namespace may forbid.
pub fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "probe-", "labels": { (names::PROBE_LABEL): "true" } },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "probe",
                "image": "probe",
                "resources": {
                    "requests": { "cpu": "10m", "memory": "16Mi" },
                    "limits": { "cpu": "10m", "memory": "16Mi" },
                },
                "securityContext": {
                    "runAsUser": 65532, "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

/// Whether the webhook answered, from the API server's refusal of the probe, if it refused: None if
/// the entry is not in use yet, else what is to be done.
pub fn verdict(refusal: Option<&str>, namespace: &str) -> Result<(), Option<String>> {
    let Some(refusal) = refusal else { return Err(None) };
    let answered = format!("admission webhook {:?} denied the request: {REACHED}", name());
    if refusal.contains(&answered) {
        return Ok(());
    }
    Err(Some(format!(
        "no Pod is held, because the API server can't reach the webhook: it must get through to port {} of \
         Service {} in namespace {namespace}, which is port {WEBHOOK_PORT_NAME:?} of the webhook's Pods ({} \
         as shipped). Open that port from the control plane to the nodes in firewalls and network policies; \
         where the control plane can't reach Pods at all, set hostNetwork on Deployment {} \
         (kustomize component manifests/host-network, or webhook.hostNetwork of the chart). The API server says: {refusal}",
        names::ADMISSION_PORT,
        names::WEBHOOK_SERVICE,
        names::ADMISSION_LISTEN_PORT,
        names::WEBHOOK_SERVICE,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const ANSWER: &str = "admission webhook \"probe.migrations.coderanger.net\" denied the request: \
                          the API server reaches the webhook";

    #[rstest]
    #[case::answered(Some(ANSWER), Ok(()))]
    #[case::entry_not_in_use_yet(None, Err(None))]
    fn an_answer_proves_the_way(#[case] refusal: Option<&str>, #[case] expected: Result<(), Option<String>>) {
        assert_eq!(verdict(refusal, "migrations-operator"), expected);
    }

    #[rstest]
    #[case::no_way("failed calling webhook \"probe.migrations.coderanger.net\": dial tcp: i/o timeout")]
    #[case::another_webhook("admission webhook \"quota.example\" denied the request: no")]
    #[case::another_answer("admission webhook \"probe.migrations.coderanger.net\" denied the request: x")]
    fn any_other_refusal_is_told_with_what_to_open(#[case] refusal: &str) {
        let told = verdict(Some(refusal), "migrations-operator").unwrap_err().unwrap();
        for part in [refusal, "port 443", "9443", "hostNetwork", "namespace migrations-operator"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
