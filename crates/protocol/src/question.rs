//! The question a waiter asks and the answer it gets, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// "May this Pod start?" Everything in it was written by admission into the waiter's arguments, so
/// the answer speaks of the Pod as it was admitted (contract §3), never as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Namespace of the Pod and of its Migrator.
    pub namespace: String,
    /// Name of the Migrator.
    pub migrator: String,
    /// The Pod's own containers, in order.
    pub containers: Vec<Container>,
    /// The Pod's revision: uid of its controller, with the hash of that one's template where it has
    /// one. What stays the same when another webhook rewrites images (contract §3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Whether the Migrator's `templateSelector` leaves the Pod out: it waits for what others lead to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follower: bool,
    /// The Pod's labels, so that it can be told when the Migrator no longer selects it. None where they
    /// aren't known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// [`Answer::version`] of the answer that the waiter has: while it still holds, the webhook
    /// keeps the question for up to [`crate::HOLD_SECONDS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// A container of the Pod with the image it was admitted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, as written.
    pub image: String,
}

/// What the webhook says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Whether the Pod may start.
    pub verdict: Verdict,
    /// Why, in one word.
    pub reason: String,
    /// Why, for a person; may have several lines (a failed run's last output).
    pub message: String,
    /// Changes when the answer does.
    pub version: String,
}

/// Whether a Pod may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may: the one verdict that ends a waiter with success.
    Released,
    /// Not yet. Also what a waiter takes every verdict for that it doesn't know.
    #[serde(other)]
    Wait,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_of_an_older_waiter_is_understood() {
        let question: Question =
            serde_json::from_str(r#"{"namespace":"a","migrator":"b","containers":[]}"#).unwrap();
        assert_eq!((question.revision, question.follower, question.labels.len()), (None, false, 0));
    }

    #[test]
    fn a_verdict_from_the_future_is_no_release() {
        let answer: Answer = serde_json::from_str(
            r#"{"verdict":"Superseded","reason":"R","message":"","version":"1","new":2}"#,
        )
        .unwrap();
        assert_eq!(answer.verdict, Verdict::Wait);
    }
}
