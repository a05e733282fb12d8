//! Reading a Pod that is raw JSON. What is absent or of another type reads as nothing: the API
//! server has the last word on such a Pod.

use std::collections::BTreeMap;

use migrations_api::names;
use serde_json_borrow::{ObjectAsVec, Value};

use crate::snapshot::OwnerRef;

/// A Pod as it came.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a>(pub(super) &'a Value<'a>);

impl<'a> Pod<'a> {
    /// Its name, or what the API server will make one from.
    pub(super) fn name(self) -> &'a str {
        let name = |field| self.metadata().get(field).as_str();
        name("name").or_else(|| name("generateName")).unwrap_or_default()
    }

    pub(super) fn labels(self) -> BTreeMap<String, String> {
        labels(self.0).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// What controls it.
    pub(super) fn controller(self) -> Option<OwnerRef> {
        let owners = list(self.metadata().get("ownerReferences"));
        let controller = owners.iter().find(|owner| owner.get("controller").as_bool() == Some(true))?;
        let field = |name| controller.get(name).as_str().map(str::to_owned);
        let (api_version, kind) = (field("apiVersion")?, field("kind")?);
        Some(OwnerRef { api_version, kind, name: field("name")?, uid: field("uid") })
    }

    /// The value of an annotation.
    pub(super) fn annotation(self, name: &'a str) -> Option<&'a str> {
        self.metadata().get("annotations").get(name).as_str()
    }

    /// Whether it carries `annotation` with the value `"true"`.
    pub(super) fn annotated(self, annotation: &'a str) -> bool {
        self.annotation(annotation) == Some("true")
    }

    /// The value of a label.
    pub(super) fn label(self, name: &'a str) -> Option<&'a str> {
        self.metadata().get("labels").get(name).as_str()
    }

    pub(super) fn metadata(self) -> &'a Value<'a> {
        self.0.get("metadata")
    }

    pub(super) fn spec(self) -> &'a Value<'a> {
        self.0.get("spec")
    }

    /// Whether it looks like the Pod of a run, ours or the original's.
    pub(super) fn is_run(self) -> bool {
        self.label(names::RUN_LABEL).is_some()
            && self.controller().is_some_and(|controller| controller.kind == "Job")
    }

    pub(super) fn containers(self) -> &'a [Value<'a>] {
        list(self.spec().get("containers"))
    }

    /// Image of the named container, else of the first.
    pub(super) fn image(self, container: Option<&str>) -> Option<&'a str> {
        let key = match container {
            Some(name) => self.containers().iter().find(|one| is_named(one, name)),
            None => self.containers().first(),
        };
        key?.get("image").as_str()
    }

    pub(super) fn init_containers(self) -> &'a [Value<'a>] {
        list(self.spec().get("initContainers"))
    }

    pub(super) fn volumes(self) -> &'a [Value<'a>] {
        list(self.spec().get("volumes"))
    }

    /// The first user other than root that one of its containers is said to run as.
    pub(super) fn user(self) -> Option<i64> {
        let user = |one: &'a Value<'a>| one.get("securityContext").get("runAsUser").as_i64();
        let of_pod = user(self.spec());
        self.containers().iter().filter_map(|one| user(one).or(of_pod)).find(|user| *user != 0)
    }

    /// Whether it has a container of that name, of any kind.
    pub(super) fn has_container(self, name: &str) -> bool {
        self.containers().iter().chain(self.init_containers()).any(|container| is_named(container, name))
    }
}

/// The labels of a Pod. One without a name is none: the API server refuses it, but only after admission.
pub(super) fn labels<'a>(pod: &'a Value<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let labels = pod.get("metadata").get("labels").as_object();
    let named = labels.into_iter().flat_map(ObjectAsVec::iter).filter(|(key, _)| !key.is_empty());
    named.filter_map(|(key, value)| Some((key, value.as_str()?)))
}

/// Whether an item of one of a Pod's lists has that name.
pub(super) fn is_named<'a>(item: &'a Value<'a>, name: &str) -> bool {
    item.get("name").as_str() == Some(name)
}

pub(super) fn list<'a>(value: &'a Value<'a>) -> &'a [Value<'a>] {
    value.as_array().unwrap_or_default()
}
