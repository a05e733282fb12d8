//! The rules of admission, a row each, and the patch as it is sent.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    Gate, Injection, Migrator, Resources, Selector, Settings, UnsupportedPods, Untouched, Verdict, names,
};

fn gate(migrator: &str, app: &str) -> Gate {
    let selector = serde_json::from_value(json!({"matchLabels": {"app": app}})).unwrap();
    Gate {
        migrator: migrator.to_owned(),
        selector: Ok(Selector::parse(&selector).unwrap()),
        template_selector: None,
        open: false,
        container: None,
        done: Vec::new(),
    }
}

/// The shop's gate once `image` of `container` is migrated.
fn done(container: Option<&str>, image: &str) -> Gate {
    let container = container.map(str::to_owned);
    Gate { container, done: vec![image.to_owned()], ..gate("shop", "shop") }
}

fn settings() -> Settings {
    Settings {
        image: "waiter:1".to_owned(),
        servers: vec![
            "10.96.0.7:9444".to_owned(),
            "migrations-webhook.migrations-operator.svc:9444".to_owned(),
        ],
        server_name: "migrations-webhook.migrations-operator.svc".to_owned(),
        resources: Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() },
        unsupported: UnsupportedPods::Refuse,
        timeout: None,
    }
}

/// A Pod of the shop, with `changes` merged into it.
fn shop_pod(changes: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"generateName": "shop-7d-", "labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "image": "shop:2"}, {"name": "log", "image": "log:1"}]},
    });
    json_patch::merge(&mut pod, changes);
    pod
}

fn decide(pod: &Value, gates: &[Gate], settings: &Settings) -> Verdict {
    super::decide(&pod.into(), "default", gates, settings)
}

fn patch(pod: &Value, injection: &Injection) -> json_patch::Patch {
    let patch = super::patch(&pod.into(), injection);
    let json = serde_json::to_value(&patch).unwrap();
    assert_eq!(patch.is_empty(), json == json!([]));
    serde_json::from_value(json).unwrap()
}

fn admit(pod: &Value, gates: &[Gate]) -> Value {
    let mut after = pod.clone();
    match decide(pod, gates, &settings()) {
        Verdict::Inject(injection) => json_patch::patch(&mut after, &patch(pod, &injection)).unwrap(),
        other => panic!("not injected: {other:?}"),
    }
    after
}

fn names_of(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[rstest]
#[case::no_migrator(json!({}), &[], Untouched::NoMatch)]
#[case::other_labels(json!({}), &[gate("blog", "blog")], Untouched::NoMatch)]
#[case::no_labels(json!({"metadata": {"labels": null}}), &[gate("shop", "shop")], Untouched::NoMatch)]
#[case::no_wait(json!({"metadata": {"annotations": {names::NO_WAIT_ANNOTATION: "true"}}}), &[gate("shop", "shop")], Untouched::NoWait)]
#[case::no_wait_wins_over_required(
    json!({"metadata": {"annotations": {names::NO_WAIT_ANNOTATION: "true", names::REQUIRED_ANNOTATION: "true"}}}),
    &[], Untouched::NoWait)]
#[case::pod_of_a_run(
    json!({"metadata": {
        "labels": {names::RUN_LABEL: "shop"}, "annotations": {names::NO_WAIT_ANNOTATION: "true"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "shop-1", "uid": "1", "controller": true}],
    }}),
    &[gate("shop", "shop")], Untouched::Run)]
#[case::image_done(json!({}), &[done(None, "shop:2")], Untouched::Done)]
#[case::image_of_the_named_container_done(json!({}), &[done(Some("log"), "log:1")], Untouched::Done)]
#[case::required_and_done(
    json!({"metadata": {"annotations": {names::REQUIRED_ANNOTATION: "true"}}}),
    &[done(None, "shop:2")], Untouched::Done)]
#[case::opened_gate(json!({}), &[Gate { open: true, ..gate("shop", "shop") }], Untouched::Done)]
#[case::mirror_of_a_static_pod(
    json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "c0ffee"}}}), &[gate("shop", "shop")], Untouched::Mirror)]
#[case::mirror_wins_over_required(
    json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "c0ffee", names::REQUIRED_ANNOTATION: "true"}}}),
    &[], Untouched::Mirror)]
#[case::unsupported_and_done(json!({"spec": {"os": {"name": "windows"}}}), &[done(None, "shop:2")], Untouched::Done)]
#[case::unsupported_and_not_selected(
    json!({"spec": {"os": {"name": "windows"}}}), &[gate("blog", "blog")], Untouched::NoMatch)]
#[case::unreadable_migrator(json!({}), &[Gate::unreadable("shop", "spec.selector: missing")], Untouched::NoMatch)]
fn a_pod_that_need_not_wait_is_left_alone(
    #[case] changes: Value,
    #[case] gates: &[Gate],
    #[case] reason: Untouched,
) {
    assert_eq!(decide(&shop_pod(&changes), gates, &settings()), Verdict::Untouched(reason));
}

#[rstest]
#[case::another_image_done(done(None, "shop:1"))]
#[case::another_containers_image_done(done(None, "log:1"))]
#[case::named_container_absent(done(Some("nobody"), "shop:2"))]
fn a_pod_whose_key_is_not_done_waits(#[case] gate: Gate) {
    let after = admit(&shop_pod(&json!({})), &[gate]);
    assert_eq!(names_of(&after["spec"]["initContainers"]), ["migrate-wait-shop"]);
}

#[rstest]
#[case::of_a_replica_set(
    json!({"metadata": {"labels": {"pod-template-hash": "7d"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d", "uid": "u1", "controller": true}]}}),
    Some("--revision=u1/7d"))]
#[case::bare(json!({}), None)]
fn a_waiter_is_given_what_its_pod_was_made_from(#[case] changes: Value, #[case] expected: Option<&str>) {
    let after = admit(&shop_pod(&changes), &[gate("shop", "shop")]);
    let arguments = after["spec"]["initContainers"][0]["args"].as_array().unwrap();
    let revision = arguments.iter().filter_map(Value::as_str).find(|it| it.starts_with("--revision"));
    assert_eq!(revision, expected);
}

#[rstest]
#[case::all(json!({"metadata": {"labels": {"tier": ""}}}), json!({"app": "shop", "tier": ""}))]
#[case::too_many(json!({"metadata": {"labels": {"tier": "x".repeat(8 * 1024)}}}), json!({}))]
fn a_waiter_is_told_its_pods_labels(#[case] changes: Value, #[case] expected: Value) {
    let after = admit(&shop_pod(&changes), &[gate("shop", "shop")]);
    let arguments: Vec<String> =
        serde_json::from_value(after["spec"]["initContainers"][0]["args"].clone()).unwrap();
    assert_eq!(json!(migrations_protocol::Arguments::parse(arguments).unwrap().labels), expected);
}

#[rstest]
#[case::all("shop:2".to_owned(), 2)]
#[case::too_many("x".repeat(32 * 1024), 0)]
fn a_waiter_is_told_its_pods_containers(#[case] image: String, #[case] expected: usize) {
    let mut pod = shop_pod(&json!({}));
    pod["spec"]["containers"][0]["image"] = image.into();
    let after = admit(&pod, &[gate("shop", "shop")]);
    let arguments: Vec<String> =
        serde_json::from_value(after["spec"]["initContainers"][0]["args"].clone()).unwrap();
    assert_eq!(migrations_protocol::Arguments::parse(arguments).unwrap().containers.len(), expected);
}

#[rstest]
#[case::leads(json!({"matchLabels": {"app": "shop"}}), false)]
#[case::follows(json!({"matchLabels": {"role": "leader"}}), true)]
fn a_waiter_is_told_whether_its_pod_follows_others(#[case] leaders: Value, #[case] follows: bool) {
    let leaders = Selector::parse(&serde_json::from_value(leaders).unwrap()).ok();
    let after = admit(&shop_pod(&json!({})), &[Gate { template_selector: leaders, ..gate("shop", "shop") }]);
    let arguments = after["spec"]["initContainers"][0]["args"].as_array().unwrap();
    assert_eq!(arguments.iter().any(|it| it == "--follower"), follows);
}

#[rstest]
#[case::without_end(None, None)]
#[case::for_a_while(Some(600), Some("--timeout=600"))]
fn a_waiter_is_told_how_long_to_wait(#[case] timeout: Option<u64>, #[case] expected: Option<&str>) {
    let settings = Settings { timeout, ..settings() };
    let Verdict::Inject(injection) = decide(&shop_pod(&json!({})), &[gate("shop", "shop")], &settings) else {
        panic!("not injected");
    };
    let arguments = injection.containers[0].args.clone().unwrap();
    assert_eq!(arguments.iter().find(|it| it.starts_with("--timeout")).map(String::as_str), expected);
}

#[test]
fn a_waiter_that_is_there_is_brought_up_to_date_also_when_the_image_is_done() {
    let old = json!({"spec": {"initContainers": [{"name": "migrate-wait-shop", "image": "waiter:0"}]}});
    let after = admit(&shop_pod(&old), &[done(None, "shop:2")]);
    assert_eq!(after["spec"]["initContainers"][0]["image"], "waiter:1");
}

#[rstest]
#[case::no_wait_must_be_true(json!({"metadata": {"annotations": {names::NO_WAIT_ANNOTATION: "yes"}}}))]
#[case::run_label_alone_is_no_run(json!({"metadata": {"labels": {names::RUN_LABEL: "shop"}}}))]
#[case::required_and_selected(json!({"metadata": {"annotations": {names::REQUIRED_ANNOTATION: "true"}}}))]
fn a_selected_pod_waits(#[case] changes: Value) {
    let after = admit(&shop_pod(&changes), &[gate("shop", "shop")]);
    assert_eq!(names_of(&after["spec"]["initContainers"]), ["migrate-wait-shop"]);
}

#[rstest]
#[case::generated_name(json!({}), "\"shop-7d-\"")]
#[case::name(json!({"metadata": {"name": "shop-0"}}), "\"shop-0\"")]
#[case::namespace(json!({}), "in namespace \"default\"")]
#[case::annotation(json!({}), "migrations.coderanger.net/required: \"true\"")]
#[case::fix(json!({}), "create a Migrator whose spec.selector matches")]
#[case::unreadable_migrator_is_told(json!({}), "Migrator \"broken\" can't be followed: spec.selector is empty")]
fn a_required_pod_without_a_migrator_is_refused(#[case] changes: Value, #[case] said: &str) {
    let mut pod = shop_pod(&changes);
    json_patch::merge(&mut pod, &json!({"metadata": {"annotations": {names::REQUIRED_ANNOTATION: "true"}}}));
    let gates = [gate("blog", "blog"), Gate::unreadable("broken", "spec.selector is empty")];
    match decide(&pod, &gates, &settings()) {
        Verdict::Refuse { message } => assert!(message.contains(said), "{message}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_migrator_with_a_selector_that_cannot_be_followed_is_a_gate_that_says_so() {
    let migrator = Migrator::new("shop", migrations_api::MigratorSpec::default());
    let error = Gate::of(&migrator).selector.unwrap_err();
    assert!(error.starts_with("spec.selector is empty"), "{error}");
}

#[rstest]
#[case::windows(json!({"os": {"name": "windows"}}), "it asks for nodes that run Windows")]
#[case::other_architecture(json!({"nodeSelector": {"kubernetes.io/arch": "s390x"}}), "of the architecture s390x")]
#[case::whose(json!({"os": {"name": "windows"}}), "Pod \"shop-7d-\" in namespace \"default\" has to wait for Migrator \"shop\"")]
#[case::fix(json!({"os": {"name": "windows"}}), "no-wait: \"true\"")]
#[case::setting(json!({"os": {"name": "windows"}}), "--unsupported-pods=admit")]
fn a_pod_that_has_to_wait_and_cannot_is_refused_unless_a_setting_lets_it_through(
    #[case] spec: Value,
    #[case] said: &str,
) {
    let (pod, gates) = (shop_pod(&json!({ "spec": spec })), [gate("shop", "shop")]);
    match decide(&pod, &gates, &settings()) {
        Verdict::Refuse { message } => assert!(message.contains(said), "{message}"),
        other => panic!("not refused: {other:?}"),
    }
    let admit = Settings { unsupported: UnsupportedPods::Admit, ..settings() };
    let verdict = decide(&pod, &gates, &admit);
    assert!(matches!(verdict, Verdict::Untouched(Untouched::Unsupported(_))), "{verdict:?}");
}

#[rstest]
#[case::no_init_containers(json!({}), &["migrate-wait-shop"])]
#[case::null(json!({"initContainers": null}), &["migrate-wait-shop"])]
#[case::none(json!({"initContainers": []}), &["migrate-wait-shop"])]
#[case::volumes_of_its_own(
    json!({"volumes": [{"name": "token", "projected": {"defaultMode": 256, "sources": []}}],
        "securityContext": {"fsGroup": 5, "supplementalGroups": [6]}}), &["migrate-wait-shop"])]
#[case::native_sidecar(
    json!({"initContainers": [{"name": "proxy", "image": "p:1", "restartPolicy": "Always"}]}),
    &["migrate-wait-shop", "proxy"])]
#[case::on_the_nodes_network(json!({"hostNetwork": true, "dnsPolicy": "Default"}), &["migrate-wait-shop"])]
#[case::names_of_its_own(
    json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}), &["migrate-wait-shop"])]
#[case::user_namespace(json!({"hostUsers": false}), &["migrate-wait-shop"])]
#[case::no_token(json!({"automountServiceAccountToken": false}), &["migrate-wait-shop"])]
#[case::overhead_and_gates(
    json!({"overhead": {"cpu": "10m"}, "schedulingGates": [{"name": "quota"}], "shareProcessNamespace": true}),
    &["migrate-wait-shop"])]
fn a_pod_of_any_shape_gets_its_waiter_first_and_is_else_as_it_was(
    #[case] spec: Value,
    #[case] expected: &[&str],
) {
    let mut pod = shop_pod(&json!({}));
    // Merged by hand: a merge patch would take a null away.
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    let after = admit(&pod, &[gate("shop", "shop")]);
    assert_eq!(names_of(&after["spec"]["initContainers"]), expected);
    assert_eq!(stripped(&after), stripped(&pod));
    assert_eq!(admit(&after, &[gate("shop", "shop")]), after);
}

/// The class that Kubernetes puts a Pod in, by its containers of both kinds or by what it asks for itself.
fn qos(pod: &Value) -> &'static str {
    let of = |kind: &str| pod["spec"][kind].as_array().cloned().unwrap_or_default();
    let of_pod = pod["spec"]["resources"].is_object().then(|| vec![pod["spec"].clone()]);
    let all = of_pod.unwrap_or_else(|| [of("containers"), of("initContainers")].concat());
    let set = |one: &Value, kind: &str, name: &str| one["resources"][kind][name].is_string();
    if !all.iter().any(|one| {
        ["requests", "limits"].iter().any(|kind| ["cpu", "memory"].iter().any(|it| set(one, kind, it)))
    }) {
        return "BestEffort";
    }
    let guaranteed = |one: &Value| {
        let (requests, limits) = (&one["resources"]["requests"], &one["resources"]["limits"]);
        requests == limits && ["cpu", "memory"].iter().all(|name| set(one, "limits", name))
    };
    if all.iter().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

#[rstest]
#[case::guaranteed(
    json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "50m", "memory": "64Mi"}}), "Guaranteed")]
#[case::guaranteed_whole_cpus(
    json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}), "Guaranteed")]
#[case::burstable(json!({"requests": {"cpu": "50m"}}), "Burstable")]
#[case::best_effort(json!({}), "BestEffort")]
fn a_waiter_leaves_its_pod_in_its_qos_class(#[case] resources: Value, #[case] class: &str) {
    let mut pod = shop_pod(&json!({}));
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        container["resources"] = resources.clone();
    }
    assert_eq!((qos(&pod), qos(&admit(&pod, &[gate("shop", "shop"), gate("a", "shop")]))), (class, class));
}

#[rstest]
#[case::of_the_containers(json!({}))]
#[case::of_the_pod(json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}))]
fn a_waiter_asks_for_the_same_when_it_is_looked_at_again(#[case] spec: Value) {
    let pod = shop_pod(&json!({ "spec": spec }));
    let once = admit(&pod, &[gate("shop", "shop")]);
    assert_eq!(admit(&once, &[gate("shop", "shop")]), once);
}

#[test]
fn migrators_with_long_names_have_a_waiter_each() {
    let names = [format!("{}-one", "m".repeat(80)), format!("{}-two", "m".repeat(80))];
    let after = admit(&shop_pod(&json!({})), &[gate(&names[0], "shop"), gate(&names[1], "shop")]);
    let waiters = names_of(&after["spec"]["initContainers"]);
    assert_eq!(waiters.iter().map(|name| name.len()).collect::<Vec<_>>(), [63, 63]);
    assert_ne!(waiters[0], waiters[1]);
}

#[rstest]
#[case::no_annotations(json!({"labels": {"sidecar.istio.io/inject": "true"}}), "9444")]
#[case::no_such_annotation(json!({"annotations": {"sidecar.istio.io/status": "{}", "a/b": "c"}}), "9444")]
#[case::others_are_left_out_already(
    json!({"annotations": {"traffic.sidecar.istio.io/excludeOutboundPorts": "3306,25"}}), "3306,25,9444")]
fn the_waiters_port_is_left_out_of_a_meshs_redirection(#[case] metadata: Value, #[case] ports: &str) {
    let pod = shop_pod(&json!({ "metadata": metadata }));
    let after = admit(&pod, &[gate("shop", "shop")]);
    let mut expected = pod["metadata"]["annotations"].clone();
    expected["traffic.sidecar.istio.io/excludeOutboundPorts"] = json!(ports);
    assert_eq!(after["metadata"]["annotations"], expected);
    assert_eq!(admit(&after, &[gate("shop", "shop")]), after);
}

#[test]
fn a_pod_of_no_mesh_keeps_its_annotations() {
    let pod = shop_pod(&json!({"metadata": {"annotations": {"a/b": "c"}}}));
    assert_eq!(admit(&pod, &[gate("shop", "shop")])["metadata"], pod["metadata"]);
}

#[test]
fn waiters_come_first_together_one_for_each_migrator() {
    let pod = shop_pod(&json!({"spec": {"initContainers": [{"name": "proxy"}, {"name": "setup"}]}}));
    let after = admit(&pod, &[gate("a", "shop"), gate("b", "shop"), gate("c", "blog")]);
    let containers = &after["spec"]["initContainers"];
    assert_eq!(names_of(containers), ["migrate-wait-a", "migrate-wait-b", "proxy", "setup"]);
}

#[test]
fn an_old_waiter_is_rewritten_where_it_stands() {
    let old = json!({"name": "migrate-wait-shop", "image": "old:1", "command": ["/waiter", "http://api"]});
    let pod = shop_pod(&json!({"spec": {
        "initContainers": [{"name": "setup"}, old],
        "volumes": [{"name": "data"}, {"name": names::WAITER_VOLUME, "emptyDir": {}}],
    }}));
    let after = admit(&pod, &[gate("shop", "shop")]);
    let containers = &after["spec"]["initContainers"];
    assert_eq!(names_of(containers), ["setup", "migrate-wait-shop"]);
    assert_eq!(containers[1]["image"], "waiter:1");
    assert_eq!(containers[1]["command"], Value::Null);
    assert_eq!(names_of(&after["spec"]["volumes"]), ["data", names::WAITER_VOLUME]);
    assert!(after["spec"]["volumes"][1]["projected"].is_object());
}

#[test]
fn an_old_waiter_behind_the_container_of_another_webhook_stays_there_and_is_brought_up_to_date() {
    let gates = [gate("shop", "shop")];
    let mut pod = admit(&shop_pod(&json!({})), &gates);
    pod["spec"]["initContainers"][0]["image"] = json!("mirror.example/waiter:0");
    pod["spec"]["initContainers"][0]["env"][0]["value"] = json!("of another version");
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, json!({"name": "istio-init"}));
    let after = admit(&pod, &gates);
    assert_eq!(names_of(&after["spec"]["initContainers"]), ["istio-init", "migrate-wait-shop"]);
    assert_eq!(after["spec"]["initContainers"][1]["image"], "waiter:1");
}

#[test]
fn a_new_waiter_goes_before_an_old_one_of_another_migrator_which_is_left_alone() {
    let old = json!({"name": "migrate-wait-gone", "image": "waiter:0"});
    let pod = shop_pod(&json!({"spec": {
        "initContainers": [&old], "volumes": [{"name": names::WAITER_VOLUME, "emptyDir": {}}],
    }}));
    let after = admit(&pod, &[gate("shop", "shop")]);
    assert_eq!(names_of(&after["spec"]["initContainers"]), ["migrate-wait-shop", "migrate-wait-gone"]);
    assert_eq!(after["spec"]["initContainers"][1], old);
    assert_eq!(names_of(&after["spec"]["volumes"]), [names::WAITER_VOLUME]);
}

#[test]
fn what_other_webhooks_made_of_todays_waiter_stays() {
    let gates = [gate("shop", "shop")];
    let mut pod = admit(&shop_pod(&json!({})), &gates);
    pod["spec"]["initContainers"][0]["image"] = json!("mirror.example/waiter:1");
    pod["spec"]["initContainers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    assert_eq!(admit(&pod, &gates), pod);
}

#[test]
fn a_waiter_whose_pod_has_got_another_image_is_rewritten() {
    let gates = [gate("shop", "shop")];
    let mut pod = admit(&shop_pod(&json!({})), &gates);
    pod["spec"]["containers"][0]["image"] = json!("shop:3");
    let args = admit(&pod, &gates)["spec"]["initContainers"][0]["args"].to_string();
    assert!(args.contains("app=shop:3"), "{args}");
}

#[rstest]
#[case::nobody_says(json!({}), 65532)]
#[case::pod_says(json!({"spec": {"securityContext": {"runAsUser": 1000}}}), 1000)]
#[case::root(json!({"spec": {"securityContext": {"runAsUser": 0}}}), 65532)]
#[case::containers_agree(
    json!({"spec": {"containers": [{"securityContext": {"runAsUser": 7}}, {"securityContext": {"runAsUser": 7}}]}}), 7)]
#[case::container_wins_over_pod(
    json!({"spec": {"securityContext": {"runAsUser": 5}, "containers": [{"securityContext": {"runAsUser": 7}}]}}), 7)]
#[case::containers_differ_within_a_range(
    json!({"spec": {"containers": [
        {"securityContext": {"runAsUser": 1_000_650_000}}, {"securityContext": {"runAsUser": 1_000_650_001}}]}}), 1_000_650_000)]
#[case::one_is_root(
    json!({"spec": {"securityContext": {"runAsUser": 0}, "containers": [{}, {"securityContext": {"runAsUser": 7}}]}}), 7)]
#[case::one_leaves_it_open(
    json!({"spec": {"containers": [{}, {"securityContext": {"runAsUser": 7}}]}}), 7)]
#[case::group_alone_says_nothing(json!({"spec": {"securityContext": {"runAsGroup": 5, "fsGroup": 6}}}), 65532)]
#[case::not_root_whoever(json!({"spec": {"securityContext": {"runAsNonRoot": true}}}), 65532)]
fn a_waiter_runs_as_the_pods_user(#[case] changes: Value, #[case] user: i64) {
    let after = admit(&shop_pod(&changes), &[gate("shop", "shop")]);
    assert_eq!(after["spec"]["initContainers"][0]["securityContext"]["runAsUser"], user);
}

#[test]
fn a_container_without_an_image_does_not_make_the_arguments_unreadable() {
    let pod =
        shop_pod(&json!({"spec": {"containers": [{"name": "app"}, {"name": "log", "image": "log:1"}]}}));
    let args = &admit(&pod, &[gate("shop", "shop")])["spec"]["initContainers"][0]["args"];
    let args: Vec<String> = serde_json::from_value(args.clone()).unwrap();
    let read = migrations_protocol::Arguments::parse(args).unwrap();
    assert_eq!(read.containers.len(), 1);
}

#[test]
fn the_patch_as_it_is_sent() {
    let mut pod = shop_pod(&json!({"spec": {"initContainers": [{"name": "setup", "image": "setup:1"}]}}));
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "50m", "memory": "64Mi"}});
    pod["metadata"]["annotations"] = json!({"linkerd.io/inject": "enabled"});
    match decide(&pod, &[gate("shop", "shop")], &settings()) {
        Verdict::Inject(injection) => insta::assert_json_snapshot!(patch(&pod, &injection)),
        other => panic!("not injected: {other:?}"),
    }
}

fn any_pod() -> impl Strategy<Value = Value> {
    let container = prop_oneof![
        Just(json!({"name": "setup", "image": "s"})),
        Just(json!({"name": "migrate-wait-a", "image": "old"})),
        Just(json!({"name": "migrate-wait-b", "env": [{"name": "X", "value": "y"}]})),
        Just(json!({"name": "proxy", "restartPolicy": "Always", "fieldOfTheFuture": 1})),
        Just(json!({"name": "istio-proxy", "resources": {"requests": {"cpu": "10m"}}})),
    ];
    let volume = prop_oneof![
        Just(json!({"name": "data"})),
        Just(json!({"name": names::WAITER_VOLUME, "emptyDir": {}}))
    ];
    (
        proptest::option::of(proptest::collection::hash_set(0..4_usize, 0..4)),
        proptest::collection::vec(container, 4),
        proptest::option::of(proptest::collection::vec(volume, 0..2)),
        proptest::option::of("[1-9][0-9]{0,3}m"),
    )
        .prop_map(|(kept, init, volumes, cpu)| {
            let mut seen = std::collections::BTreeSet::new();
            let init = kept.map(|kept| {
                let kept = kept.into_iter().filter_map(|index| init.get(index).cloned());
                kept.filter(|container| seen.insert(container["name"].to_string())).collect::<Vec<_>>()
            });
            let mut pod = json!({
                "metadata": {"name": "p", "labels": {"app": "shop"}},
                "spec": {"containers": [{"name": "app", "image": "shop:1"}], "unknown": {"kept": true}},
            });
            if let Some(init) = init {
                pod["spec"]["initContainers"] = json!(init);
            }
            if let Some(volumes) = volumes {
                pod["spec"]["volumes"] = json!(volumes);
            }
            if let Some(cpu) = cpu {
                pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": cpu}});
            }
            pod
        })
}

/// The Pod without anything of ours.
fn stripped(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for (list, ours) in [("initContainers", names::WAITER_PREFIX), ("volumes", names::WAITER_VOLUME)] {
        let rest: Vec<_> = pod["spec"][list].as_array().into_iter().flatten().cloned().collect();
        let rest: Vec<_> =
            rest.into_iter().filter(|item| !item["name"].as_str().unwrap().starts_with(ours)).collect();
        pod["spec"][list] = json!(rest);
    }
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove("traffic.sidecar.istio.io/excludeOutboundPorts");
    }
    if pod["metadata"]["annotations"].as_object().is_none_or(serde_json::Map::is_empty) {
        pod["metadata"].as_object_mut().unwrap().remove("annotations");
    }
    pod
}

proptest! {
    #[test]
    fn repeating_it_on_its_own_output_changes_nothing(pod in any_pod()) {
        let gates = [gate("a", "shop"), gate("b", "shop"), gate("c", "blog")];
        let once = admit(&pod, &gates);
        match decide(&once, &gates, &settings()) {
            Verdict::Inject(injection) => prop_assert_eq!(patch(&once, &injection), json_patch::Patch::default()),
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert_eq!(stripped(&once), stripped(&pod));
        for name in ["migrate-wait-a", "migrate-wait-b"] {
            let init = names_of(&once["spec"]["initContainers"]);
            prop_assert_eq!(init.iter().filter(|present| **present == name).count(), 1);
        }
    }
}
