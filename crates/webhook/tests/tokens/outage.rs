//! The API server goes away and comes back.

use std::time::Duration;

use serde_json::json;

use crate::proxy::Road;
use crate::webhook::Webhook;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_flow_to_known_tokens_and_others_come_again() {
    let webhook = Webhook::start().await;
    let known = webhook.pod("known").await;
    let known = webhook.token(&json!({}), Some(&known)).await;
    assert_eq!(webhook.answer(&known).await.reason, "Pending");

    for (name, road) in [("while-down", Road::Closed), ("while-silent", Road::Silent)] {
        let pod = webhook.pod(name).await;
        let unknown = webhook.token(&json!({}), Some(&pod)).await;
        webhook.api.set(road);
        assert_eq!(webhook.answer(&known).await.reason, "Pending");
        let (status, body) = webhook.ask(&unknown).await;
        assert_eq!(status, 503, "{road:?}: {body}");
        assert!(body.contains("ask again"), "{body}");
        assert_eq!(webhook.ask("garbage").await.0, 401, "what is refused by its form needs no API server");

        webhook.api.set(Road::Open);
        let answered = async {
            while webhook.ask(&unknown).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("it recovers");
    }
}
