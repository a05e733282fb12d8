//! The waiters' questions over HTTP. A question whose answer the waiter has seen is held until the
//! answer changes: a release is pushed, not polled for.
//!
//! Answers are for whoever reaches the port. What authenticates a waiter goes into
//! [`Questions::handle`], between reading a question and answering it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use migrations_core::answer::answer;
use migrations_process::serve::{json, read_body, text};
use migrations_process::shutdown::Shutdown;
use migrations_protocol::{Answer, HOLD_SECONDS, MAX_BODY, QUESTION_PATH, Question};

use crate::view::View;

const BODY_TIME: Duration = Duration::from_secs(5);

/// Answers waiters. Clones speak of the same view.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The Migrators.
    pub view: View,
    /// Once it is requested nothing is held, so that waiters go on to another replica.
    pub end: Shutdown,
}

impl Questions {
    /// Answers one HTTP request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.uri().path() != QUESTION_PATH {
            return text(StatusCode::NOT_FOUND, format!("questions go to {QUESTION_PATH}\n"));
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "questions come with POST\n");
        }
        let body = match read_body(request.into_body(), MAX_BODY, BODY_TIME).await {
            Ok(body) => body,
            Err(error) => return text(error.status(), format!("{error}\n")),
        };
        let question = match serde_json::from_slice::<Question>(&body) {
            Ok(question) => question,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("this is no question: {error}\n")),
        };
        let answer = self.answer(&question).await;
        serde_json::to_vec(&answer).map_or_else(
            |error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("no answer can be written: {error}\n")),
            json,
        )
    }

    /// The answer: at once where it is news to the waiter, else when it changes or the time is up.
    pub async fn answer(&self, question: &Question) -> Answer {
        let mut watched = self.view.watch(&question.namespace, &question.migrator);
        let held = tokio::time::sleep(Duration::from_secs(HOLD_SECONDS));
        tokio::pin!(held);
        loop {
            let answer = answer(question, watched.current().known());
            if question.seen.as_deref() != Some(&answer.version) {
                return answer;
            }
            tokio::select! {
                () = watched.changed() => {}
                () = &mut held => return answer,
                () = self.end.requested() => return answer,
            }
        }
    }
}
