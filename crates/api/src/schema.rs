//! Schemas that no type of ours describes: selectors, and what a run's container gets word for word.
//!
//! Environment and resources are carried as they were written, so that what a newer Kubernetes adds
//! to them arrives in the run. Nothing that the original accepted is refused: the rules are about new
//! fields, or can't be met by anything that ever worked.

use schemars::transform::transform_subschemas;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Descriptions are wrapped by whoever shows them, not where the source is.
pub(crate) fn unwrap_descriptions(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    transform_subschemas(&mut unwrap_descriptions, schema);
}

/// A label selector. An empty one is a condition, never refused.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that the Pods have, with their values.",
                "type": "object", "additionalProperties": { "type": "string" },
            },
            "matchExpressions": {
                "description": "Conditions on labels. All of them hold, and all of `matchLabels`.",
                "type": "array", "items": expression(),
            },
        },
    })
}

/// A label selector that may be left out.
pub(crate) fn optional_selector(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = selector(generator);
    schema.insert("nullable".to_owned(), json!(true));
    schema
}

fn expression() -> Value {
    json!({
        "description": "A condition on one label.",
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": { "description": "Name of the label.", "type": "string" },
            "operator": {
                "description": "`In`: the label has one of `values`. `NotIn`: it has none of them, or is \
                    missing. `Exists`: it is there. `DoesNotExist`: it is missing.",
                "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
            },
            "values": {
                "description": "What `In` and `NotIn` compare the label with.",
                "type": "array", "items": { "type": "string" },
            },
        },
        "x-kubernetes-validations": [
            {
                "rule": "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
                "message": "In and NotIn compare the label with values: add at least one",
                "fieldPath": ".values",
            },
            {
                "rule": "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
                "message": "Exists and DoesNotExist take no values: remove them, or use In or NotIn",
                "fieldPath": ".values",
            },
        ],
    })
}

/// Environment variables, as in a Pod.
pub(crate) fn env(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        // The API server takes a rule on items only where it can bound what it costs.
        "type": "array", "nullable": true, "maxItems": 1000,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "description": "An environment variable.",
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {
                    "description": "Name of the variable.",
                    "type": "string", "maxLength": 256,
                    "x-kubernetes-validations": [{
                        "rule": "self != '' && !self.contains('=')",
                        "message": "a variable's name has at least one character and no `=`: the value belongs into `value`",
                    }],
                },
                "value": {
                    "description": "Value of the variable. `$(NAME)` in it stands for a variable that is defined before it.",
                    "type": "string",
                },
                "valueFrom": {
                    "description": "Where the value comes from, in place of `value`. One source, as in a Pod.",
                    "type": "object",
                    "properties": {
                        "configMapKeyRef": key_of("ConfigMap"),
                        "secretKeyRef": key_of("Secret"),
                        "fieldRef": {
                            "description": "A field of the run's Pod.",
                            "type": "object", "required": ["fieldPath"],
                            "properties": {
                                "apiVersion": { "description": "API version of the path; `v1` by default.", "type": "string" },
                                "fieldPath": { "description": "Path of the field, `metadata.namespace` for example.", "type": "string" },
                            },
                        },
                        "resourceFieldRef": {
                            "description": "A resource of a container.",
                            "type": "object", "required": ["resource"],
                            "properties": {
                                "containerName": { "description": "Name of the container; the run's own by default.", "type": "string" },
                                "resource": { "description": "The resource, `limits.memory` for example.", "type": "string" },
                                "divisor": {
                                    "description": "Unit of the value; `1` by default.",
                                    "x-kubernetes-int-or-string": true,
                                },
                            },
                        },
                    },
                    "x-kubernetes-preserve-unknown-fields": true,
                },
            },
            "x-kubernetes-validations": [{
                "rule": "!has(self.valueFrom) || !has(self.value) || self.value == ''",
                "message": "a variable has either `value` or `valueFrom`: remove one",
            }],
        },
    })
}

/// Sources of environment variables, as in a Pod.
pub(crate) fn env_from(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "nullable": true,
        "items": {
            "description": "A source of environment variables.",
            "type": "object",
            "properties": {
                "prefix": { "description": "Text before each variable's name.", "type": "string" },
                "configMapRef": whole("ConfigMap"),
                "secretRef": whole("Secret"),
            },
            "x-kubernetes-preserve-unknown-fields": true,
        },
    })
}

/// Resources of a container.
pub(crate) fn resources(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "nullable": true,
        "properties": {
            "limits": quantities("The most that the container may use."),
            "requests": quantities("What is set aside for the container; the limits by default."),
            "claims": {
                "description": "Resource claims of the Pod that the container uses.",
                "type": "array",
                "items": {
                    "description": "A resource claim of the Pod.",
                    "type": "object", "required": ["name"],
                    "properties": {
                        "name": { "description": "Name of the claim in the Pod.", "type": "string" },
                        "request": { "description": "Name of a request in the claim; the whole claim by default.", "type": "string" },
                    },
                },
            },
        },
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn quantities(description: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": {
            "description": "An amount: a number, or a text such as `500m` or `128Mi`.",
            "x-kubernetes-int-or-string": true,
        },
    })
}

fn key_of(kind: &str) -> Value {
    json!({
        "description": format!("A key of a {kind} in the Migrator's namespace."),
        "type": "object", "required": ["key", "name"],
        "properties": {
            "name": { "description": format!("Name of the {kind}."), "type": "string" },
            "key": { "description": "The key.", "type": "string" },
            "optional": optional(),
        },
    })
}

fn whole(kind: &str) -> Value {
    json!({
        "description": format!("A {kind} in the Migrator's namespace, each key of which becomes a variable."),
        "type": "object", "required": ["name"],
        "properties": {
            "name": { "description": format!("Name of the {kind}."), "type": "string" },
            "optional": optional(),
        },
    })
}

fn optional() -> Value {
    json!({ "description": "Whether the run starts without it.", "type": "boolean" })
}

/// Names of containers.
pub(crate) fn container_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "nullable": true, "maxItems": 32, "x-kubernetes-list-type": "set",
        "items": {
            "description": "Name of a container.",
            "type": "string", "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "message": "not the name of a container: those hold lower-case letters, digits and `-`, and start and end with a letter or digit",
            }],
        },
    })
}
