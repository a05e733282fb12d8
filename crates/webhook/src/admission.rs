//! Admission over HTTP: carries a review to `core::inject` and its verdict back. Malformed requests
//! get an HTTP error, which the API server shows to the user as it stands.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use kube::core::DynamicObject;
use kube::core::admission::{
    AdmissionRequest, AdmissionResponse, AdmissionReview, META_API_VERSION_V1, META_KIND, Operation,
};
use kube::core::response::StatusDetails;
use migrations_api::names;
use migrations_core::entries::Caller;
use migrations_core::entries::probe::REACHED;
use migrations_core::inject::{Verdict, decide, patch};
use migrations_process::serve::{BodyError, json, read_body, text};
use serde_json::Value;

use crate::settings::InForce;
use crate::view::View;

/// Largest review. A Pod may be 3 MiB (a limit of the API server), and its JSON may come twice.
const LIMIT: usize = 10 * 1024 * 1024;

/// The API server itself gives up after 5 s.
const BODY_TIME: Duration = Duration::from_secs(5);

/// How long a call waits for this replica to hear of the Migrators that it is about.
const PATIENCE: Duration = Duration::from_secs(3);

/// Admits Pods. Clones speak of the same view.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The Migrators.
    pub view: View,
    /// What is injected.
    pub settings: InForce,
}

/// A request that is no review.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error("its body is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("its body is not an AdmissionReview: {0}")]
    Review(#[source] serde_json::Error),
    #[error(
        "its body is a {kind:?} of {api_version:?}, and must be an AdmissionReview of admission.k8s.io/v1"
    )]
    Kind { kind: String, api_version: String },
    #[error("its field {0} is missing")]
    Missing(&'static str),
}

impl Admission {
    /// Answers one HTTP request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        if !path.strip_prefix(names::ADMIT_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            return text(StatusCode::NOT_FOUND, format!("admission reviews go to {}\n", names::ADMIT_PATH));
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "admission reviews come with POST\n");
        }
        let caller = Caller::of(path);
        let body = match read_body(request.into_body(), LIMIT, BODY_TIME).await {
            Ok(body) => body,
            Err(error) => return unreadable(&error),
        };
        let (uid, review) = read(&body);
        let response = match review {
            Ok((review, object)) => match self.not_now(&caller, &review).await {
                Some(response) => Ok(response),
                None => self.review(&review, object.as_ref()),
            },
            Err(error) => Err(error),
        };
        match response {
            Ok(response) => serde_json::to_vec(&response.into_review()).map_or_else(
                |error| {
                    text(StatusCode::INTERNAL_SERVER_ERROR, format!("no review can be written: {error}\n"))
                },
                json,
            ),
            Err(error) => {
                tracing::warn!(uid, %error, "a malformed request");
                text(StatusCode::BAD_REQUEST, format!("request {uid:?} can't be reviewed: {error}\n"))
            }
        }
    }

    /// An answer that doesn't depend on the Pod: to a probe, and while this replica hasn't heard of the
    /// Migrators that it is called for.
    async fn not_now(
        &self,
        caller: &Caller,
        request: &AdmissionRequest<DynamicObject>,
    ) -> Option<AdmissionResponse> {
        let mut response = AdmissionResponse::from(request);
        if *caller == Caller::Probe {
            response = response.deny(REACHED);
            response.result.code = StatusCode::FORBIDDEN.as_u16();
            return Some(response);
        }
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let behind = self.view.catch_up(namespace, caller.migrators(), PATIENCE).await.err()?;
        tracing::warn!(namespace, uid = behind.uid, "called for a Migrator that is not known here yet");
        response = response.deny(format!(
            "this replica of the webhook has not heard yet of the Migrator of namespace {namespace:?} with uid {}, \
             which may hold this Pod; what controls the Pod tries again by itself. If it goes on, the replica \
             can't follow Migrators: its log says why",
            behind.uid
        ));
        // With a time to wait, clients try again by themselves.
        response.result.code = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        "ServiceUnavailable".clone_into(&mut response.result.reason);
        response.result.details = Some(StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 1,
        });
        Some(response)
    }

    fn review(
        &self,
        request: &AdmissionRequest<DynamicObject>,
        object: Option<&Value>,
    ) -> Result<AdmissionResponse, Malformed> {
        let response = AdmissionResponse::from(request);
        if !creates_pod(request) {
            return Ok(response);
        }
        let namespace = request.namespace.as_deref().ok_or(Malformed::Missing("request.namespace"))?;
        let pod = object.ok_or(Malformed::Missing("request.object"))?;
        let gates = self.view.gates(namespace);
        let settings = self.settings.get();
        let name = pod["metadata"]["name"].as_str().or(pod["metadata"]["generateName"].as_str());
        match decide(pod, namespace, gates.iter().map(AsRef::as_ref), &settings) {
            Verdict::Untouched(reason) => {
                tracing::debug!(namespace, name, ?reason, "a Pod is left alone");
                Ok(response)
            }
            Verdict::Refuse { message } => {
                tracing::info!(namespace, name, "a Pod is refused: required, and no Migrator selects it");
                let mut response = response.deny(message);
                response.result.code = StatusCode::FORBIDDEN.as_u16();
                "Forbidden".clone_into(&mut response.result.reason);
                Ok(response)
            }
            Verdict::Inject(injection) => {
                tracing::info!(namespace, name, waiters = injection.containers.len(), "a Pod waits");
                let patch = patch(pod, &injection);
                if patch.is_empty() {
                    return Ok(response);
                }
                // Writing JSON of JSON can't fail; if it does, the Pod must not start unguarded.
                let denied = response.clone();
                Ok(response.with_patch(patch).unwrap_or_else(|error| denied.deny(error)))
            }
        }
    }
}

fn creates_pod(request: &AdmissionRequest<DynamicObject>) -> bool {
    let resource = &request.resource;
    request.operation == Operation::Create
        && request.sub_resource.as_deref().unwrap_or_default().is_empty()
        && (resource.group.as_str(), resource.resource.as_str()) == ("", "pods")
}

type Reviewed = (AdmissionRequest<DynamicObject>, Option<Value>);

/// The uid where it can be read, and the request with its object as raw JSON: fields that this
/// build doesn't know must not get lost, nor make it fail.
fn read(body: &[u8]) -> (String, Result<Reviewed, Malformed>) {
    let mut review: Value = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return (String::new(), Err(Malformed::Json(error))),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let uid = text(&review["request"]["uid"]);
    let (kind, api_version) = (text(&review["kind"]), text(&review["apiVersion"]));
    if (kind.as_str(), api_version.as_str()) != (META_KIND, META_API_VERSION_V1) {
        return (uid, Err(Malformed::Kind { kind, api_version }));
    }
    let object = review.pointer_mut("/request/object").map(Value::take).filter(|object| !object.is_null());
    let request = serde_json::from_value::<AdmissionReview<DynamicObject>>(review)
        .map_err(Malformed::Review)
        .and_then(|review| review.try_into().map_err(|_| Malformed::Missing("request")))
        .map(|request| (request, object));
    (uid, request)
}

fn unreadable(error: &BodyError) -> Response<Full<Bytes>> {
    tracing::warn!(%error, "a review can't be read");
    text(error.status(), format!("this review can't be read: {error}\n"))
}
