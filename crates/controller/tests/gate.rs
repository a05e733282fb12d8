//! The gate while it is put in place and kept there: what must never be written, not even for a moment, and
//! what is written how often.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

#[cfg(test)]
mod gate {
    mod trust;
}

use std::time::Duration;

use http::Method;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use migrations_api::names;
use migrations_controller::certificates::CertificateKeeper;
use migrations_controller::gate::{GateKeeper, Gates};
use migrations_controller::metrics::Metrics;
use migrations_controller::watch::{Guarded, Queue};
use migrations_core::certificates::Lifetimes;
use migrations_core::entries::{Endpoint, configurations, probe};
use migrations_core::snapshot::Gate;
use migrations_process::probes::Readiness;
use migrations_testkit::builders::{existing, migrator};
use migrations_testkit::recording::{Fault, RecordingServer};
use rstest::rstest;
use serde_json::json;
use tokio::sync::watch;

/// A keeper beside an API server in memory, fed with Migrators by the test.
struct Kept {
    server: RecordingServer,
    writer: Writer<Guarded>,
    readiness: Readiness,
    certificates: CertificateKeeper,
    gates: Gates,
}

impl Kept {
    /// Where the manifests have been applied, and the webhook can be reached, if `shipped`.
    async fn start(shipped: bool) -> Self {
        let server = RecordingServer::new();
        if shipped {
            let endpoint = Endpoint { namespace: "operator".to_owned(), ca_bundle: String::new() };
            for name in configurations([], &endpoint).keys() {
                empty(&server, name);
            }
            reach(&server);
        }
        let (migrators, writer) = reflector::store::<Guarded>();
        let (readiness, [in_place]) = Readiness::of(["gate"]);
        let (publish, bundle) = watch::channel(None);
        // Made elsewhere: whatever this server is asked, the gate has asked.
        let elsewhere = RecordingServer::new().client();
        let mut certificates = CertificateKeeper::new(
            elsewhere,
            "operator",
            Lifetimes::default(),
            migrators.clone(),
            publish,
            Metrics::default(),
        );
        certificates.look(jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        let gates = Gates::default();
        let keeper = GateKeeper {
            client: server.client(),
            namespace: "operator".to_owned(),
            migrators,
            bundle,
            gates: gates.clone(),
            queue: Queue::new().0,
            in_place,
        };
        tokio::spawn(keeper.run());
        Self { server, writer, readiness, certificates, gates }
    }

    fn list(&mut self, migrators: Vec<Guarded>) {
        let all = migrators.into_iter().map(Event::InitApply);
        for event in [Event::Init].into_iter().chain(all).chain([Event::InitDone]) {
            self.writer.apply_watcher_event(&event);
        }
    }

    /// Has the authority replaced, seven years after it was made; what the API server trusts after
    /// that can't be known before the webhook is reached.
    async fn change_authority(&mut self) {
        let later = jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(7 * 365 * 24);
        self.certificates.look(later).await.unwrap();
    }

    /// What the entries of Migrators trust, and the waiters of namespace `shop`.
    fn trusted(&self) -> (Vec<String>, String) {
        let bundle =
            |entry: serde_json::Value| entry["clientConfig"]["caBundle"].as_str().unwrap().to_owned();
        let map = self.server.object(BUNDLE).unwrap();
        (self.entries().into_iter().map(bundle).collect(), map["data"][names::CA_BUNDLE_KEY].to_string())
    }

    /// What the entry trusts that is always there.
    fn required_trusts(&self) -> String {
        let object =
            self.server.object(&format!("{CONFIGURATIONS}/{}", names::REQUIRED_CONFIGURATION)).unwrap();
        object["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap().to_owned()
    }

    fn is_ready(&self) -> bool {
        self.readiness.missing().next().is_none()
    }

    /// The entries of Migrators.
    fn entries(&self) -> Vec<serde_json::Value> {
        let shards = (0..names::ENTRY_SHARDS).map(names::entry_configuration);
        let objects = shards.filter_map(|name| self.server.object(&format!("{CONFIGURATIONS}/{name}")));
        objects.flat_map(|it| it["webhooks"].as_array().cloned().unwrap_or_default()).collect()
    }
}

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// The API server refuses the probe so when the webhook has answered.
const ANSWERED: &str = "admission webhook \"probe.migrations.coderanger.net\" denied the request: ";

const BUNDLE: &str = "/api/v1/namespaces/shop/configmaps/migrations-ca-bundle";

/// The next probe reaches the webhook.
fn reach(server: &RecordingServer) {
    let answer = format!("{ANSWERED}{}", probe::REACHED);
    server.fail(Fault::refuse_saying(Method::POST, "/pods", 403, &answer));
}

/// As the manifests ship it.
fn empty(server: &RecordingServer, name: &str) {
    let configuration: MutatingWebhookConfiguration =
        serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    drop(server.clone().holding("mutatingwebhookconfigurations", &existing(&configuration)));
}

/// There seems to be no Migrator then: all entries would be taken away, and Pods that come in that
/// moment would start unmigrated.
#[tokio::test(start_paused = true)]
async fn no_entry_is_touched_before_migrators_are_listed() {
    let mut kept = Kept::start(false).await;
    let asked =
        |kept: &Kept| kept.server.requests().iter().filter(|it| it.path.contains("mutatingwebhook")).count();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(asked(&kept), 0);
    assert!(!kept.is_ready());

    kept.list(Vec::new());
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(asked(&kept) > 0);
}

/// A tool that applies configurations without entries again and again is put right, but not fought.
#[tokio::test(start_paused = true)]
async fn what_is_changed_back_is_corrected_ever_more_seldom() {
    let mut kept = Kept::start(true).await;
    kept.list(Vec::new());
    let required = names::REQUIRED_CONFIGURATION;
    let corrections = |kept: &Kept| {
        let writes = kept.server.writes();
        writes.iter().filter(|it| it.starts_with("PUT") && it.ends_with(required)).count()
    };
    let mut seen = Vec::new();
    for minute in 0..60 {
        tokio::time::sleep(Duration::from_secs(59)).await;
        if corrections(&kept) > seen.len() {
            seen.push(minute);
        }
        empty(&kept.server, required);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(kept.is_ready());
    assert_eq!(seen, [0, 1, 3, 7, 15, 31, 47]);
}

/// An entry that goes lets Pods pass: a fault that may pass is no reason for that.
#[tokio::test(start_paused = true)]
async fn an_entry_stays_while_the_waiters_trust_cannot_be_written() {
    let mut kept = Kept::start(true).await;
    let shop = migrator("shop").selecting("app", "shop").json();
    let guarded: Guarded = serde_json::from_value(shop.clone()).unwrap();
    kept.list(vec![guarded]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = kept.entries();
    assert_eq!(before.len(), 1);

    let of = |gates: &Gates| gates.of(&serde_json::from_value(shop.clone()).unwrap());
    assert_eq!(of(&kept.gates), Gate::InPlace);
    for method in [Method::GET, Method::PATCH] {
        for _ in 0..100 {
            kept.server.fail(Fault::refuse(method.clone(), "configmaps", 500));
        }
    }
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(matches!(of(&kept.gates), Gate::Pending(why) if why.contains("ConfigMap")));
    assert_eq!(kept.entries(), before);
}

/// Else a change of authority waits for them, and so does every Pod of the cluster in the end.
#[rstest]
#[case::cannot_be_read(json!({ "selector": "x" }), 20, 1)]
#[case::cannot_be_read_where_the_webhook_is_reached_at_once(json!({ "selector": "x" }), 0, 1)]
#[case::is_not_valid(json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "Is" }] } }), 20, 0)]
#[case::is_not_valid_beside_its_selector(
    json!({ "selector": { "matchLabels": { "app": "shop" } }, "templateSelector": { "matchLabels": { "role": "web app" } } }),
    0, 1)]
#[tokio::test(start_paused = true)]
async fn the_waiters_and_the_entry_trust_a_new_authority_of_a_migrator_that(
    #[case] spec: serde_json::Value,
    #[case] failing_probes: usize,
    #[case] entries: usize,
) {
    let mut kept = Kept::start(true).await;
    let mut shop = migrator("shop").selecting("app", "shop").json();
    kept.list(vec![serde_json::from_value(shop.clone()).unwrap()]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let before = kept.trusted();
    assert_eq!(before.0.len(), 1);

    shop["spec"] = spec;
    kept.list(vec![serde_json::from_value(shop).unwrap()]);
    for _ in 0..failing_probes {
        kept.server.fail(Fault::refuse_saying(Method::POST, "/pods", 500, "no route to host"));
    }
    reach(&kept.server);
    kept.change_authority().await;
    if failing_probes > 0 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(entries == 0 || kept.trusted().0 == before.0, "not before it is proven");
        tokio::time::sleep(Duration::from_mins(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = kept.trusted();
    assert_eq!(after.0.len(), entries);
    assert!(after.0.iter().all(|bundle| *bundle != before.0[0] && *bundle == kept.required_trusts()));
    assert_ne!(after.1, before.1, "its waiters are told");
}

/// The entry of another selector may be in another configuration: after each single write there is one.
#[tokio::test(start_paused = true)]
async fn an_entry_that_moves_is_somewhere_all_the_while() {
    let mut kept = Kept::start(true).await;
    for app in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let shop = migrator("shop").selecting("app", app).json();
        kept.list(vec![serde_json::from_value(shop).unwrap()]);
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(kept.entries().len(), 1);
    }
    let entries = |it: &serde_json::Value| it["webhooks"].as_array().unwrap().len();
    let requests = kept.server.requests();
    let shard =
        |path: &str| (0..names::ENTRY_SHARDS).any(|it| path.ends_with(&names::entry_configuration(it)));
    let shards = requests.iter().filter(|it| it.method == Method::PUT && shard(&it.path));
    let (mut found, mut writes) = (std::collections::BTreeMap::new(), 0);
    for write in shards {
        found.insert(&write.path, entries(&write.body));
        assert!(found.values().sum::<usize>() > 0, "after {writes} writes");
        writes += 1;
    }
    assert!(writes > 8, "{writes}");
}

/// An entry there could keep the cluster's own Pods, or the webhook's, from starting.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_a_migrator_in_an_excluded_namespace() {
    let mut kept = Kept::start(true).await;
    let shop = migrator("shop").namespace("kube-system").selecting("app", "shop").json();
    kept.list(vec![serde_json::from_value(shop.clone()).unwrap()]);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(kept.is_ready() && kept.entries().is_empty());
    assert!(!kept.server.writes().iter().any(|it| it.contains("kube-system")));
    assert_eq!(kept.gates.of(&serde_json::from_value(shop).unwrap()), Gate::Excluded);
}

#[tokio::test(start_paused = true)]
async fn it_is_not_in_place_before_waiters_know_whom_to_trust() {
    let mut kept = Kept::start(true).await;
    for _ in 0..20 {
        kept.server.fail(Fault::refuse(Method::GET, "configmaps", 500));
    }
    let shop = migrator("shop").selecting("app", "shop");
    kept.list(vec![serde_json::from_value(shop.json()).unwrap()]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(matches!(kept.gates.of(&shop.build()), Gate::Pending(_)));
    assert!(kept.entries().is_empty());
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((kept.gates.of(&shop.build()), kept.entries().len()), (Gate::InPlace, 1));
}

/// What is wrong with the rest of a spec is told; its Pods wait until it is put right.
#[rstest]
#[case::another_selector(json!({ "templateSelector": { "matchLabels": { "role": "web app" } } }), 1)]
#[case::everything_is_selected(json!({ "selector": { "matchLabels": null } }), 0)]
#[tokio::test(start_paused = true)]
async fn a_spec_that_is_not_valid_keeps_the_gate_of_its_selector(
    #[case] change: serde_json::Value,
    #[case] entries: usize,
) {
    let mut kept = Kept::start(true).await;
    let shop = migrator("shop").selecting("app", "shop");
    for spec in [json!({}), change] {
        let shop = shop.clone().with(json!({ "spec": spec }));
        kept.list(vec![serde_json::from_value(shop.json()).unwrap()]);
        kept.gates.look();
        tokio::time::sleep(Duration::from_mins(2)).await;
    }
    assert_eq!(kept.entries().len(), entries);
}

/// What is migrated for the one that can be read says nothing about the other.
#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_read_keeps_what_it_shared() {
    let mut kept = Kept::start(true).await;
    let one = |name: &str, done: &[&str]| {
        let done: Vec<_> =
            done.iter().map(|it| json!({ "key": it, "image": it, "how": "Succeeded" })).collect();
        migrator(name).selecting("app", "shop").with(json!({ "status": { "done": done } }))
    };
    let (first, other) = (one("a", &["v1", "v2"]), one("b", &["v1"]));
    let unreadable = other.clone().with(json!({ "spec": { "selector": "x" } }));
    let shared = r#"[\"v1\"]"#;
    let own = r#"[\"v1\",\"v2\"]"#;
    let listed = [
        (vec![&first, &other], vec![("/admit/migrator-a/migrator-b", shared)]),
        (vec![&first, &unreadable], vec![("/admit/migrator-a", own), ("/admit/migrator-b", shared)]),
        (vec![&first, &other], vec![("/admit/migrator-a/migrator-b", shared)]),
        (vec![&first, &unreadable], vec![("/admit/migrator-a", own), ("/admit/migrator-b", shared)]),
        (vec![&first], vec![("/admit/migrator-a", own)]),
    ];
    for (migrators, expected) in listed {
        kept.list(migrators.iter().map(|it| serde_json::from_value(it.json()).unwrap()).collect());
        kept.gates.look();
        tokio::time::sleep(Duration::from_mins(3)).await;
        let entries = kept.entries();
        assert_eq!(entries.len(), expected.len(), "{entries:?}");
        for (entry, (path, images)) in entries.iter().zip(expected) {
            assert_eq!(entry["clientConfig"]["service"]["path"], path);
            assert!(entry["matchConditions"].to_string().contains(images), "{path}: {entry}");
            assert_eq!(entry["objectSelector"], json!({ "matchLabels": { "app": "shop" } }));
        }
    }
}

/// Nothing else changes then: neither what is desired nor how the webhook is reached.
#[tokio::test(start_paused = true)]
async fn the_entry_of_one_that_cannot_be_read_goes_with_it() {
    let mut kept = Kept::start(true).await;
    let shop = migrator("shop").selecting("app", "shop");
    let unreadable = shop.clone().with(json!({ "spec": { "selector": "x" } }));
    for (listed, entries) in [(vec![shop], 1), (vec![unreadable], 1), (vec![], 0)] {
        kept.list(listed.iter().map(|it| serde_json::from_value(it.json()).unwrap()).collect());
        kept.gates.look();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(kept.entries().len(), entries);
    }
}
