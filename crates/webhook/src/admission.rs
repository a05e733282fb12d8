//! Admission over HTTP: carries a review to `core::inject` and its verdict back. Malformed requests
//! get an HTTP error, which the API server shows to the user as it stands.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use migrations_api::names;
use migrations_core::entries::probe::REACHED;
use migrations_core::entries::{Caller, Named};
use migrations_core::inject::{Untouched, Verdict, decide, patch};
use migrations_process::serve::{BodyError, read_body, text};

use crate::metrics::Metrics;
use crate::review::{self, Malformed, Outcome, Review};
use crate::settings::InForce;
use crate::turns::Turns;
use crate::view::View;

/// Largest review, in bytes. API servers take requests of 3 MiB at most; of a new Pod the review has that
/// object once, and beside it who creates it and how.
pub(crate) const LIMIT: usize = 4 * 1024 * 1024;

/// Segments of the longest path: of more Migrators' uids not even the headers would be taken.
const SEGMENTS: usize = 512;

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
    /// When a large review is read.
    pub turns: Turns,
    /// Where outcomes are counted.
    pub metrics: Metrics,
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
        if path.split('/').nth(SEGMENTS).is_some() {
            return text(StatusCode::NOT_FOUND, format!("no path here has {SEGMENTS} segments\n"));
        }
        let (caller, begun) = (Caller::of(path), Instant::now());
        let body = match read_body(request.into_body(), LIMIT, BODY_TIME).await {
            Ok(body) => body,
            Err(error) => {
                self.metrics.admitted(None, begun.elapsed());
                return unreadable(&error);
            }
        };
        // Before it is read: what it is read into is large, and must not wait.
        let behind = self.view.catch_up(caller.migrators(), PATIENCE).await.err();
        let _turn = match self.turns.take(&body).await {
            Ok(turn) => turn,
            Err(error) => {
                self.metrics.admitted(None, begun.elapsed());
                return text(StatusCode::PAYLOAD_TOO_LARGE, format!("this review isn't read: {error}\n"));
            }
        };
        let reviewed = review::read(&body).and_then(|review| {
            let outcome = match (&caller, behind) {
                (Caller::Probe, _) => Outcome::Refused(REACHED.to_owned()),
                (_, Some(behind)) => not_yet(&behind, &review),
                (_, None) => self.review(&review)?,
            };
            Ok((outcome, review.uid))
        });
        // The controller's own are about no Pod, and all refused.
        if caller != Caller::Probe {
            self.metrics.admitted(reviewed.as_ref().ok().map(|(outcome, _)| outcome), begun.elapsed());
        }
        match reviewed {
            Ok((outcome, uid)) => outcome.into_response(&uid),
            Err(malformed) => malformed.into_response(),
        }
    }

    fn review(&self, review: &Review<'_>) -> Result<Outcome, Malformed> {
        if !review.creates_pod {
            return Ok(Outcome::Allowed);
        }
        let namespace = review.namespace()?;
        let pod = review.object()?;
        let gates = self.view.gates(namespace);
        let settings = self.settings.get();
        let metadata = pod.get("metadata");
        let name = || metadata.get("name").as_str().or_else(|| metadata.get("generateName").as_str());
        match decide(pod, namespace, gates.near(pod), &settings) {
            Verdict::Untouched(Untouched::Unsupported(why)) => {
                tracing::warn!(
                    namespace,
                    name = name(),
                    %why,
                    "a Pod that has to wait is let through: it can't carry a waiter"
                );
                Ok(Outcome::Allowed)
            }
            Verdict::Untouched(reason) => {
                tracing::debug!(namespace, name = name(), ?reason, "a Pod is left alone");
                Ok(Outcome::Allowed)
            }
            Verdict::Refuse { message } => {
                tracing::info!(namespace, name = name(), message, "a Pod is refused");
                Ok(Outcome::Refused(message))
            }
            Verdict::Inject(injection) => {
                // The Pod shows it; a line of log would take as long as the waiter.
                tracing::debug!(
                    namespace,
                    name = name(),
                    waiters = injection.containers.len(),
                    "a Pod waits"
                );
                Ok(Outcome::patched(&patch(pod, &injection)))
            }
        }
    }
}

/// While this replica hasn't heard of a Migrator that it is called for.
fn not_yet(behind: &Named, review: &Review<'_>) -> Outcome {
    let namespace = review.namespace().unwrap_or_default();
    tracing::warn!(namespace, uid = behind.uid, "called for a Migrator that is not known here yet");
    Outcome::NotYet(format!(
        "this replica of the webhook has not heard yet of the Migrator of namespace {namespace:?} with uid {}, \
         which may hold this Pod; what controls the Pod tries again by itself. If it goes on, the replica \
         can't follow Migrators: its log says why",
        behind.uid
    ))
}

fn unreadable(error: &BodyError) -> Response<Full<Bytes>> {
    tracing::warn!(%error, "a review can't be read");
    text(error.status(), format!("this review can't be read: {error}\n"))
}
