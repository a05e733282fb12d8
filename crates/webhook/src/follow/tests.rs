//! Watches that are interrupted, against an API server in memory. It knows no watch: it
//! refuses each.

use http::Method;
use migrations_testkit::recording::{Fault, RecordingServer};

use super::*;

/// How often all Migrators were listed.
fn lists(server: &RecordingServer) -> usize {
    let requests = server.requests();
    requests.iter().filter(|it| it.path.ends_with("/migrators") && !it.query.contains("watch=")).count()
}

/// Else a Migrator that is gone would be waited for as long as no other changes.
#[tokio::test(start_paused = true)]
async fn a_watch_that_goes_on_and_brings_nothing_is_not_relied_on() {
    let server = RecordingServer::new();
    let view = View::default();
    tokio::spawn(migrators(server.client(), view.clone(), || {}));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let first = lists(&server);
    assert!(first > 0 && !view.is_in_sight(), "the first watch is a fault");

    // Watches again, and then nothing is heard.
    server.fail(Fault::silence(Method::GET, "/migrators"));
    tokio::time::sleep(SILENCE / 2).await;
    assert_eq!(lists(&server), first);
    tokio::time::sleep(SILENCE).await;
    assert!(lists(&server) > first);
}
