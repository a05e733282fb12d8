//! Asks the API server whether it reaches the webhook; what is asked and what the answer means is in
//! [`migrations_core::entries::probe`].

use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use migrations_core::entries::probe::{pod, verdict};

/// Pause after the first probe that failed, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How long to wait before another probe, after so many in a row have failed.
pub(super) fn pause(failed: u32) -> Duration {
    let (shortest, longest) = AGAIN;
    shortest.saturating_mul(1 << failed.min(10)).min(longest)
}

/// Whether the API server reaches the webhook; else what is to be done, or nothing where the entry
/// is not in use yet.
pub(super) async fn probe(client: &Client, namespace: &str) -> Result<(), Option<String>> {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    let pods = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let pod = serde_json::from_value(pod()).map_err(|error| Some(error.to_string()))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    match pods.create(&dry_run, &pod).await {
        Ok(_) => verdict(None, namespace),
        Err(kube::Error::Api(refusal)) => verdict(Some(&refusal.message), namespace),
        Err(error) => {
            Err(Some(format!("the API server can't be asked whether it reaches the webhook: {error}")))
        }
    }
}
