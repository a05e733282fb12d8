//! The gates of one namespace, found by the labels of a Pod: what doesn't select it costs next to
//! nothing, however much of it there is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json_borrow::Value;

use super::Gate;
use super::pod::labels;
use crate::selector::Selector;

/// Gates, in the order of their Migrators' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    all: Vec<Arc<Gate>>,
    /// By name and value of a label. A gate is under one label that a Pod must have to be selected.
    by_label: HashMap<String, HashMap<String, Vec<usize>>>,
    /// Those that demand no label, or that can't tell.
    others: Vec<usize>,
}

impl Gates {
    /// Those that may select the Pod: all that do, and few that don't.
    pub fn near<'a>(&'a self, pod: &Value<'_>) -> impl Iterator<Item = &'a Gate> + use<'a> {
        let of_label = |(key, value)| self.by_label.get(key)?.get(value);
        // Each once, also where somebody writes a label twice.
        let near: BTreeSet<_> =
            labels(pod).filter_map(of_label).flatten().chain(&self.others).copied().collect();
        near.into_iter().filter_map(|index| Some(self.all.get(index)?.as_ref()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Gate> {
        self.all.iter().map(AsRef::as_ref)
    }
}

impl FromIterator<Arc<Gate>> for Gates {
    fn from_iter<I: IntoIterator<Item = Arc<Gate>>>(gates: I) -> Self {
        let all: Vec<_> = gates.into_iter().collect();
        let mut demanded = HashMap::<_, usize>::new();
        for label in all.iter().flat_map(|gate| gate.selector.iter().flat_map(Selector::demands)) {
            for value in label.1 {
                *demanded.entry((label.0, value)).or_default() += 1;
            }
        }
        let (mut by_label, mut others) = (HashMap::<_, HashMap<_, Vec<_>>>::new(), Vec::new());
        for (index, gate) in all.iter().enumerate() {
            let demands = gate.selector.iter().flat_map(Selector::demands);
            // Of all that it demands what the fewest demand: labels that all have tell nothing.
            let rarest = demands.min_by_key(|(key, values)| {
                values.iter().filter_map(|value| demanded.get(&(*key, value))).sum::<usize>()
            });
            let Some((key, values)) = rarest else {
                others.push(index);
                continue;
            };
            let of_key = by_label.entry(key.to_owned()).or_default();
            for value in values {
                of_key.entry(value.clone()).or_default().push(index);
            }
        }
        Self { all, by_label, others }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Arc, Gate, Gates, Selector};

    fn gate(migrator: &str, selector: Value) -> Arc<Gate> {
        let selector = Selector::parse(&serde_json::from_value(selector).unwrap());
        let unreadable = Gate::unreadable(migrator, "no selector");
        Arc::new(Gate { selector: selector.map_err(|error| error.to_string()), ..unreadable })
    }

    fn pod(labels: &Value) -> Value {
        json!({"metadata": {"labels": labels}})
    }

    fn near<'a>(gates: &'a Gates, labels: &Value) -> Vec<&'a str> {
        gates.near(&(&pod(labels)).into()).map(|gate| gate.migrator.as_str()).collect()
    }

    /// Three shops that have a label in common, and one of each other kind.
    fn shops() -> Gates {
        let shop = |name: &str| gate(name, json!({"matchLabels": {"app": "shop", "instance": name}}));
        let one_of = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        [
            shop("a"),
            shop("b"),
            shop("c"),
            gate("d", one_of("instance", "In", &["b", "c"])),
            gate("e", one_of("instance", "NotIn", &["b"])),
            gate("f", one_of("app", "Exists", &[])),
            Arc::new(Gate::unreadable("g", "why")),
        ]
        .into_iter()
        .collect()
    }

    #[rstest]
    #[case::by_the_label_that_tells_most(json!({"app": "shop", "instance": "a"}), &["a", "e", "f", "g"])]
    #[case::by_one_of_several_values(json!({"instance": "c"}), &["c", "d", "e", "f", "g"])]
    #[case::a_label_that_all_demand_finds_none(json!({"app": "shop"}), &["e", "f", "g"])]
    #[case::no_labels(Value::Null, &["e", "f", "g"])]
    fn gates_are_found_by_what_they_demand(#[case] labels: Value, #[case] expected: &[&str]) {
        assert_eq!(near(&shops(), &labels), expected);
    }

    #[test]
    fn a_label_that_is_written_twice_finds_a_gate_once() {
        let gates: Gates = [gate("a", json!({"matchLabels": {"app": "shop"}}))].into_iter().collect();
        let pod = r#"{"metadata": {"labels": {"app": "shop", "app": "shop"}}}"#;
        assert_eq!(gates.near(&serde_json::from_str(pod).unwrap()).count(), 1);
    }

    fn any_selector() -> impl Strategy<Value = Value> {
        let (key, value) = ("[ab]", "[xyz]");
        let operators = prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
        let expression =
            (key, operators, prop::collection::vec(value, 1..3)).prop_map(|(key, operator, values)| {
                let values = if operator.ends_with("In") { values } else { Vec::new() };
                json!({"key": key, "operator": operator, "values": values})
            });
        let labels = prop::collection::btree_map(key, value, 0..2);
        (labels, prop::collection::vec(expression, 0..3))
            .prop_map(|(labels, expressions)| json!({"matchLabels": labels, "matchExpressions": expressions}))
    }

    proptest! {
        #[test]
        fn no_gate_that_selects_a_pod_is_missed(
            selectors in prop::collection::vec(any_selector(), 0..8),
            labels in prop::collection::btree_map("[abc]", "[xyz]", 0..4),
        ) {
            let gates: Gates =
                selectors.into_iter().enumerate().map(|(index, it)| gate(&index.to_string(), it)).collect();
            let selects = |gate: &&Gate| gate.selector.as_ref().is_ok_and(|it| it.matches(&labels));
            let all: Vec<_> = gates.iter().filter(selects).collect();
            let labels = pod(&json!(labels));
            let found: Vec<_> = gates.near(&(&labels).into()).filter(selects).collect();
            prop_assert_eq!(found, all);
        }
    }
}
