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

use crate::held::Held;
use crate::metrics::Metrics;
use crate::tokens::{Caller, Refusal, Tokens};
use crate::view::{TooManyAbsent, View, Watched};

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
    /// Whose questions are held.
    pub held: Held,
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
        // By itself: what came with the request would else be kept for as long as the answer is waited for.
        let (caller, asked) = match self.hear(request).await {
            Ok(heard) => heard,
            Err(refusal) => return refusal,
        };
        match self.answer(&caller, &asked).await {
            Ok(Told { answer, .. }) => {
                self.metrics.answered(answer.verdict);
                serde_json::to_vec(&answer).map_or_else(
                    |error| {
                        text(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            format!("no answer can be written: {error}\n"),
                        )
                    },
                    json,
                )
            }
            Err(error) => {
                let Caller { namespace, pod, .. } = &*caller;
                tracing::debug!(namespace, pod, "a question is refused: {error}");
                text(error.status(), format!("{error}\n"))
            }
        }
    }

    /// Whose question it is, and what is asked: as it was written, which takes less than what it says.
    async fn hear<B>(&self, request: Request<B>) -> Result<(Arc<Caller>, Box<[u8]>), Response<Full<Bytes>>>
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
        Ok((caller, body.into()))
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

    /// The answer for that Pod: at once where it is news to the waiter, else when it changes or the time
    /// is up.
    async fn answer(&self, caller: &Caller, asked: &[u8]) -> Result<Told, Unanswerable> {
        let mut watched = self.watch(caller, asked)?;
        let told = Told::of(asked, caller, &mut watched)?;
        if told.is_news {
            return Ok(told);
        }
        drop(told);
        let hold = self.held.hold(&caller.uid);
        let _counted = self.metrics.holds();
        let time_is_up = tokio::time::sleep(Duration::from_secs(HOLD_SECONDS));
        tokio::pin!(time_is_up);
        loop {
            tokio::select! {
                () = watched.changed() => {
                    let told = Told::of(asked, caller, &mut watched)?;
                    if told.is_news {
                        return Ok(told);
                    }
                }
                () = hold.gives_way() => return Err(Unanswerable::Replaced),
                () = &mut time_is_up => return Told::of(asked, caller, &mut watched),
                () = self.end.requested() => return Told::of(asked, caller, &mut watched),
            }
        }
    }

    /// The Migrator that is asked about, where that Pod may ask about it.
    fn watch(&self, caller: &Caller, asked: &[u8]) -> Result<Watched, Unanswerable> {
        let question: Question = serde_json::from_slice(asked)?;
        let Caller { namespace, pod, .. } = caller;
        if question.namespace != *namespace {
            let (pod, namespace, asked) = (pod.clone(), namespace.clone(), question.namespace);
            return Err(Unanswerable::AnotherNamespace { pod, namespace, asked });
        }
        // Long names cost as much as many. There are no Migrators of such.
        if question.migrator.len() > LONGEST_NAME {
            return Err(Unanswerable::LongName);
        }
        Ok(self.view.watch(&question.namespace, &question.migrator)?)
    }
}

/// What can be said to a question now.
struct Told {
    answer: Answer,
    /// Whether the waiter hasn't seen it.
    is_news: bool,
}

impl Told {
    /// The question is read anew each time: while it is held, this would take several times its memory.
    fn of(asked: &[u8], caller: &Caller, watched: &mut Watched) -> Result<Self, Unanswerable> {
        let question: Question = serde_json::from_slice(asked)?;
        let answer = answer(&question, &caller.uid, watched.current().known());
        let is_news = question.seen.as_deref() != Some(&answer.version);
        Ok(Self { answer, is_news })
    }
}

/// Why there is no answer to a Pod that is known.
#[derive(Debug, thiserror::Error)]
enum Unanswerable {
    #[error("this is no question: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(
        "Pod {pod} of namespace {namespace} asks about namespace {asked:?}, and is told of its own alone; the \
         argument --namespace of its waiter must be the Pod's"
    )]
    AnotherNamespace { pod: String, namespace: String, asked: String },
    #[error("no Migrator's name has more than {LONGEST_NAME} characters")]
    LongName,
    #[error(transparent)]
    TooManyAbsent(#[from] TooManyAbsent),
    #[error(
        "newer questions of the same Pod have taken the place of this one; a Pod's waiters ask one at a time"
    )]
    Replaced,
}

impl Unanswerable {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::LongName => StatusCode::BAD_REQUEST,
            Self::AnotherNamespace { .. } => StatusCode::FORBIDDEN,
            Self::TooManyAbsent(_) | Self::Replaced => StatusCode::TOO_MANY_REQUESTS,
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
