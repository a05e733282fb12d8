//! The waiters' questions over HTTP. Each comes with the token of its Pod, and is answered for that
//! Pod's namespace alone. One whose answer the waiter has seen is held until the answer changes: a
//! release is pushed, not polled for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use migrations_core::answer::answer;
use migrations_process::serve::{json, read_body, text};
use migrations_process::shutdown::Shutdown;
use migrations_protocol::{Answer, HOLD_SECONDS, MAX_BODY, QUESTION_PATH, Question};

use crate::metrics::Metrics;
use crate::tokens::{Caller, Refusal, Tokens};
use crate::view::{TooManyAbsent, View};

const BODY_TIME: Duration = Duration::from_secs(5);

/// Of objects' names, in bytes.
const LONGEST_NAME: usize = 253;

/// Answers waiters. Clones speak of the same view.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The Migrators.
    pub view: View,
    /// Who asks.
    pub tokens: Tokens,
    /// Once it is requested nothing is held, so that waiters go on to another replica.
    pub end: Shutdown,
    /// Where answers are counted.
    pub metrics: Metrics,
}

impl Questions {
    /// Answers one HTTP request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // By itself: what came with the request, the buffer of 8 KiB that its body is in above all, would
        // else be kept for as long as the answer is waited for.
        let (caller, question) = match self.hear(request).await {
            Ok(heard) => heard,
            Err(refusal) => return refusal,
        };
        let Caller { namespace, pod, uid } = &*caller;
        if question.namespace != *namespace {
            tracing::debug!(namespace, pod, asked = question.namespace, "a Pod asks about another namespace");
            let message = format!(
                "Pod {pod} of namespace {namespace} asks about namespace {:?}, and is told of its own alone; the \
                 argument --namespace of its waiter must be the Pod's\n",
                question.namespace
            );
            return text(StatusCode::FORBIDDEN, message);
        }
        // Long names cost as much as many. There are no Migrators of such.
        if question.migrator.len() > LONGEST_NAME {
            let message = format!("no Migrator's name has more than {LONGEST_NAME} characters\n");
            return text(StatusCode::BAD_REQUEST, message);
        }
        let answer = match self.answer(&question, uid).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(namespace, pod, asked = question.migrator, "a question is refused: {error}");
                return text(StatusCode::TOO_MANY_REQUESTS, format!("{error}\n"));
            }
        };
        self.metrics.answered(answer.verdict);
        serde_json::to_vec(&answer).map_or_else(
            |error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("no answer can be written: {error}\n")),
            json,
        )
    }

    /// Whose question it is, and what is asked.
    async fn hear<B>(&self, request: Request<B>) -> Result<(Arc<Caller>, Question), Response<Full<Bytes>>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.uri().path() != QUESTION_PATH {
            return Err(text(StatusCode::NOT_FOUND, format!("questions go to {QUESTION_PATH}\n")));
        }
        if request.method() != Method::POST {
            return Err(text(StatusCode::METHOD_NOT_ALLOWED, "questions come with POST\n"));
        }
        // Before the body: nothing is read of who isn't known.
        let caller = self.caller(request.headers()).await.map_err(|refusal| refuse(&refusal))?;
        let body = read_body(request.into_body(), MAX_BODY, BODY_TIME).await;
        let body = body.map_err(|error| text(error.status(), format!("{error}\n")))?;
        let question = serde_json::from_slice(&body)
            .map_err(|error| text(StatusCode::BAD_REQUEST, format!("this is no question: {error}\n")))?;
        Ok((caller, question))
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Refusal> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.tokens.verify(token.trim()).await
            }
            _ => Err(Refusal::Unauthenticated("there is none".into())),
        }
    }

    /// The answer for the Pod with that uid: at once where it is news to the waiter, else when it
    /// changes or the time is up.
    async fn answer(&self, question: &Question, pod_uid: &str) -> Result<Answer, TooManyAbsent> {
        let mut watched = self.view.watch(&question.namespace, &question.migrator)?;
        let _counted = self.metrics.holds();
        let held = tokio::time::sleep(Duration::from_secs(HOLD_SECONDS));
        tokio::pin!(held);
        loop {
            let answer = answer(question, pod_uid, watched.current().known());
            if question.seen.as_deref() != Some(&answer.version) {
                return Ok(answer);
            }
            tokio::select! {
                () = watched.changed() => {}
                () = &mut held => return Ok(answer),
                () = self.end.requested() => return Ok(answer),
            }
        }
    }
}

/// Never 401 for want of an answer: a waiter that is refused may be looked for in the wrong place.
fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    tracing::debug!(%refusal, "a question is refused");
    let status = match refusal {
        Refusal::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Refusal::NoPod(_) => StatusCode::FORBIDDEN,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = text(status, format!("{refusal}\n"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
