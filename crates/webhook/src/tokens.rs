//! Who asks: a waiter's token, verified by the API server (`TokenReview`) for this service's own
//! audience. Verdicts are remembered for a while, each token is asked about once at a time, and few at
//! once; while the API server doesn't answer, tokens that were verified before go on (contract §8).
//!
//! A token is kept in memory only while it is asked about, and is in no log and no message.

mod review;
mod verdicts;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::authentication::v1::TokenReview;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use migrations_process::telemetry::causes;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;
use review::{Claims, read, review_of};
pub(crate) use verdicts::Reviewed;
use verdicts::{Next, Verdicts};

/// How long the API server may take, the wait for a turn included.
const REVIEW_TIME: Duration = Duration::from_secs(5);

/// How many tokens are asked about at a time.
const AT_ONCE: usize = 16;

/// How many may wait for their turn. Beyond that, tokens that aren't known are told to come again.
const MOST_WAITING: usize = 4096;

/// How often an outage is logged.
const OUTAGE_TOLD: Duration = Duration::from_mins(1);

/// Verifies tokens. Clones remember the same.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    reviews: Api<TokenReview>,
    turns: Semaphore,
    state: Mutex<State>,
}

struct State {
    verdicts: Verdicts,
    /// Tokens that are being asked about.
    asked: HashMap<TokenHash, Shared<BoxFuture<'static, Verdict>>>,
    /// What is logged of outages.
    outage: Outage,
    metrics: Metrics,
}

/// SHA-256 of a token: what it is remembered by.
pub(crate) type TokenHash = [u8; 32];

/// What came of verifying a token.
pub(crate) type Verdict = Result<Arc<Caller>, Refusal>;

/// The Pod that a token belongs to, in the API server's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
}

/// Why a question isn't answered to who asks it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token that the API server accepts.
    #[error(
        "the token isn't accepted: {0}; a waiter sends the one that the webhook's volume brings into its Pod, \
         which the kubelet renews, as 'Authorization: Bearer'"
    )]
    Unauthenticated(Arc<str>),
    /// The token of someone else than a Pod.
    #[error(
        "the token of {0} is bound to no Pod, and only Pods are answered; ask with the token of the volume that \
         the webhook adds to a Pod"
    )]
    NoPod(Arc<str>),
    /// The API server doesn't say.
    #[error("the token can't be verified now, because the API server doesn't answer; ask again")]
    Unavailable,
}

impl Tokens {
    /// Verifies tokens with `client`, which must be allowed to create `TokenReviews`, and counts them.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let (verdicts, outage) = (Verdicts::default(), Outage::default());
        let state = State { verdicts, asked: HashMap::new(), outage, metrics };
        Self(Arc::new(Inner {
            reviews: Api::all(client),
            turns: Semaphore::new(AT_ONCE),
            state: Mutex::new(state),
        }))
    }

    /// The Pod that `token` belongs to.
    pub async fn verify(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        // What isn't even the form of one doesn't reach the API server.
        let Some(claims) = Claims::of(token) else {
            return Err(Refusal::Unauthenticated("it is no service account's token".into()));
        };
        let hash: TokenHash = Sha256::digest(token).into();
        let asked = {
            let mut state = self.lock();
            match state.verdicts.look(&hash, Instant::now()) {
                Next::Use(verdict) => return verdict,
                Next::Ask => {}
            }
            match state.asked.get(&hash) {
                Some(asked) => asked.clone(),
                None if state.asked.len() >= MOST_WAITING => {
                    return state.verdicts.learn(&hash, Reviewed::Unreachable, Instant::now());
                }
                None => {
                    let asked = self.clone().ask(hash, token.to_owned(), claims);
                    state.asked.insert(hash, asked.clone());
                    asked
                }
            }
        };
        asked.await
    }

    /// Asks in a task of its own: who asks first may leave before the answer, and others wait for it.
    fn ask(self, hash: TokenHash, token: String, claims: Claims) -> Shared<BoxFuture<'static, Verdict>> {
        let tokens = self.clone();
        let task = tokio::spawn(async move {
            let review = timeout(REVIEW_TIME, tokens.review(&token, claims)).await;
            let reviewed = review.unwrap_or_else(|_| Err(format!("no answer within {REVIEW_TIME:?}")));
            tokens.lock().learn(&hash, reviewed)
        });
        let verdict = async move {
            task.await.unwrap_or_else(|_| {
                self.lock().asked.remove(&hash);
                Err(Refusal::Unavailable)
            })
        };
        verdict.boxed().shared()
    }

    /// One review; fails with why there was none.
    async fn review(&self, token: &str, claims: Claims) -> Result<Reviewed, String> {
        let _turn = self.0.turns.acquire().await.map_err(|error| error.to_string())?;
        let answer = self.0.reviews.create(&PostParams::default(), &review_of(token)).await;
        let status = answer.map_err(|error| explain(&error))?.status.unwrap_or_default();
        let lasts = claims.lasts(SystemTime::now());
        read(&status, lasts.and_then(|lasts| Instant::now().checked_add(lasts)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, hash: &TokenHash, reviewed: Result<Reviewed, String>) -> Verdict {
        self.asked.remove(hash);
        let reviewed = match reviewed {
            Ok(reviewed) => {
                self.outage.over();
                reviewed
            }
            Err(error) => {
                self.outage.goes_on(&error);
                Reviewed::Unreachable
            }
        };
        self.metrics.token_reviewed(&reviewed);
        self.verdicts.learn(hash, reviewed, Instant::now())
    }
}

/// One line when it begins, one a minute while it lasts, and one when it is over, however many tokens
/// it is about.
#[derive(Default)]
struct Outage {
    told: Option<Instant>,
    lasts: bool,
}

impl Outage {
    fn goes_on(&mut self, error: &str) {
        if self.told.is_some_and(|told| told.elapsed() < OUTAGE_TOLD) {
            return;
        }
        tracing::warn!(
            error,
            "waiters' tokens can't be verified; those that were before go on, others are told to come again"
        );
        *self = Self { told: Some(Instant::now()), lasts: true };
    }

    fn over(&mut self) {
        if std::mem::take(&mut self.lasts) {
            tracing::info!("waiters' tokens can be verified again");
        }
    }
}

fn explain(error: &Error) -> String {
    match error {
        Error::Api(status) if status.code == 403 => {
            format!("{}; install the operator's RBAC", status.message)
        }
        other => causes(other),
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tokens/tests.rs"]
mod tests;
