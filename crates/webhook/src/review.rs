//! The `AdmissionReview` as it comes and goes: read in one pass, of which only what decides is
//! kept, and written without a copy. The object in it stays raw JSON, so that fields that this build
//! doesn't know neither get lost nor make it fail.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use migrations_core::inject::Patch;
use migrations_process::serve::{json, text};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json_borrow::Value;

const KIND: &str = "AdmissionReview";
const API_VERSION: &str = "admission.k8s.io/v1";

/// How many characters are repeated of what should be a kind.
const SHOWN: usize = 100;

/// What an API server asks.
pub(crate) struct Review<'a> {
    /// What the answer must repeat.
    pub(crate) uid: String,
    /// Whether it is about a new Pod; everything else is admitted as it is.
    pub(crate) creates_pod: bool,
    namespace: Option<String>,
    object: Option<Value<'a>>,
}

impl<'a> Review<'a> {
    /// The object's namespace.
    pub(crate) fn namespace(&self) -> Result<&str, Malformed> {
        self.namespace.as_deref().ok_or_else(|| self.lacks("request.namespace"))
    }

    /// The object.
    pub(crate) fn object(&self) -> Result<&Value<'a>, Malformed> {
        self.object.as_ref().ok_or_else(|| self.lacks("request.object"))
    }

    fn lacks(&self, field: &'static str) -> Malformed {
        Malformed { uid: self.uid.clone(), why: Why::Missing(field) }
    }
}

/// A request that is no review.
#[derive(Debug)]
pub(crate) struct Malformed {
    /// Empty where it can't be read.
    uid: String,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("its body is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("its body is not an AdmissionReview: {0}")]
    Review(#[source] serde_json::Error),
    #[error("its body is a {kind:?} of {api_version:?}, and must be an {KIND} of {API_VERSION}")]
    Kind { kind: String, api_version: String },
    #[error("its field {0} is missing")]
    Missing(&'static str),
}

impl Malformed {
    /// An HTTP error, which the API server shows to the user as it stands.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let Self { uid, why } = self;
        tracing::warn!(uid, error = %why, "a malformed request");
        text(StatusCode::BAD_REQUEST, format!("request {uid:?} can't be reviewed: {why}\n"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: String,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    resource: Resource<'a>,
    #[serde(default)]
    sub_resource: Option<String>,
    namespace: Option<String>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    object: Option<Value<'a>>,
}

/// A value reads as itself only for the lifetime of its text.
fn borrowed<'a, 'de: 'a, D: Deserializer<'de>>(text: D) -> Result<Option<Value<'a>>, D::Error> {
    Option::<Value<'de>>::deserialize(text)
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    resource: Cow<'a, str>,
}

impl Request<'_> {
    fn creates_pod(&self) -> bool {
        self.operation == "CREATE"
            && self.sub_resource.as_deref().unwrap_or_default().is_empty()
            && (&*self.resource.group, &*self.resource.resource) == ("", "pods")
    }
}

/// Reads a review.
pub(crate) fn read(body: &[u8]) -> Result<Review<'_>, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|error| diagnosed(body, error))?;
    let Envelope { kind, api_version, request } = envelope;
    let uid = || request.as_ref().map(|request| request.uid.clone()).unwrap_or_default();
    if (&*kind, &*api_version) != (KIND, API_VERSION) {
        return Err(Malformed { uid: uid(), why: another_kind(&kind, &api_version) });
    }
    let request = request.ok_or(Malformed { uid: String::new(), why: Why::Missing("request") })?;
    Ok(Review {
        creates_pod: request.creates_pod(),
        uid: request.uid,
        namespace: request.namespace,
        object: request.object,
    })
}

/// What is wrong with a body that doesn't read as a review. No more is kept of it than that: it may be
/// anything.
fn diagnosed(body: &[u8], error: serde_json::Error) -> Malformed {
    let Named { request: Identified { uid } } = serde_json::from_slice(body).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(body) {
        return Malformed { uid, why: Why::Json(error) };
    }
    let Kind { kind, api_version } = serde_json::from_slice(body).unwrap_or_default();
    let why = if (&*kind, &*api_version) == (KIND, API_VERSION) {
        Why::Review(error)
    } else {
        another_kind(&kind, &api_version)
    };
    Malformed { uid, why }
}

fn another_kind(kind: &str, api_version: &str) -> Why {
    let shown = |text: &str| text.chars().take(SHOWN).collect();
    Why::Kind { kind: shown(kind), api_version: shown(api_version) }
}

/// Of a body that isn't a review, what it says it is.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Kind<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    api_version: Cow<'a, str>,
}

/// And what names it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    request: Identified,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Identified {
    uid: String,
}

/// What becomes of the object.
pub(crate) enum Outcome {
    /// It is admitted as it is.
    Allowed,
    /// It is admitted with this patch, as it is sent.
    Patched(String),
    /// It is refused for good, and its user is told why.
    Refused(String),
    /// It is refused for now, as clients understand who try again by themselves.
    NotYet(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Answer<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
}

impl Outcome {
    /// It is admitted with this done to it.
    pub(crate) fn patched(patch: &Patch<'_>) -> Self {
        if patch.is_empty() {
            return Self::Allowed;
        }
        match serde_json::to_vec(patch) {
            // As Kubernetes writes bytes.
            Ok(json) => Self::Patched(STANDARD.encode(json)),
            Err(error) => Self::NotYet(format!("its patch can't be written, which is a defect: {error}")),
        }
    }

    /// The review that says so.
    pub(crate) fn into_response(self, uid: &str) -> Response<Full<Bytes>> {
        self.written(uid).map_or_else(
            |error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("no review can be written: {error}\n")),
            json,
        )
    }

    fn written(self, uid: &str) -> serde_json::Result<Vec<u8>> {
        let mut answer = Answer { uid, allowed: true, status: None, patch_type: None, patch: None };
        match self {
            Self::Allowed => {}
            Self::Patched(patch) => {
                answer.patch_type = Some("JSONPatch");
                answer.patch = Some(patch);
            }
            Self::Refused(message) => {
                answer.allowed = false;
                let code = StatusCode::FORBIDDEN.as_u16();
                answer.status = Some(Status { code, reason: "Forbidden", message, details: None });
            }
            Self::NotYet(message) => {
                answer.allowed = false;
                let code = StatusCode::SERVICE_UNAVAILABLE.as_u16();
                // With a time to wait, clients try again by themselves.
                let details = Some(Details { retry_after_seconds: 1 });
                answer.status = Some(Status { code, reason: "ServiceUnavailable", message, details });
            }
        }
        serde_json::to_vec(&Reply { api_version: API_VERSION, kind: KIND, response: answer })
    }
}
