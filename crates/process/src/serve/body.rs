//! Reading a request's body within limits.

use std::pin::pin;
use std::time::Duration;

use bytes::BufMut;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

/// A body that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More than the limit.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It came too slowly.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// The connection broke.
    #[error("the body did not arrive whole")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    /// The HTTP status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a request's body whole, of at most `limit` bytes, in the time it may take.
pub async fn read_body<B>(body: B, limit: usize, time: Duration) -> Result<Vec<u8>, BodyError>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Refused before a byte is read, where its length is told.
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit));
    }
    match tokio::time::timeout(time, copied(Limited::new(body, limit))).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Ok(Err(error)) => Err(BodyError::Broken(error)),
        Err(_) => Err(BodyError::TooSlow(time)),
    }
}

/// Piece by piece: each would keep the buffer alive that it was received in, however small it is.
async fn copied<B: Body>(body: Limited<B>) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Where it is told, its length is no more than the limit.
    let mut whole = Vec::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or_default());
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            whole.put(data);
        }
    }
    Ok(whole)
}
