//! References to containers by name, from variables and files that hold a container's resources. One
//! that leads nowhere keeps a Pod from starting.

use migrations_api::names;
use serde_json::{Map, Value, json};

use super::clean::name_of;

/// References to `key` lead to the migration's container; those to containers that are left out go
/// with them.
pub(super) fn follow(spec: &mut Map<String, Value>, key: &str, left_out: &[Value]) {
    spec.values_mut().for_each(|value| follow_in(value, key, left_out));
}

fn follow_in(value: &mut Value, key: &str, left_out: &[Value]) {
    match value {
        Value::Array(items) => {
            items.retain(|item| {
                let name = referenced(item);
                name.is_none() || !left_out.iter().any(|container| name_of(container) == name)
            });
            for item in items {
                follow_in(item, key, left_out);
            }
        }
        Value::Object(fields) => {
            if let Some(Value::Object(reference)) = fields.get_mut("resourceFieldRef")
                && reference.get("containerName") == Some(&json!(key))
            {
                reference.insert("containerName".to_owned(), json!(names::RUN_CONTAINER));
            }
            fields.values_mut().for_each(|value| follow_in(value, key, left_out));
        }
        _ => {}
    }
}

/// The container that a variable or a file of a volume takes its value from.
fn referenced(item: &Value) -> Option<&str> {
    let direct = item.get("resourceFieldRef");
    let reference = direct.or_else(|| item.pointer("/valueFrom/resourceFieldRef"))?;
    reference.get("containerName")?.as_str()
}
