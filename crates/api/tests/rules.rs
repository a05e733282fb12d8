//! The rules of the shipped CRD, on values that a user may write. That the API server takes the rules
//! and says the same is tested in `migrations-testkit`, against a real one.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test ends with a panic; cases read best by value"
)]

use cel::{Context, Program, Value as CelValue};
use rstest::rstest;
use serde_json::{Value, json};

const CRD: &str = include_str!("../../../manifests/crd.yaml");

/// What the rules of `schema` and of all below it say about `value`, with the field's path.
fn refusals(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if value.is_null() && schema["nullable"] == true {
        return Vec::new();
    }
    let broken = |rule: &&Value| {
        let program = Program::compile(rule["rule"].as_str().unwrap()).unwrap();
        let mut context = Context::default();
        context.add_variable_from_value("self", cel(value));
        program.execute(&context).unwrap() != CelValue::Bool(true)
    };
    let said = |rule: &Value| {
        format!("{path}{}: {}", rule["fieldPath"].as_str().unwrap_or(""), rule["message"].as_str().unwrap())
    };
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let here = rules.filter(broken).map(said);
    let fields = value.as_object().into_iter().flatten().flat_map(|(name, value)| {
        let below = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        refusals(below, value, &format!("{path}.{name}"))
    });
    let items = value.as_array().into_iter().flatten().enumerate();
    let items = items.flat_map(|(index, item)| refusals(&schema["items"], item, &format!("{path}[{index}]")));
    here.chain(fields).chain(items).collect()
}

/// As the API server sees it: whole numbers are `int`.
fn cel(value: &Value) -> CelValue {
    match value.as_i64() {
        Some(number) => CelValue::Int(number),
        None => cel::to_value(value).unwrap(),
    }
}

fn refusals_of(field: &str, value: &Value) -> Vec<String> {
    let crd: Value = serde_yaml_ng::from_str(CRD).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    assert!(spec["properties"].get(field).is_some(), "{field} is in the schema");
    refusals(spec, &json!({ field: value }), "spec")
}

fn expression(operator: &str, values: &Value) -> Value {
    let mut expression = json!({ "key": "app", "operator": operator });
    if !values.is_null() {
        expression["values"] = values.clone();
    }
    json!({ "matchExpressions": [{ "key": "team", "operator": "Exists" }, expression] })
}

#[rstest]
#[case::in_without_values("selector", expression("In", &Value::Null), "spec.selector.matchExpressions[1].values: In and NotIn compare the label with values: add at least one")]
#[case::in_with_empty_values("selector", expression("In", &json!([])), "spec.selector.matchExpressions[1].values: In and NotIn compare the label with values: add at least one")]
#[case::not_in_without_values("templateSelector", expression("NotIn", &Value::Null), "spec.templateSelector.matchExpressions[1].values: In and NotIn compare the label with values: add at least one")]
#[case::exists_with_values("selector", expression("Exists", &json!(["a"])), "spec.selector.matchExpressions[1].values: Exists and DoesNotExist take no values: remove them, or use In or NotIn")]
#[case::absent_with_values("templateSelector", expression("DoesNotExist", &json!(["a"])), "spec.templateSelector.matchExpressions[1].values: Exists and DoesNotExist take no values: remove them, or use In or NotIn")]
#[case::negative_backoff("backoffLimit", json!(-1), "spec.backoffLimit: must be 0 or more; 0: a failed migration is never tried again by itself")]
#[case::negative_successes("successfulJobsHistoryLimit", json!(-1), "spec.successfulJobsHistoryLimit: must be 0 or more; 0: none is kept")]
#[case::negative_failures("failedJobsHistoryLimit", json!(-1), "spec.failedJobsHistoryLimit: must be 0 or more; 0: none is kept")]
#[case::deadline_of_zero("activeDeadlineSeconds", json!(0), "spec.activeDeadlineSeconds: must be from 1 to 2147483647 seconds; leave it out for no limit")]
#[case::deadline_beyond_a_pods("activeDeadlineSeconds", json!(2_147_483_648_u64), "spec.activeDeadlineSeconds: must be from 1 to 2147483647 seconds; leave it out for no limit")]
#[case::lock_in_upper_case("lock", json!("Orders"), "spec.lock: a lock's name holds lower-case letters, digits, `-` and `.`, and starts and ends with a letter or digit")]
#[case::lock_with_a_slash("lock", json!("shop/orders"), "spec.lock: a lock's name holds lower-case letters, digits, `-` and `.`, and starts and ends with a letter or digit")]
#[case::account_with_an_underscore("serviceAccountName", json!("shop_ddl"), "spec.serviceAccountName: not the name of a service account: those hold lower-case letters, digits, `-` and `.`, and start and end with a letter or digit")]
#[case::kept_without_a_name("keepContainers", json!(["proxy", ""]), "spec.keepContainers[1]: not the name of a container: those hold lower-case letters, digits and `-`, and start and end with a letter or digit")]
#[case::variable_without_a_name("env", json!([{ "name": "" }]), "spec.env[0].name: a variable's name has at least one character and no `=`: the value belongs into `value`")]
#[case::variable_with_an_assignment("env", json!([{ "name": "A=1" }]), "spec.env[0].name: a variable's name has at least one character and no `=`: the value belongs into `value`")]
#[case::variable_with_value_and_source("env", json!([{ "name": "A", "value": "1", "valueFrom": {} }]), "spec.env[0]: a variable has either `value` or `valueFrom`: remove one")]
fn what_cannot_work_is_refused_with_the_field_and_the_fix(
    #[case] field: &str,
    #[case] value: Value,
    #[case] said: &str,
) {
    assert_eq!(refusals_of(field, &value), [said]);
}

#[rstest]
#[case::empty_selector("selector", json!({}))]
#[case::labels("selector", json!({ "matchLabels": { "app": "" } }))]
#[case::in_values("selector", expression("In", &json!(["a"])))]
#[case::not_in_values("selector", expression("NotIn", &json!(["a", "b"])))]
#[case::exists("selector", expression("Exists", &Value::Null))]
#[case::absent_with_empty_values("selector", expression("DoesNotExist", &json!([])))]
#[case::no_template_selector("templateSelector", Value::Null)]
#[case::no_retries("backoffLimit", json!(0))]
#[case::backoff_left_out("backoffLimit", Value::Null)]
#[case::no_successes_kept("successfulJobsHistoryLimit", json!(0))]
#[case::no_failures_kept("failedJobsHistoryLimit", json!(0))]
#[case::a_second("activeDeadlineSeconds", json!(1))]
#[case::the_longest_deadline("activeDeadlineSeconds", json!(2_147_483_647))]
#[case::no_lock("lock", json!(""))]
#[case::lock("lock", json!("orders-db.eu-1"))]
#[case::no_account("serviceAccountName", json!(""))]
#[case::account("serviceAccountName", json!("shop.ddl"))]
#[case::nothing_kept("keepContainers", json!([]))]
#[case::kept("keepContainers", json!(["proxy", "vault-agent"]))]
#[case::variable("env", json!([{ "name": "spring.datasource.url", "value": "a=b" }]))]
#[case::variable_from_a_source("env", json!([{ "name": "A", "value": "", "valueFrom": { "fileKeyRef": {} } }]))]
#[case::amounts("resources", json!({ "limits": { "cpu": 1, "memory": "1Gi" } }))]
fn what_can_work_is_accepted(#[case] field: &str, #[case] value: Value) {
    assert_eq!(refusals_of(field, &value), Vec::<String>::new());
}
