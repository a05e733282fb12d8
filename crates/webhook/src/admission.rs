//! Admission over HTTP: carries a review to `core::inject` and its verdict back. Malformed requests
//! get an HTTP error, which the API server shows to the user as it stands.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use migrations_core::inject::{Verdict, decide, patch};
use migrations_process::serve::{BodyError, read_body, text};

use crate::review::{self, Malformed, Outcome, Review};
use crate::settings::InForce;
use crate::view::View;

/// Path of admission reviews. What follows it names the entry that called.
pub const ADMIT_PATH: &str = "/admit";

/// Largest review. A Pod may be 3 MiB (a limit of the API server), and its JSON may come twice.
const LIMIT: usize = 10 * 1024 * 1024;

/// The API server itself gives up after 5 s.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Admits Pods. Clones speak of the same view.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The Migrators.
    pub view: View,
    /// What is injected.
    pub settings: InForce,
}

impl Admission {
    /// Answers one HTTP request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        if !path.strip_prefix(ADMIT_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return text(StatusCode::NOT_FOUND, format!("admission reviews go to {ADMIT_PATH}\n"));
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "admission reviews come with POST\n");
        }
        let body = match read_body(request.into_body(), LIMIT, BODY_TIME).await {
            Ok(body) => body,
            Err(error) => return unreadable(&error),
        };
        let outcome = review::read(&body).and_then(|review| Ok((self.review(&review)?, review.uid)));
        match outcome {
            Ok((outcome, uid)) => outcome.into_response(&uid),
            Err(malformed) => malformed.into_response(),
        }
    }

    fn review(&self, review: &Review) -> Result<Outcome, Malformed> {
        if !review.creates_pod {
            return Ok(Outcome::Allowed);
        }
        let namespace = review.namespace()?;
        let pod = review.object()?;
        let gates = self.view.gates(namespace);
        let settings = self.settings.get();
        let name = || pod["metadata"]["name"].as_str().or(pod["metadata"]["generateName"].as_str());
        match decide(pod, namespace, gates.near(pod), &settings) {
            Verdict::Untouched(reason) => {
                tracing::debug!(namespace, name = name(), ?reason, "a Pod is left alone");
                Ok(Outcome::Allowed)
            }
            Verdict::Refuse { message } => {
                tracing::info!(
                    namespace,
                    name = name(),
                    "a Pod is refused: required, and no Migrator selects it"
                );
                Ok(Outcome::Refused(message))
            }
            Verdict::Inject(injection) => {
                tracing::info!(namespace, name = name(), waiters = injection.containers.len(), "a Pod waits");
                Ok(Outcome::Patched(patch(pod, &injection)))
            }
        }
    }
}

fn unreadable(error: &BodyError) -> Response<Full<Bytes>> {
    tracing::warn!(%error, "a review can't be read");
    text(error.status(), format!("this review can't be read: {error}\n"))
}
