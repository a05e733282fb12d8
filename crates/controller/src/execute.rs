//! Carries out a plan: the status first, then the effects in order, up to the first that fails and that
//! the others can't do without. The only writer of what plans speak of. That someone else was faster is an
//! outcome, not an error.

use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client, Resource, ResourceExt};
use migrations_api::{Migrator, MigratorStatus, names};
use migrations_core::plan::{Effect, Plan};
use migrations_process::telemetry::causes;
use serde_json::json;

use crate::locks::Locks;
use crate::metrics::Metrics;
use crate::watch::slim::{SlimJob, SlimPod};

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Done,
    /// Something had changed since it was read; nothing was done. Time to look again.
    Outdated,
    /// The status is written, then something had changed; the rest was left undone. Time to look
    /// again.
    Interrupted,
    /// The API server refuses the run's Job or its start, with what it says.
    JobRefused(String),
}

/// A plan that could not be carried out for now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status was not written.
    #[error("cannot write the Migrator's status")]
    Status(#[source] kube::Error),
    /// The Job was not created.
    #[error("cannot create Job {0}")]
    Create(String, #[source] kube::Error),
    /// The Job was not started.
    #[error("cannot start Job {0}")]
    Start(String, #[source] kube::Error),
    /// The Job was not deleted.
    #[error("cannot delete Job {0}")]
    Delete(String, #[source] kube::Error),
    /// A Pod was not ended or deleted.
    #[error("cannot end Pod {0}")]
    Pod(String, #[source] kube::Error),
    /// A lock was not taken or given back.
    #[error("cannot change lease {0}")]
    Lock(String, #[source] kube::Error),
    /// An object of ours has no JSON form.
    #[error("cannot encode the object")]
    Encode(#[from] serde_json::Error),
}

/// Carries out plans.
pub struct Executor {
    /// For all writes.
    pub client: Client,
    /// Takes and gives back locks.
    pub locks: Locks,
    /// Counts runs once they are recorded.
    pub metrics: Metrics,
}

impl Executor {
    /// Carries out `plan`, made for `migrator` as read.
    pub async fn execute(&self, migrator: &Migrator, plan: &Plan) -> Result<Outcome, Error> {
        if let Some(status) = &plan.status
            && !self.write_status(migrator, status).await?
        {
            return Ok(Outcome::Outdated);
        }
        let mut undone = None;
        let outcome = match self.carry_out_all(migrator, &plan.effects, &mut undone).await {
            Ok(Outcome::Outdated) if plan.status.is_some() => Ok(Outcome::Interrupted),
            outcome => outcome,
        };
        match (outcome, undone) {
            (Ok(Outcome::Done), Some(error)) => Err(error),
            (outcome, None) => outcome,
            // The next plan asks for it again, but what ended this one is told, and this isn't.
            (outcome, Some(error)) => {
                tracing::warn!(error = causes(&error), "a part of the plan is left undone; trying again");
                outcome
            }
        }
    }

    /// Up to the first that fails. An effect that the others can do without is left `undone` where it does;
    /// the first of them says why.
    async fn carry_out_all(
        &self,
        migrator: &Migrator,
        effects: &[Effect],
        undone: &mut Option<Error>,
    ) -> Result<Outcome, Error> {
        for effect in effects {
            match self.carry_out(migrator, effect).await {
                Ok(Outcome::Done) => {}
                Err(error) if effect.is_best_effort() => drop(undone.get_or_insert(error)),
                ended => return ended,
            }
        }
        Ok(Outcome::Done)
    }

    /// Whether it was still as read: of two writers one is told to look again.
    async fn write_status(&self, migrator: &Migrator, status: &MigratorStatus) -> Result<bool, Error> {
        let mut written = migrator.clone();
        written.status = Some(status.clone());
        written.meta_mut().managed_fields = None;
        let namespace = migrator.namespace().unwrap_or_default();
        let api = Api::<Migrator>::namespaced(self.client.clone(), &namespace);
        let parameters =
            PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.replace_status(&migrator.name_any(), &parameters, &written).await {
            Ok(_) => {
                self.metrics.recorded(migrator, status);
                Ok(true)
            }
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(false),
            Err(error) => Err(Error::Status(error)),
        }
    }

    async fn carry_out(&self, migrator: &Migrator, effect: &Effect) -> Result<Outcome, Error> {
        let namespace = migrator.namespace().unwrap_or_default();
        let jobs = || Api::<SlimJob>::namespaced(self.client.clone(), &namespace);
        let pods = || Api::<SlimPod>::namespaced(self.client.clone(), &namespace);
        match effect {
            Effect::CreateJob(job) => {
                create(&self.client, &namespace, serde_json::from_value((**job).clone())?).await
            }
            Effect::StartJob { name, uid, resource_version } => {
                start(&jobs(), name, uid, resource_version).await
            }
            Effect::DeleteJob { name, uid, resource_version } => {
                delete(&jobs(), name, uid, resource_version.as_ref())
                    .await
                    .map_err(|error| Error::Delete(name.clone(), error))
            }
            Effect::EndPod { name, uid } => end(&pods(), name, uid).await,
            Effect::DeletePod { name, uid } => {
                delete(&pods(), name, uid, None).await.map_err(|error| Error::Pod(name.clone(), error))
            }
            Effect::TakeLock { lease, found } => {
                done_unless_outdated(self.locks.take(lease, found.as_ref(), migrator).await)
                    .map_err(|error| Error::Lock(lease.clone(), error))
            }
            Effect::ReleaseLock { lease, found } => {
                done_unless_outdated(self.locks.release(lease, found).await)
                    .map_err(|error| Error::Lock(lease.clone(), error))
            }
        }
    }
}

/// Created from raw JSON: the typed Job of this build may lack fields that the template has.
async fn create(client: &Client, namespace: &str, job: DynamicObject) -> Result<Outcome, Error> {
    let resource = kube::api::ApiResource::erase::<Job>(&());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let parameters =
        PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &job).await {
        Ok(_) => Ok(Outcome::Done),
        // Perhaps of our own making: the client repeats a POST whose answer was lost.
        Err(error) if code(&error) == Some(409) => Ok(Outcome::Outdated),
        Err(kube::Error::Api(status)) if refuses(&status) => Ok(Outcome::JobRefused(status.message.clone())),
        Err(error) => Err(Error::Create(job.name_any(), error)),
    }
}

/// Whether an answer says something about the Job, which its Migrator shows; else it is about the API server
/// or about us, and is logged. An admission webhook that can't be reached, or answers nonsense, is an
/// internal error, and one that denies chooses its code.
fn refuses(answer: &Status) -> bool {
    match answer.code {
        401 | 408 | 409 | 429 => false,
        400..=499 => true,
        _ => answer.message.contains("webhook"),
    }
}

async fn start(jobs: &Api<SlimJob>, name: &str, uid: &str, resource_version: &str) -> Result<Outcome, Error> {
    let patch = json!({
        "metadata": { "uid": uid, "resourceVersion": resource_version },
        "spec": { "suspend": false },
    });
    let parameters =
        PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match jobs.patch(name, &parameters, &Patch::Merge(patch)).await {
        Ok(_) => Ok(Outcome::Done),
        // A wrong uid is answered with 422, a wrong version with 409.
        Err(error) if matches!(code(&error), Some(404 | 409 | 422)) => Ok(Outcome::Outdated),
        Err(kube::Error::Api(status)) if refuses(&status) => Ok(Outcome::JobRefused(status.message.clone())),
        Err(error) => Err(Error::Start(name.to_owned(), error)),
    }
}

/// With its dependents, in the background.
async fn delete<K>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    resource_version: Option<&String>,
) -> Result<Outcome, kube::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut parameters = DeleteParams::background();
    let resource_version = resource_version.cloned();
    parameters.preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version });
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if matches!(code(&error), Some(404 | 409 | 422)) => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

/// A Pod whose time is up is ended by its kubelet, and its logs stay.
async fn end(pods: &Api<SlimPod>, name: &str, uid: &str) -> Result<Outcome, Error> {
    let patch = json!({ "metadata": { "uid": uid }, "spec": { "activeDeadlineSeconds": 1 } });
    let parameters =
        PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match pods.patch(name, &parameters, &Patch::Merge(patch)).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if matches!(code(&error), Some(404 | 409 | 422)) => Ok(Outcome::Done),
        Err(error) => Err(Error::Pod(name.to_owned(), error)),
    }
}

fn done_unless_outdated(result: Result<(), kube::Error>) -> Result<Outcome, kube::Error> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(error) if matches!(code(&error), Some(404 | 409 | 422)) => Ok(Outcome::Outdated),
        Err(error) => Err(error),
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
