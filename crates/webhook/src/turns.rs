//! Reading a review takes many times the memory of its text: one of `[[[[` some sixty times. Large ones
//! are read one at a time, and what no Pod needs isn't read at all.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a value may take, in bytes: an object with one field has room for four.
const VALUE: usize = 224;

/// Largest review that is read without a turn, in bytes: nearly all are smaller, and counting takes time.
const SMALL: usize = 32 * 1024;

/// Values of the largest review that is read: some 48 MiB of memory, and more than a Pod of 3 MiB has.
const MOST: usize = 48 * 1024 * 1024 / VALUE;

/// Whose turn it is. Clones speak of the same.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// A review that no Pod makes.
#[derive(Debug, thiserror::Error)]
#[error("it has more than {MOST} values, and no Pod needs that many")]
pub(crate) struct TooManyValues;

impl Turns {
    /// Returns once the review may be read, which lasts until what is returned is dropped.
    pub(crate) async fn take(&self, review: &[u8]) -> Result<Option<OwnedSemaphorePermit>, TooManyValues> {
        if review.len() <= SMALL {
            return Ok(None);
        }
        if values(review) > MOST {
            return Err(TooManyValues);
        }
        // Nobody closes it.
        Ok(Arc::clone(&self.0).acquire_owned().await.ok())
    }
}

/// Those of a JSON text are no more: each follows one of these characters, some of which are within strings.
fn values(text: &[u8]) -> usize {
    // Without a branch: that is several times as fast.
    text.iter().map(|byte| b"[{,".map(|begin| usize::from(*byte == begin)).iter().sum::<usize>()).sum()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use futures::FutureExt;
    use serde_json_borrow::Value;

    use super::*;

    #[test]
    fn a_value_takes_no_more_than_it_counts_for() {
        assert!(4 * size_of::<(Cow<'_, str>, Value<'_>)>() <= VALUE);
    }

    #[test]
    fn large_reviews_are_read_one_at_a_time_beside_any_number_of_small_ones() {
        let (turns, small, large) = (Turns::default(), vec![b'['; SMALL], vec![b' '; SMALL + 1]);
        let first = turns.take(&large).now_or_never().expect("its turn").unwrap();
        assert!(turns.take(&large).now_or_never().is_none());
        assert!(turns.take(&small).now_or_never().is_some());
        drop(first);
        assert!(turns.take(&large).now_or_never().is_some());
        assert!(turns.take(&vec![b'{'; MOST + 1]).now_or_never().expect("at once").is_err());
    }
}
