//! The objects that the recording server keeps, and what each method does to them.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Recorded;

/// What the server says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

/// Objects by their paths.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<String, Value>,
    /// What is said of tokens.
    tokens: BTreeMap<String, Value>,
    version: u64,
}

/// An answer that refuses, in the API server's form.
pub(super) fn refusal(status: StatusCode, message: &str) -> Answer {
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": status.as_u16(), "reason": reason, "message": message,
    });
    Answer { status, body }
}

fn success(status: StatusCode, body: &Value) -> Answer {
    Answer { status, body: body.clone() }
}

impl Store {
    pub(super) fn put(&mut self, plural: &str, object: Value) {
        let api_version = object["apiVersion"].as_str().expect("an apiVersion");
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let name = object["metadata"]["name"].as_str().expect("a name");
        let path = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}"),
            None => format!("/{root}/{api_version}/{plural}/{name}"),
        };
        self.keep(path, object);
    }

    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.objects.get(path)
    }

    pub(super) fn answer(&mut self, request: &Recorded) -> Answer {
        let Recorded { method, path, query, body } = request;
        if query.contains("watch=true") {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "there is no watch here; use a control plane");
        }
        match method.as_str() {
            "GET" if self.objects.contains_key(path) => success(StatusCode::OK, &self.objects[path]),
            "GET" if is_collection(path) => self.list(path),
            "GET" => not_found(path),
            "POST" if path.ends_with("/tokenreviews") => self.review(body),
            "POST" => self.create(path, body.clone()),
            "PUT" | "PATCH" => self.change(method, path, query, body),
            "DELETE" => self.delete(path, body),
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, method.as_str()),
        }
    }

    pub(super) fn know(&mut self, token: &str, status: Value) {
        self.tokens.insert(token.to_owned(), status);
    }

    /// A review is answered and not kept.
    fn review(&self, review: &Value) -> Answer {
        let token = review["spec"]["token"].as_str().expect("a token");
        let unknown = json!({ "authenticated": false, "error": "invalid bearer token" });
        let mut review = review.clone();
        review["status"] = self.tokens.get(token).cloned().unwrap_or(unknown);
        success(StatusCode::CREATED, &review)
    }

    fn list(&self, path: &str) -> Answer {
        let prefix = format!("{path}/");
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(path, _)| path.strip_prefix(&prefix).is_some_and(|name| !name.contains('/')))
            .map(|(_, object)| object)
            .collect();
        let version = self.version.to_string();
        success(StatusCode::OK, &json!({ "metadata": { "resourceVersion": version }, "items": items }))
    }

    fn create(&mut self, collection: &str, mut object: Value) -> Answer {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().expect("a name"));
        if self.objects.contains_key(&path) {
            let mut answer = refusal(StatusCode::CONFLICT, &format!("{path} exists already"));
            answer.body["reason"] = json!("AlreadyExists");
            return answer;
        }
        object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        success(StatusCode::CREATED, self.keep(path, object))
    }

    /// Replaces or merges, on the object or on its status alone.
    fn change(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> Answer {
        let (path, of_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let Some(before) = self.objects.get(path) else {
            // An apply makes what isn't there.
            return match path.rsplit_once('/') {
                Some((collection, _)) if query.contains("fieldManager") && query.contains("force") => {
                    self.create(collection, body.clone())
                }
                _ => not_found(path),
            };
        };
        if let Some(conflict) = conflict(before, &body["metadata"]) {
            return conflict;
        }
        let mut after = before.clone();
        match (method.as_str(), of_status) {
            ("PUT", false) => after = body.clone(),
            ("PUT", true) => after["status"] = body["status"].clone(),
            (_, false) => json_patch::merge(&mut after, body),
            (_, true) => json_patch::merge(&mut after["status"], &body["status"]),
        }
        if after == *before {
            return success(StatusCode::OK, before);
        }
        after["metadata"]["uid"] = before["metadata"]["uid"].clone();
        success(StatusCode::OK, self.keep(path.to_owned(), after))
    }

    fn delete(&mut self, path: &str, options: &Value) -> Answer {
        let Some(object) = self.objects.get(path) else { return not_found(path) };
        if let Some(conflict) = conflict(object, &options["preconditions"]) {
            return conflict;
        }
        self.objects.remove(path);
        success(StatusCode::OK, &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }

    fn keep(&mut self, path: String, mut object: Value) -> &Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.entry(path).insert_entry(object).into_mut()
    }
}

fn not_found(path: &str) -> Answer {
    refusal(StatusCode::NOT_FOUND, &format!("{path} not found"))
}

/// Why a write that expects `expected` of an object is refused, if it is.
fn conflict(object: &Value, expected: &Value) -> Option<Answer> {
    let differs = |field: &str| {
        let value = &expected[field];
        !value.is_null() && *value != object["metadata"][field]
    };
    let field = ["uid", "resourceVersion"].into_iter().find(|field| differs(field))?;
    Some(refusal(StatusCode::CONFLICT, &format!("the object has another {field}")))
}

/// Whether the last part of a path is a kind and not a name.
fn is_collection(path: &str) -> bool {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    // api/v1/..., apis/group/v1/...
    let inside = parts.get(if parts.first() == Some(&"api") { 2.. } else { 3.. }).unwrap_or_default();
    let inside =
        if inside.first() == Some(&"namespaces") && inside.len() > 2 { &inside[2..] } else { inside };
    inside.len() == 1
}
