use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use super::*;
use migrations_api::{DoneKey, How};
use rstest::rstest;

fn endpoint() -> Endpoint {
    Endpoint { namespace: "migrations-operator".to_owned(), ca_bundle: "Q0E=".to_owned() }
}

fn spec(more: &Value) -> MigratorSpec {
    let mut whole = json!({ "selector": { "matchLabels": { "app": "web" } } });
    json_patch::merge(&mut whole, more);
    serde_json::from_value(whole).unwrap()
}

fn done(images: &[&str]) -> MigratorStatus {
    let key = |image: &&str| DoneKey::new((*image).to_owned(), (*image).to_owned(), How::Succeeded);
    MigratorStatus { done: images.iter().map(key).collect(), ..MigratorStatus::default() }
}

/// A Migrator of namespace `shop` at version 41.
struct One {
    uid: &'static str,
    spec: MigratorSpec,
    status: MigratorStatus,
    open: bool,
}

fn one(uid: &'static str, more: &Value, images: &[&str]) -> One {
    One { uid, spec: spec(more), status: done(images), open: false }
}

fn all_of(migrators: &[One], version: &str) -> BTreeMap<String, Vec<Entry>> {
    let gated = migrators.iter().map(|One { uid, spec, status, open }| {
        let (namespace, status) = ("shop", Some(status));
        Gated { uid, resource_version: version, namespace, spec, status, open: *open }
    });
    configurations(gated, &endpoint())
}

/// The entries that speak of Migrators.
fn entries(migrators: &[One], version: &str) -> Vec<Entry> {
    let all = all_of(migrators, version).into_values().flatten();
    all.filter(|entry| !entry.migrators.is_empty()).collect()
}

fn settled(migrators: &[One], version: &str, in_place: &[Value]) -> Vec<Value> {
    entries(migrators, version).iter().map(|entry| entry.settled(in_place)).collect()
}

fn path_of(entry: &Value) -> &str {
    entry["clientConfig"]["service"]["path"].as_str().unwrap()
}

fn skips(entry: &Value) -> Option<&str> {
    let conditions = entry["matchConditions"].as_array().unwrap();
    conditions.iter().find(|it| it["name"] == "image-not-done").map(|it| it["expression"].as_str().unwrap())
}

#[test]
fn an_entry_asks_for_the_pods_that_its_migrator_selects() {
    let migrator = one("7d1f", &json!({ "container": "app" }), &["shop:v1", "it's \"odd\"\\"]);
    insta::assert_json_snapshot!(settled(&[migrator], "41", &[]));
}

#[test]
fn every_shipped_configuration_is_spoken_of() {
    let all = all_of(&[], "1");
    assert_eq!(all.len(), names::ENTRY_SHARDS + 2);
    let own = [names::REQUIRED_CONFIGURATION, names::PROBE_CONFIGURATION];
    assert!(all.iter().all(|(name, entries)| entries.is_empty() != own.contains(&name.as_str())));
}

#[test]
fn pods_annotated_as_required_are_asked_for_everywhere_but_in_two_namespaces() {
    insta::assert_json_snapshot!(required_entry(&endpoint()).settled(&[]));
}

#[rstest]
#[case::the_clusters_own("kube-system", true)]
#[case::the_operators("migrations-operator", true)]
#[case::anyones("shop", false)]
#[case::one_named_alike("kube-system-2", false)]
fn no_pod_is_held_in(#[case] namespace: &str, #[case] excluded: bool) {
    assert_eq!(is_excluded(namespace, "migrations-operator"), excluded);
}

#[test]
fn entries_are_spread_over_all_configurations() {
    let selecting = |app: usize| json!({ "selector": { "matchLabels": { "app": format!("app-{app}") } } });
    let migrators: Vec<_> =
        (0..200).map(|app| one(format!("uid-{app}").leak(), &selecting(app), &[])).collect();
    let all = all_of(&migrators, "41");
    let counts: Vec<_> =
        (0..names::ENTRY_SHARDS).map(|it| all[&names::entry_configuration(it)].len()).collect();
    assert!(counts.iter().all(|count| (1..50).contains(count)), "{counts:?}");
}

#[test]
fn equal_selectors_of_two_namespaces_are_two_entries() {
    let spec = spec(&json!({}));
    let gated = ["blog", "shop"].map(|namespace| {
        let (uid, resource_version, status) = (namespace, "41", None);
        Gated { uid, resource_version, namespace, spec: &spec, status, open: false }
    });
    let all = configurations(gated, &endpoint()).into_values().flatten();
    let entries: BTreeMap<_, _> = all
        .filter(|entry| !entry.migrators.is_empty())
        .map(|entry| (entry.name().to_owned(), entry.settled(&[])["namespaceSelector"].clone()))
        .collect();
    let of = |namespace: &str| {
        let name = format!("{namespace}.{}", names::GROUP);
        (name, json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } }))
    };
    assert_eq!(entries, BTreeMap::from([of("blog"), of("shop")]));
}

#[test]
fn an_empty_container_name_is_none() {
    let entry = &settled(&[one("a", &json!({ "container": "" }), &["v1"])], "41", &[])[0];
    assert!(skips(entry).unwrap().contains("containers[0]"), "{entry}");
}

#[test]
fn an_open_gate_asks_for_nothing() {
    assert!(entries(&[One { open: true, ..one("7d1f", &json!({}), &[]) }], "1").is_empty());
}

#[test]
fn equal_selectors_share_an_entry_whatever_their_order() {
    let expressions = |flip: bool| {
        let mut all = vec![
            json!({ "key": "tier", "operator": "In", "values": if flip { ["b", "a"] } else { ["a", "b"] } }),
            json!({ "key": "old", "operator": "DoesNotExist" }),
        ];
        if flip {
            all.reverse();
        }
        json!({ "selector": { "matchExpressions": all } })
    };
    let shared = [one("b", &expressions(false), &[]), one("a", &expressions(true), &[])];
    let entries = settled(&shared, "41", &[]);
    assert_eq!(entries.iter().map(path_of).collect::<Vec<_>>(), ["/admit/a.41/b.41"]);
    assert_eq!(name_of(&entries[0]), "a.migrations.coderanger.net");

    let apart = [one("a", &json!({}), &[]), one("b", &expressions(false), &[])];
    assert_eq!(settled(&apart, "41", &[]).len(), 2);
}

/// The API server drops what is empty: what it gives back must not be a difference for ever.
#[rstest]
#[case::no_expressions(json!({ "matchLabels": { "app": "web" }, "matchExpressions": [] }))]
#[case::no_labels(json!({ "matchLabels": {}, "matchExpressions": [{ "key": "app", "operator": "Exists" }] }))]
#[case::no_values(json!({ "matchExpressions": [{ "key": "app", "operator": "Exists", "values": [] }] }))]
fn nothing_empty_is_written_of_a_selector(#[case] selector: Value) {
    let migrator = one("7d1f", &json!({}), &[]);
    let selector = serde_json::from_value(selector).unwrap();
    let entry =
        &settled(&[One { spec: MigratorSpec { selector, ..migrator.spec }, ..migrator }], "41", &[])[0];
    let text = entry["objectSelector"].to_string();
    assert!(text.contains("app") && !text.contains("[]") && !text.contains("{}"), "{text}");
}

#[rstest]
#[case::one(vec![one("a", &json!({}), &["v1"])], Some(r#"["v1"]"#))]
#[case::nothing_done(vec![one("a", &json!({}), &[])], None)]
#[case::what_both_have(vec![one("a", &json!({}), &["v1", "v2"]), one("b", &json!({}), &["v2", "v3"])], Some(r#"["v2"]"#))]
#[case::nothing_common(vec![one("a", &json!({}), &["v1"]), one("b", &json!({}), &["v2"])], None)]
#[case::one_of_them_has_none(vec![one("a", &json!({}), &["v1"]), one("b", &json!({}), &[])], None)]
#[case::followers(vec![one("a", &json!({ "templateSelector": { "matchLabels": { "role": "leader" } } }), &["v1"])], None)]
#[case::rerun_on_template(vec![one("a", &json!({ "rerunOn": "Template" }), &["v1"])], None)]
#[case::one_by_template(vec![one("a", &json!({}), &["v1"]), one("b", &json!({ "rerunOn": "Template" }), &["v1"])], None)]
fn a_pod_is_skipped_only_if_every_migrator_would(#[case] sharing: Vec<One>, #[case] list: Option<&str>) {
    let entries = settled(&sharing, "41", &[]);
    assert_eq!(entries.len(), 1);
    assert_eq!(skips(&entries[0]).is_some(), list.is_some());
    assert!(list.is_none_or(|list| skips(&entries[0]).unwrap().contains(list)), "{entries:?}");
}

/// As where each of many Jobs has an image of its own.
#[test]
fn of_many_done_images_the_newest_are_skipped() {
    let images: Vec<_> = (0..2000).map(|number| format!("registry.example.com/shop:{number:07}")).collect();
    let images: Vec<_> = images.iter().map(String::as_str).collect();
    let entries = settled(&[one("a", &json!({}), &images)], "41", &[]);
    let expression = skips(&entries[0]).unwrap();
    let last = conditions::MOST_IMAGES - 1;
    assert!(expression.contains(images[last]) && !expression.contains(images[last + 1]), "{expression}");
}

#[test]
fn migrators_of_different_containers_are_asked_each_for_its_own() {
    let sharing = [one("a", &json!({ "container": "x" }), &["v1"]), one("b", &json!({}), &["v2"])];
    let entries = settled(&sharing, "41", &[]);
    let expression = skips(&entries[0]).unwrap();
    let (first, second) = expression.split_once(" || ").unwrap();
    assert!(first.contains("containers[0]") && first.contains(r#"["v2"]"#), "{first}");
    assert!(second.contains(r#"c.name == "x""#) && second.contains(r#"["v1"]"#), "{second}");
}

#[test]
fn those_who_share_an_entry_come_and_go_within_one_configuration() {
    let place = |migrators: &[One]| {
        let all = all_of(migrators, "41");
        all.into_iter().find(|(_, entries)| entries.iter().any(|it| !it.migrators.is_empty())).unwrap().0
    };
    let alone = place(&[one("b", &json!({}), &[])]);
    assert_eq!(place(&[one("a", &json!({}), &[]), one("b", &json!({}), &[])]), alone);
}

#[test]
fn the_version_in_a_path_stays_while_the_selector_does() {
    let migrator = [one("7d1f", &json!({}), &[])];
    let first = settled(&migrator, "41", &[]);
    assert_eq!(path_of(&settled(&migrator, "50", &first)[0]), "/admit/7d1f.41");
    let changed = [one("7d1f", &json!({ "selector": { "matchLabels": { "app": "api" } } }), &[])];
    assert_eq!(path_of(&settled(&changed, "50", &first)[0]), "/admit/7d1f.50");
}

#[rstest]
#[case::beyond_todays("30", "/admit/7d1f.30")]
#[case::no_number("x", "/admit/7d1f")]
fn a_version_that_cannot_be_the_first_is_replaced(#[case] today: &str, #[case] path: &str) {
    let migrator = [one("7d1f", &json!({}), &[])];
    let in_place = settled(&migrator, "41", &[]);
    assert_eq!(path_of(&settled(&migrator, today, &in_place)[0]), path);
}

#[test]
fn a_newer_version_alone_is_no_news() {
    let hash = |version| {
        let entries = entries(&[one("7d1f", &json!({}), &["v1"])], version);
        BuildHasherDefault::<DefaultHasher>::default().hash_one(entries)
    };
    assert_eq!(hash("41"), hash("50"));
}

#[test]
fn what_a_platform_excludes_stays_and_is_no_difference() {
    let migrator = [one("7d1f", &json!({}), &[])];
    let mut in_place = settled(&migrator, "41", &[]);
    let excluded = json!([{ "key": "control-plane", "operator": "DoesNotExist" }]);
    in_place[0]["namespaceSelector"]["matchExpressions"] = excluded.clone();
    in_place[0]["fieldOfTheFuture"] = json!(1);
    assert!(!differ(&in_place, &settled(&migrator, "50", &in_place)));

    // It stays through a write of ours.
    let news = settled(&[one("7d1f", &json!({}), &["v1"])], "50", &in_place);
    assert!(differ(&in_place, &news));
    assert_eq!(news[0]["namespaceSelector"]["matchExpressions"], excluded);
}

#[test]
fn the_required_entry_keeps_its_own_exclusions_and_others() {
    let entry = required_entry(&endpoint());
    let mut in_place = entry.settled(&[]);
    let ours = in_place["namespaceSelector"]["matchExpressions"][0].clone();
    let theirs = json!({ "key": "control-plane", "operator": "DoesNotExist" });
    in_place["namespaceSelector"]["matchExpressions"] = json!([theirs]);
    let settled = entry.settled(&[in_place]);
    assert_eq!(settled["namespaceSelector"]["matchExpressions"], json!([theirs, ours]));
}

#[rstest]
#[case::gone(json!(null))]
#[case::fails_open(json!({ "failurePolicy": "Ignore" }))]
#[case::asks_for_fewer(json!({ "objectSelector": { "matchLabels": { "app": "web", "x": "y" } } }))]
#[case::other_namespaces(json!({ "namespaceSelector": { "matchLabels": { "x": "y" } } }))]
#[case::more_conditions(json!({ "matchConditions": [] }))]
#[case::trusts_another(json!({ "clientConfig": { "caBundle": "WA==" } }))]
fn any_other_change_is_a_difference(#[case] change: Value) {
    let migrator = [one("7d1f", &json!({}), &[])];
    let mut in_place = settled(&migrator, "41", &[]);
    if change.is_null() {
        in_place.clear();
    } else {
        json_patch::merge(&mut in_place[0], &change);
    }
    assert!(differ(&in_place, &settled(&migrator, "41", &in_place)));
}

#[test]
fn unproven_only_what_is_there_stays_and_trusts_whom_it_trusts() {
    let mut in_place = settled(&[one("b", &json!({}), &[])], "41", &[]);
    in_place[0]["clientConfig"]["caBundle"] = json!("b2xk");
    // Another joins, and names the entry from now on.
    let sharing = entries(&[one("a", &json!({}), &[]), one("b", &json!({}), &["v1"])], "50");
    let unproven = sharing[0].unproven(&in_place).unwrap();
    assert_eq!(unproven["clientConfig"]["caBundle"], "b2xk");
    assert_eq!(path_of(&unproven), "/admit/a.50/b.41");
    assert_eq!(sharing[0].unproven(&[]), None);
    assert_eq!(required_entry(&endpoint()).unproven(&in_place), None);
}

#[test]
fn an_entry_that_stays_changes_in_whom_it_trusts_and_in_nothing_else() {
    let mut entry = settled(&[one("a", &json!({}), &["v1"])], "41", &[]).remove(0);
    entry["fieldOfTheFuture"] = json!(1);
    let trusting = trusting(&entry, "bmV3");
    entry["clientConfig"]["caBundle"] = json!("bmV3");
    assert_eq!(trusting, entry);
}

#[test]
fn an_entry_is_found_by_the_migrators_in_its_path() {
    let entry = &settled(&[one("a", &json!({}), &[]), one("b", &json!({}), &[])], "41", &[])[0];
    let uids = |uid: &str| BTreeSet::from([uid.to_owned()]);
    assert!(speaks_of(entry, &uids("b")) && !speaks_of(entry, &uids("c")));
}

#[test]
fn those_who_stay_alone_stay_with_what_they_shared() {
    let sharing = [one("a", &json!({}), &["v1", "v2"]), one("b", &json!({}), &["v1"])];
    let mut entry = settled(&sharing, "41", &[]).remove(0);
    let apart = apart(&entry, &BTreeSet::from(["b".to_owned()]));
    assert_eq!((name_of(&apart), path_of(&apart)), ("b.migrations.coderanger.net", "/admit/b.41"));
    entry["name"] = apart["name"].clone();
    entry["clientConfig"] = apart["clientConfig"].clone();
    assert_eq!(apart, entry, "nothing else changes");
}

#[rstest]
#[case::nothing_changed(0, 1)]
#[case::changed_back_once(1, 2)]
#[case::changed_back_again(3, 8)]
#[case::never_later(40, 16)]
fn corrections_that_do_not_last_are_made_ever_more_seldom(#[case] corrections: u32, #[case] minutes: u64) {
    assert_eq!(compare_after(corrections), Duration::from_mins(minutes));
}

#[rstest]
#[case::short("is invalid: é", "is invalid: é")]
#[case::long(&format!("a{}é", "x".repeat(2000)), &format!("a{} ... {}é", "x".repeat(299), "x".repeat(699)))]
fn a_long_refusal_keeps_both_ends(#[case] message: &str, #[case] told: &str) {
    assert_eq!(refusal(message), told);
}

#[test]
fn a_probe_is_asked_for_by_its_own_entry_alone() {
    let entry = probe::entry(&endpoint()).settled(&[]);
    assert_eq!(Caller::of(path_of(&entry)), Caller::Probe);
    assert_eq!(entry["objectSelector"]["matchLabels"], probe::pod()["metadata"]["labels"]);
    assert_eq!(
        entry["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "migrations-operator"
    );
}
