//! Reading a Pod that is raw JSON. What is absent or of another type reads as nothing: the API
//! server has the last word on such a Pod.

use std::collections::BTreeMap;

use migrations_api::names;
use serde_json::Value;

use crate::snapshot::OwnerRef;

/// A Pod as it came.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a>(pub(super) &'a Value);

impl<'a> Pod<'a> {
    /// Its name, or what the API server will make one from.
    pub(super) fn name(self) -> &'a str {
        let metadata = &self.0["metadata"];
        metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default()
    }

    pub(super) fn labels(self) -> BTreeMap<String, String> {
        let labels = self.0["metadata"]["labels"].as_object().into_iter().flatten();
        labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// What controls it.
    pub(super) fn controller(self) -> Option<OwnerRef> {
        let owners = self.0["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let controller = owners.into_iter().find(|owner| owner["controller"] == true)?;
        let field = |name: &str| controller[name].as_str().map(str::to_owned);
        let (api_version, kind) = (field("apiVersion")?, field("kind")?);
        Some(OwnerRef { api_version, kind, name: field("name")?, uid: field("uid") })
    }

    /// The value of an annotation.
    pub(super) fn annotation(self, name: &str) -> Option<&'a str> {
        self.0["metadata"]["annotations"][name].as_str()
    }

    /// Whether it carries `annotation` with the value `"true"`.
    pub(super) fn annotated(self, annotation: &str) -> bool {
        self.annotation(annotation) == Some("true")
    }

    /// The value of a label.
    pub(super) fn label(self, name: &str) -> Option<&'a str> {
        self.0["metadata"]["labels"][name].as_str()
    }

    pub(super) fn spec(self) -> &'a Value {
        &self.0["spec"]
    }

    /// Whether it looks like the Pod of a run, ours or the original's.
    pub(super) fn is_run(self) -> bool {
        self.0["metadata"]["labels"][names::RUN_LABEL].is_string()
            && self.controller().is_some_and(|controller| controller.kind == "Job")
    }

    pub(super) fn containers(self) -> &'a [Value] {
        list(&self.spec()["containers"])
    }

    /// Image of the named container, else of the first.
    pub(super) fn image(self, container: Option<&str>) -> Option<&'a str> {
        let key = match container {
            Some(name) => self.containers().iter().find(|one| one["name"] == *name),
            None => self.containers().first(),
        };
        key?["image"].as_str()
    }

    pub(super) fn init_containers(self) -> &'a [Value] {
        list(&self.spec()["initContainers"])
    }

    pub(super) fn volumes(self) -> &'a [Value] {
        list(&self.spec()["volumes"])
    }

    /// The first user other than root that one of its containers is said to run as.
    pub(super) fn user(self) -> Option<i64> {
        let of_pod = self.spec()["securityContext"]["runAsUser"].as_i64();
        let named = |one: &Value| one["securityContext"]["runAsUser"].as_i64().or(of_pod);
        self.containers().iter().filter_map(named).find(|user| *user != 0)
    }

    /// Whether it has a container of that name, of any kind.
    pub(super) fn has_container(self, name: &str) -> bool {
        self.containers().iter().chain(self.init_containers()).any(|container| container["name"] == *name)
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
