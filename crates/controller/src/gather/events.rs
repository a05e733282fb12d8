//! Reads why the Job controller can't make a run's Pod: it tells that in events alone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use migrations_core::decide::ASK_AFTER;
use migrations_core::snapshot::{PodRefused, Snapshot};

use super::owners::unless_refused;
use super::{Error, Gatherer};

impl Gatherer {
    /// The Job controller's newest words about the Job of the current run, where that has been without a
    /// Pod for a moment. The API server searches the namespace's events for them, so this is asked for a
    /// run that is stuck alone. Without the right to read events there are no words.
    pub(super) async fn pod_refused(&self, snapshot: &Snapshot) -> Result<Option<PodRefused>, Error> {
        let Some(job) = snapshot.podless_job(Timestamp::now(), ASK_AFTER) else { return Ok(None) };
        let api = Api::<Event>::namespaced(self.client.clone(), &snapshot.namespace);
        let of_job = format!("involvedObject.uid={},reason=FailedCreate", job.uid);
        let listed = unless_refused(api.list(&ListParams::default().fields(&of_job)).await);
        let mut events = listed.map_err(Error::Events)?.map(|list| list.items).unwrap_or_default();
        events.sort_by_key(last_seen);
        let message = events.pop().and_then(|event| event.message);
        Ok(message.map(|message| PodRefused { job_uid: job.uid.clone(), message }))
    }
}

/// When it happened last; the older kind of event and the newer one say that in fields of their own.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let newer = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let newer = newer.or(event.event_time.as_ref()).map(|time| time.0);
    newer.max(event.last_timestamp.as_ref().map(|time| time.0))
}
