//! What is remembered of tokens, and what is to be done with one that comes: pure, time is passed in.
//!
//! ```text
//!            accepted for 60 s ──► ask again ──► accepted, or refused
//!  unknown ──► ask                     └─ no answer: accepted for 10 s more, until the token ends
//!            refused for 5 s ───► unknown           no answer about an unknown one: come again
//! ```
//!
//! Tokens that were accepted and those that were refused are kept apart, each in bounded numbers, so
//! that no amount of garbage drives a good token out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Caller, Refusal, TokenHash, Verdict};

/// How long a token that was accepted isn't asked about again (contract §8).
const ACCEPTED: Duration = Duration::from_mins(1);

/// The same after the API server gave no answer about it.
const UNANSWERED: Duration = Duration::from_secs(10);

/// How long a token that was refused isn't asked about again: the API server may not have heard of a
/// Pod yet that another one of it has made.
const REFUSED: Duration = Duration::from_secs(5);

/// How many tokens are remembered that were accepted: twice as many Pods as may ask at a time, in the
/// default, since tokens are renewed.
const MOST_ACCEPTED: usize = 16_384;

/// How many tokens are remembered that were refused.
const MOST_REFUSED: usize = 4096;

/// What is remembered.
#[derive(Debug)]
pub(super) struct Verdicts {
    accepted: Bounded<Accepted>,
    refused: Bounded<Refused>,
}

#[derive(Clone, Debug)]
struct Accepted {
    caller: Arc<Caller>,
    /// When it is to be asked about again.
    asks: Instant,
    /// When the token itself ends, where that is known.
    expires: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Refused {
    refusal: Refusal,
    until: Instant,
}

/// What to do with a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This is known of it.
    Use(Verdict),
    /// The API server has to say.
    Ask,
}

/// What the API server said of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reviewed {
    /// It is this Pod's.
    Accepted {
        /// The Pod.
        caller: Caller,
        /// When the token ends, where it says so.
        expires: Option<Instant>,
    },
    /// It is no good.
    Refused(Refusal),
    /// Nothing.
    Unreachable,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self::of(MOST_ACCEPTED, MOST_REFUSED)
    }
}

impl Verdicts {
    fn of(accepted: usize, refused: usize) -> Self {
        Self { accepted: Bounded::of(accepted), refused: Bounded::of(refused) }
    }

    /// What to do with a token that comes at `now`.
    pub(super) fn look(&mut self, token: &TokenHash, now: Instant) -> Next {
        if let Some(known) = self.accepted.get(token) {
            let good = known.expires.is_none_or(|expires| now < expires);
            return if good && now < known.asks {
                Next::Use(Ok(Arc::clone(&known.caller)))
            } else {
                Next::Ask
            };
        }
        match self.refused.get(token) {
            Some(Refused { refusal, until }) if now < *until => Next::Use(Err(refusal.clone())),
            _ => Next::Ask,
        }
    }

    /// Takes in what came of asking, at `now`; returns what it comes to for who sent the token.
    pub(super) fn learn(&mut self, token: &TokenHash, reviewed: Reviewed, now: Instant) -> Verdict {
        match reviewed {
            Reviewed::Accepted { caller, expires } => {
                let caller = Arc::new(caller);
                self.refused.remove(token);
                let known = Accepted { caller: Arc::clone(&caller), asks: now + ACCEPTED, expires };
                self.accepted.put(*token, known);
                Ok(caller)
            }
            Reviewed::Refused(refusal) => {
                self.accepted.remove(token);
                self.refused.put(*token, Refused { refusal: refusal.clone(), until: now + REFUSED });
                Err(refusal)
            }
            Reviewed::Unreachable => match self.accepted.get(token) {
                Some(known) if known.expires.is_some_and(|expires| now < expires) => {
                    known.asks = known.asks.max(now + UNANSWERED);
                    Ok(Arc::clone(&known.caller))
                }
                _ => Err(Refusal::Unavailable),
            },
        }
    }
}

/// A map of at most so many entries, that forgets those first which weren't used for longest: they
/// are kept in two halves, and when the one in use is full, the other is forgotten.
#[derive(Debug)]
struct Bounded<V> {
    half: usize,
    used: HashMap<TokenHash, V>,
    older: HashMap<TokenHash, V>,
}

impl<V> Bounded<V> {
    fn of(most: usize) -> Self {
        Self { half: most / 2, used: HashMap::new(), older: HashMap::new() }
    }

    fn get(&mut self, token: &TokenHash) -> Option<&mut V> {
        if let Some(value) = self.older.remove(token) {
            self.put(*token, value);
        }
        self.used.get_mut(token)
    }

    fn put(&mut self, token: TokenHash, value: V) {
        self.older.remove(&token);
        if self.used.len() >= self.half && !self.used.contains_key(&token) {
            self.older = std::mem::take(&mut self.used);
        }
        self.used.insert(token, value);
    }

    fn remove(&mut self, token: &TokenHash) {
        self.used.remove(token);
        self.older.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TOKEN: TokenHash = [1; 32];

    fn caller() -> Caller {
        Caller { namespace: "shop".to_owned(), pod: "web-0".to_owned(), uid: "u-1".to_owned() }
    }

    fn refusal() -> Refusal {
        Refusal::Unauthenticated("expired".into())
    }

    /// What the API server said, and after how many seconds.
    #[derive(Clone, Copy, Debug)]
    enum Said {
        /// Accepted, a token that ends so many seconds after the start.
        Yes(u64),
        /// Accepted, a token without an end.
        Endless,
        No,
        Nothing,
    }
    use Said::{Endless, No, Nothing, Yes};

    fn after(start: Instant, said: &[(u64, Said)]) -> (Verdicts, Option<Verdict>) {
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut verdicts, mut last) = (Verdicts::of(8, 8), None);
        for (seconds, said) in said {
            let reviewed = match *said {
                Yes(end) => Reviewed::Accepted { caller: caller(), expires: Some(at(end)) },
                Endless => Reviewed::Accepted { caller: caller(), expires: None },
                No => Reviewed::Refused(refusal()),
                Nothing => Reviewed::Unreachable,
            };
            last = Some(verdicts.learn(&TOKEN, reviewed, at(*seconds)));
        }
        (verdicts, last)
    }

    fn accepted() -> Next {
        Next::Use(Ok(Arc::new(caller())))
    }

    #[rstest]
    #[case::unknown(&[], 0, Next::Ask)]
    #[case::accepted(&[(0, Yes(3600))], 59, accepted())]
    #[case::accepted_a_minute_ago(&[(0, Yes(3600))], 60, Next::Ask)]
    #[case::accepted_and_ended_since(&[(0, Yes(30))], 30, Next::Ask)]
    #[case::accepted_without_an_end(&[(0, Endless)], 59, accepted())]
    #[case::accepted_again(&[(0, Yes(3600)), (60, Yes(3600))], 119, accepted())]
    #[case::refused(&[(0, No)], 4, Next::Use(Err(refusal())))]
    #[case::refused_a_moment_ago(&[(0, No)], 5, Next::Ask)]
    #[case::refused_after_it_was_accepted(&[(0, Yes(3600)), (60, No)], 61, Next::Use(Err(refusal())))]
    #[case::accepted_after_it_was_refused(&[(0, No), (5, Yes(3600))], 6, accepted())]
    #[case::unknown_and_no_answer_is_asked_at_once(&[(0, Nothing)], 0, Next::Ask)]
    #[case::no_answer_about_a_known_one_is_not_asked_for_at_once(&[(0, Yes(3600)), (60, Nothing)], 69, accepted())]
    #[case::but_soon(&[(0, Yes(3600)), (60, Nothing)], 70, Next::Ask)]
    #[case::no_answer_does_not_shorten_what_is_known(&[(0, Yes(3600)), (1, Nothing)], 59, accepted())]
    #[case::it_ends_all_the_same(&[(0, Yes(65)), (60, Nothing)], 65, Next::Ask)]
    fn a_token_that_comes(#[case] said: &[(u64, Said)], #[case] seconds: u64, #[case] next: Next) {
        let start = Instant::now();
        let (mut verdicts, _) = after(start, said);
        assert_eq!(verdicts.look(&TOKEN, start + Duration::from_secs(seconds)), next);
    }

    #[rstest]
    #[case::unknown(&[(0, Nothing)], Err(Refusal::Unavailable))]
    #[case::known(&[(0, Yes(3600)), (60, Nothing)], Ok(()))]
    #[case::known_for_as_long_as_it_lasts(&[(0, Yes(3600)), (60, Nothing), (3599, Nothing)], Ok(()))]
    #[case::known_and_ended(&[(0, Yes(3600)), (60, Nothing), (3600, Nothing)], Err(Refusal::Unavailable))]
    #[case::known_without_an_end(&[(0, Endless), (60, Nothing)], Err(Refusal::Unavailable))]
    #[case::refused_before(&[(0, No), (5, Nothing)], Err(Refusal::Unavailable))]
    #[case::accepted_and_refused_before(&[(0, Yes(3600)), (60, No), (65, Nothing)], Err(Refusal::Unavailable))]
    fn without_an_answer_a_token(#[case] said: &[(u64, Said)], #[case] expected: Result<(), Refusal>) {
        let (_, verdict) = after(Instant::now(), said);
        assert_eq!(verdict.unwrap(), expected.map(|()| Arc::new(caller())));
    }

    fn token(number: u32) -> TokenHash {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        hash
    }

    #[test]
    fn no_amount_of_garbage_drives_a_good_token_out_or_takes_memory() {
        let now = Instant::now();
        let (mut verdicts, _) = after(now, &[(0, Yes(3600))]);
        for number in 0..1000 {
            let _ = verdicts.learn(&token(number), Reviewed::Refused(refusal()), now);
            let _ = verdicts.learn(&token(number), Reviewed::Unreachable, now);
        }
        assert_eq!(verdicts.look(&TOKEN, now), accepted());
        assert!(verdicts.refused.used.len() + verdicts.refused.older.len() <= 8);
    }

    #[test]
    fn of_too_many_good_tokens_those_in_use_are_kept() {
        let now = Instant::now();
        let (mut verdicts, _) = after(now, &[(0, Yes(3600))]);
        for number in 0..1000 {
            let reviewed = Reviewed::Accepted { caller: caller(), expires: None };
            let _ = verdicts.learn(&token(number), reviewed, now);
            assert_eq!(verdicts.look(&TOKEN, now), accepted());
        }
        assert!(verdicts.accepted.used.len() + verdicts.accepted.older.len() <= 8);
        assert_eq!(verdicts.look(&token(0), now), Next::Ask);
    }
}
