//! Certificates against the recording API server. Time is the test's: that of the wall is passed in,
//! that of waiting is tokio's.

use http::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::DeleteParams;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use migrations_api::names::REQUIRED_CONFIGURATION;
use migrations_core::certificates::Signer;
use migrations_testkit::builders::migrator;
use migrations_testkit::recording::{Fault, RecordingServer};
use rstest::rstest;
use serde_json::Value;

use super::chain::certificates;
use super::*;

const NAMESPACE: &str = "ops";
/// Where there is a Migrator.
const SHOP: &str = "shop";
const AUTHORITY_PATH: &str = "/api/v1/namespaces/ops/secrets/migrations-ca";
const LEAF_PATH: &str = "/api/v1/namespaces/ops/secrets/migrations-webhook-tls";
const MINUTE: Duration = Duration::from_mins(1);
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A controller's keeper, and time as it passes for it.
struct Controller {
    server: RecordingServer,
    keeper: CertificateKeeper,
    bundle: channel::Receiver<Option<CaBundle>>,
    now: Timestamp,
}

impl Controller {
    fn new() -> Self {
        Self::of(RecordingServer::new(), "2026-06-01T00:00:00Z".parse().unwrap())
    }

    fn of(server: RecordingServer, now: Timestamp) -> Self {
        let (migrators, mut writer) = reflector::store::<Guarded>();
        let one = migrator("shop").namespace(SHOP).selecting("app", "shop").json();
        let one = serde_json::from_value(one).unwrap();
        for event in [Event::Init, Event::InitApply(one), Event::InitDone] {
            writer.apply_watcher_event(&event);
        }
        let (publish, bundle) = channel::channel(None);
        let keeper = CertificateKeeper::new(
            server.client(),
            NAMESPACE,
            Lifetimes::default(),
            migrators,
            publish,
            Metrics::default(),
        );
        Self { server, keeper, bundle, now }
    }

    /// The same after a crash, or another one.
    fn next(self) -> Self {
        Self::of(self.server, self.now)
    }

    async fn looks(&mut self) -> Duration {
        self.keeper.look(self.now).await.unwrap()
    }

    async fn looks_after(&mut self, time: Duration) {
        self.pass(time).await;
        self.looks().await;
    }

    async fn pass(&mut self, time: Duration) {
        self.now += SignedDuration::try_from(time).unwrap();
        tokio::time::advance(time).await;
    }

    fn told(&self) -> CaBundle {
        self.bundle.borrow().clone().unwrap()
    }

    /// Writes the bundle wherever clients look.
    async fn publish(&self) {
        self.publish_to_the_api_server().await;
        self.publish_to_waiters().await;
    }

    async fn publish_to_waiters(&self) {
        ensure_bundle(&self.server.client(), SHOP, &self.told()).await.unwrap();
    }

    async fn publish_to_the_api_server(&self) {
        let entry = json!({ "clientConfig": { "caBundle": self.told().base64() } });
        let entries = Patch::Apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": REQUIRED_CONFIGURATION }, "webhooks": [entry],
        }));
        let api = Api::<MutatingWebhookConfiguration>::all(self.server.client());
        let params = PatchParams::apply("test").force();
        api.patch(REQUIRED_CONFIGURATION, &params, &entries).await.unwrap();
    }

    /// A controller that has made certificates, and clients that trust them.
    async fn installed() -> Self {
        let mut controller = Self::new();
        controller.looks().await;
        controller.publish().await;
        controller
    }

    /// The authority is old, and the next one has been introduced.
    async fn introduced() -> Self {
        let mut controller = Self::installed().await;
        controller.now += YEAR * 7;
        controller.looks().await;
        controller
    }

    fn text(&self, path: &str, key: &str) -> String {
        let bytes: Option<ByteString> =
            self.server.object(path).and_then(|it| serde_json::from_value(it["data"][key].clone()).ok());
        bytes.map(|bytes| String::from_utf8(bytes.0).unwrap()).unwrap_or_default()
    }

    fn leaf(&self) -> String {
        self.text(LEAF_PATH, "tls.crt")
    }

    /// Whether the leaf is signed by a certificate that `bundle` has.
    fn is_trusted(&self, bundle: &CaBundle) -> bool {
        let pair = chain::Pair { certificate: self.leaf(), key: self.text(LEAF_PATH, "tls.key") };
        let leaf = chain::read_leaf(&pair, None, &certificates(bundle.pem())).unwrap();
        leaf.signer == Signer::Trusted
    }

    fn writes(&self) -> usize {
        self.server.writes().len()
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.server.client(), NAMESPACE)
    }

    async fn delete(&self, name: &str) {
        self.secrets().delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn change(&self, name: &str, data: Value) {
        let change = Patch::Merge(json!({ "data": data }));
        self.secrets().patch(name, &PatchParams::default(), &change).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_look_makes_a_chain_that_the_second_leaves_alone() {
    let mut controller = Controller::new();
    controller.looks().await;
    assert_eq!(controller.server.writes(), ["POST /api/v1/namespaces/ops/secrets"; 2]);
    let bundle = controller.told();
    assert_eq!(bundle.pem(), controller.text(AUTHORITY_PATH, "ca.crt"));
    assert!(controller.is_trusted(&bundle));

    controller.publish().await;
    let written = controller.writes();
    controller.looks_after(MINUTE * 60).await;
    assert_eq!((controller.told(), controller.writes()), (bundle, written));
}

#[tokio::test(start_paused = true)]
async fn the_serving_secret_never_holds_the_authoritys_key() {
    let mut controller = Controller::new();
    controller.looks().await;
    let data = controller.server.object(LEAF_PATH).unwrap()["data"].clone();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["tls.crt", "tls.key"]);
    assert_ne!(controller.text(LEAF_PATH, "tls.key"), controller.text(AUTHORITY_PATH, "ca.key"));
}

#[tokio::test(start_paused = true)]
async fn an_old_leaf_is_renewed_under_the_same_authority() {
    let mut controller = Controller::installed().await;
    let (bundle, leaf) = (controller.told(), controller.leaf());
    controller.now += YEAR;
    controller.looks().await;
    assert_ne!(controller.leaf(), leaf);
    assert!(controller.is_trusted(&bundle) && controller.told() == bundle);
    assert_eq!(controller.server.writes().last().unwrap(), &format!("PUT {LEAF_PATH}"));
}

#[rstest]
#[case::waiters_are_told_last(true)]
#[case::the_api_server_is_told_last(false)]
#[tokio::test(start_paused = true)]
async fn a_new_authority_signs_once_its_bundle_has_arrived_everywhere(#[case] api_server_first: bool) {
    let mut controller = Controller::installed().await;
    let before = controller.told();
    controller.now += YEAR * 7;
    assert_eq!(controller.looks().await, MINUTE / 2);
    let both = controller.told();
    assert!(both.pem().starts_with(before.pem()) && both != before);
    let leaf = controller.leaf();
    assert!(controller.is_trusted(&before));

    // However long ago it was made: nobody could read it yet.
    let written = controller.writes();
    controller.looks_after(MINUTE * 30).await;
    if api_server_first {
        controller.publish_to_the_api_server().await;
    } else {
        controller.publish_to_waiters().await;
    }
    for _ in 0..2 {
        controller.looks_after(MINUTE * 30).await;
    }
    controller.publish().await;
    assert_eq!(controller.looks().await, MINUTE * 2);
    controller.looks_after(MINUTE).await;
    assert_eq!(controller.leaf(), leaf);
    let by_others = |write: &String| write.contains(REQUIRED_CONFIGURATION) || write.contains("configmaps");
    assert!(controller.server.writes()[written..].iter().all(by_others));

    controller.looks_after(MINUTE).await;
    assert_ne!(controller.leaf(), leaf);
    assert!(!controller.is_trusted(&before) && controller.is_trusted(&both));
    assert_eq!(controller.told(), both);

    controller.looks_after(MINUTE * 60 * 24).await;
    let after = controller.told();
    assert_eq!(both.pem(), [before.pem(), after.pem()].concat());
    assert!(controller.is_trusted(&after));
    controller.publish().await;
    let written = controller.writes();
    controller.looks_after(MINUTE * 60).await;
    assert_eq!(controller.writes(), written);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_was_taken_back_has_not_arrived() {
    let mut controller = Controller::introduced().await;
    let leaf = controller.leaf();
    controller.publish().await;
    controller.looks().await;
    let maps: Api<ConfigMap> = Api::namespaced(controller.server.client(), SHOP);
    let emptied = Patch::Merge(json!({ "data": { "ca.crt": "" } }));
    maps.patch(CA_BUNDLE_CONFIG_MAP, &PatchParams::default(), &emptied).await.unwrap();
    controller.looks_after(MINUTE * 2).await;
    controller.publish().await;
    controller.looks_after(MINUTE).await;
    assert_eq!(controller.leaf(), leaf);
    controller.looks_after(MINUTE * 2).await;
    assert_ne!(controller.leaf(), leaf);
}

/// Each controller ends after one look, at the worst moment: the clocks of others say nothing.
#[tokio::test(start_paused = true)]
async fn whoever_takes_over_goes_on_and_measures_the_arrival_anew() {
    let controller = Controller::introduced().await;
    controller.publish().await;
    let (leaf, authority) = (controller.leaf(), controller.text(AUTHORITY_PATH, "next.crt"));
    let mut controller = controller.next();
    controller.looks().await;
    controller.looks_after(MINUTE).await;
    let mut controller = controller.next();
    // Its clock is ahead.
    controller.now += SignedDuration::from_mins(10);
    controller.looks().await;
    controller.looks_after(MINUTE).await;
    assert_eq!(controller.leaf(), leaf);
    controller.looks_after(MINUTE).await;
    assert_ne!(controller.leaf(), leaf);
    assert_eq!(controller.text(AUTHORITY_PATH, "ca.crt"), authority);
}

/// One write is refused, whichever it is: nothing serves that isn't trusted, and the rest is made
/// good.
#[rstest]
#[case::the_first_authority(0, Method::POST, "/secrets")]
#[case::the_introduction(1, Method::PUT, "/migrations-ca")]
#[case::the_promotion(2, Method::PUT, "/migrations-ca")]
#[case::the_leaf_of_the_new_authority(2, Method::PUT, "/migrations-webhook-tls")]
#[case::the_end_of_the_old_authority(3, Method::PUT, "/migrations-ca")]
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_is_made_good(#[case] at: usize, #[case] method: Method, #[case] path: &str) {
    let mut controller = Controller::new();
    let phases = [Duration::ZERO, MINUTE * 60 * 24 * 365 * 7, MINUTE * 2, MINUTE * 60 * 24];
    for (phase, time) in phases.into_iter().enumerate() {
        controller.pass(time).await;
        if phase == at {
            controller.server.fail(Fault::refuse(method.clone(), path, 403));
            controller.keeper.look(controller.now).await.unwrap_err();
        }
        controller.looks().await;
        assert!(controller.is_trusted(&controller.told()), "in phase {phase}");
        controller.publish().await;
        controller.looks().await;
    }
    let bundle = controller.told();
    assert_eq!((certificates(bundle.pem()).len(), controller.is_trusted(&bundle)), (1, true));
}

#[rstest]
#[case::it_is_deleted(None)]
#[case::it_is_empty(Some(json!(null)))]
#[case::its_key_is_another(Some(json!({ "ca.key": "AAAA" })))]
#[case::its_certificate_is_garbage(Some(json!({ "ca.crt": "AAAA" })))]
#[tokio::test(start_paused = true)]
async fn a_lost_authority_stays_trusted_and_its_leaf_serves_until_another_has_arrived(
    #[case] damage: Option<Value>,
) {
    let controller = Controller::installed().await;
    let (before, leaf) = (controller.told(), controller.leaf());
    match damage {
        None => controller.delete(CA_SECRET).await,
        Some(data) => controller.change(CA_SECRET, data).await,
    }
    // Neither the Secret nor a process knows any more whom clients trust.
    let mut controller = controller.next();
    controller.looks().await;
    let both = controller.told();
    assert!(both.pem().starts_with(before.pem()) && both != before);
    assert_eq!(controller.leaf(), leaf);

    controller.publish().await;
    controller.looks().await;
    controller.looks_after(MINUTE).await;
    assert_eq!(controller.leaf(), leaf);
    controller.looks_after(MINUTE).await;
    assert!(!controller.is_trusted(&before) && controller.is_trusted(&both));
    controller.looks_after(MINUTE * 60 * 24).await;
    assert_eq!(both.pem(), [before.pem(), controller.told().pem()].concat());
}

/// Who publishes what is told would take away what clients need.
#[tokio::test(start_paused = true)]
async fn a_bundle_that_lacks_what_clients_trust_is_never_told() {
    let controller = Controller::installed().await;
    controller.delete(CA_SECRET).await;
    let mut controller = controller.next();
    controller.server.fail(Fault::refuse(Method::POST, "/secrets", 403));
    controller.keeper.look(controller.now).await.unwrap_err();
    assert_eq!(*controller.bundle.borrow(), None);
}

/// As in `kubectl delete secrets --all`: replicas go on with the leaf that they hold.
#[tokio::test(start_paused = true)]
async fn with_both_secrets_lost_a_leaf_is_written_once_clients_trust_it() {
    let mut controller = Controller::installed().await;
    let before = controller.told();
    controller.delete(CA_SECRET).await;
    controller.delete(SERVING_SECRET).await;
    controller.looks().await;
    assert!(controller.told().pem().starts_with(before.pem()));
    controller.publish().await;
    controller.looks().await;
    assert!(controller.server.object(LEAF_PATH).is_none());
    controller.looks_after(MINUTE * 2).await;
    assert!(controller.is_trusted(&controller.told()));
}

/// It came from a backup, or another cluster.
#[tokio::test(start_paused = true)]
async fn an_authority_that_clients_never_heard_of_does_not_sign_at_once() {
    let mut controller = Controller::installed().await;
    let (before, leaf) = (controller.told(), controller.leaf());
    let mut other = Controller::new();
    other.looks().await;
    let foreign = other.server.object(AUTHORITY_PATH).unwrap()["data"].clone();
    controller.change(CA_SECRET, foreign).await;
    controller.looks().await;
    assert_eq!(controller.told().pem(), [before.pem(), other.told().pem()].concat());
    assert_eq!(controller.leaf(), leaf);
    controller.publish().await;
    controller.looks().await;
    controller.looks_after(MINUTE * 2).await;
    assert!(controller.is_trusted(&other.told()));
}

#[rstest]
#[case::it_is_deleted(None)]
#[case::it_is_empty(Some(json!(null)))]
#[case::its_key_is_another(Some(json!({ "tls.key": "AAAA" })))]
#[case::its_certificate_is_garbage(Some(json!({ "tls.crt": "AAAA" })))]
#[tokio::test(start_paused = true)]
async fn a_leaf_that_cannot_be_served_is_replaced_at_once_by_the_same_authority(
    #[case] damage: Option<Value>,
) {
    let mut controller = Controller::installed().await;
    let (bundle, leaf) = (controller.told(), controller.leaf());
    match damage {
        None => controller.delete(SERVING_SECRET).await,
        Some(data) => controller.change(SERVING_SECRET, data).await,
    }
    controller.looks().await;
    assert_ne!(controller.leaf(), leaf);
    assert!(controller.is_trusted(&bundle) && controller.told() == bundle);
}

#[tokio::test(start_paused = true)]
async fn who_loses_a_race_takes_what_the_winner_made() {
    let mut controller = Controller::new();
    // The first create is this controller's own, but as far as it knows another was faster.
    controller.server.fail(Fault::lose_answer_with(Method::POST, "/secrets", 409));
    controller.looks().await;
    assert_eq!(controller.text(AUTHORITY_PATH, "ca.crt"), controller.told().pem());
    assert_eq!(controller.writes(), 2, "{:?}", controller.server.writes());
}

/// Of two controllers that look at the same time, one is refused and looks again.
#[tokio::test(start_paused = true)]
async fn every_write_over_a_secret_names_the_version_that_was_read_the_leafs_first() {
    let mut controller = Controller::introduced().await;
    controller.publish().await;
    controller.looks().await;
    controller.looks_after(MINUTE * 2).await;
    controller.looks_after(MINUTE * 60 * 24).await;
    let requests = controller.server.requests();
    let replaced: Vec<_> = requests.iter().filter(|it| it.method == Method::PUT).collect();
    assert_eq!(replaced.len(), 5, "{:?}", controller.server.writes());
    for request in replaced {
        assert!(request.body["metadata"]["resourceVersion"].is_string(), "{}", request.path);
    }
    let read = requests.iter().filter(|it| it.method == Method::GET && it.path.contains("/secrets/"));
    let read: Vec<_> = read.map(|it| it.path.as_str()).collect();
    assert!(read.chunks(2).all(|pair| pair == [LEAF_PATH, AUTHORITY_PATH]), "{read:?}");
}

/// Not the same as that there is nobody to trust anyone.
#[tokio::test(start_paused = true)]
async fn nothing_is_made_while_it_is_not_known_whom_clients_trust() {
    let mut controller = Controller::installed().await;
    controller.delete(CA_SECRET).await;
    let written = controller.writes();
    controller.server.fail(Fault::refuse(Method::GET, REQUIRED_CONFIGURATION, 500));
    let error = controller.keeper.look(controller.now).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot read MutatingWebhookConfiguration zz-migrations-required");
    assert_eq!(controller.writes(), written);
}

#[tokio::test(start_paused = true)]
async fn the_bundle_is_written_once_and_put_right_when_changed() {
    let controller = Controller::installed().await;
    let (client, bundle, before) = (controller.server.client(), controller.told(), controller.writes());
    for _ in 0..2 {
        ensure_bundle(&client, "other", &bundle).await.unwrap();
    }
    assert_eq!(controller.writes(), before + 1);

    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "other");
    let emptied = Patch::Merge(json!({ "data": { "ca.crt": "" } }));
    maps.patch(CA_BUNDLE_CONFIG_MAP, &PatchParams::default(), &emptied).await.unwrap();
    ensure_bundle(&client, "other", &bundle).await.unwrap();
    let map = maps.get(CA_BUNDLE_CONFIG_MAP).await.unwrap();
    assert_eq!(map.data.unwrap()[CA_BUNDLE_KEY], bundle.pem());
}
