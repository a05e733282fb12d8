//! From a Pod to its workload: the climb along controller owner references (contract §3). The shell
//! reads what [`climb`] asks for, one object at a time, until it has an answer.

use migrations_api::names;
use serde_json::Value;

use crate::snapshot::{OwnerRef, Owners, PodFacts, controller_of};

/// Longest chain of owners that is followed. Real ones have three links; a cycle has no end.
const MAX_CLIMB: usize = 8;

/// One step of the climb.
#[derive(Clone, Debug, PartialEq)]
pub enum Climb<'a> {
    /// This object has to be read first.
    Read(OwnerRef),
    /// The top is reached.
    Reached(Workload<'a>),
}

/// Where a Pod comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload<'a> {
    /// The object that people edit: a Deployment, say. The Pod itself where it has no owner.
    pub reference: OwnerRef,
    /// The template that new Pods are made from.
    pub template: &'a Value,
    /// Image of the key container in the template that this very Pod was made from, or in the Pod
    /// itself where there is none: what it waits for.
    pub key: String,
    /// Name of the key container in that template.
    pub container: String,
    /// Whether the Pod was made from the template as it stands.
    pub revision: Revision,
    /// Whether its Pods serve on and on, unlike those of a Job.
    pub long_running: bool,
}

/// A Pod's revision against its workload's template as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// The same.
    Current,
    /// An earlier one.
    Older,
    /// The workload's status lags behind its spec: it can't be said yet. Neither a run nor a record
    /// may follow from that.
    Unknown,
}

/// Climbs from `pod` as far as `owners` has been read. `container` names the key container; the
/// first one is it where there is no name. `None`: no Pod template on the way has that container.
pub fn climb<'a>(pod: &PodFacts, container: Option<&str>, owners: &'a Owners) -> Option<Climb<'a>> {
    let mut chain: Vec<Link<'a>> = Vec::new();
    let mut next = pod.owner.clone();
    while let Some(reference) = next.take() {
        let Some(read) = owners.get(&reference) else { return Some(Climb::Read(reference)) };
        // Unreadable, or without a template of ours: the climb ends below it.
        let Some(object) = read.as_ref() else { break };
        let template = match workload_ref(&reference, object) {
            Some(target) => match owners.get(&target) {
                None => return Some(Climb::Read(target)),
                Some(target) => target.as_ref().and_then(template_of),
            },
            None => template_of(object),
        };
        let Some((template, key)) =
            template.and_then(|template| Some((template, key_container(template, container)?)))
        else {
            break;
        };
        let top = is_top(&reference);
        if !top && chain.len() < MAX_CLIMB {
            next = owner_of(object);
        }
        chain.push(Link { reference, object, template, key });
    }
    if chain.is_empty() {
        let itself = OwnerRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name.clone(),
            uid: Some(pod.uid.clone()),
        };
        let Some(read) = owners.get(&itself) else { return Some(Climb::Read(itself)) };
        let template = read.as_ref()?;
        let key = pod.key_container(container)?;
        return Some(Climb::Reached(Workload {
            reference: itself,
            template,
            key: key.image.clone(),
            container: key.name.clone(),
            revision: Revision::Current,
            long_running: pod.owner.is_some(),
        }));
    }
    let (bottom, top) = (chain.first()?, chain.last()?);
    let revision = revision(pod, bottom, top);
    // StatefulSets and DaemonSets make Pods of several templates by themselves: an older Pod's is
    // not to be had from them.
    let key = if revision == Revision::Current || chain.len() > 1 {
        bottom.key.image.to_owned()
    } else {
        pod.key_container(container)?.image.clone()
    };
    Some(Climb::Reached(Workload {
        reference: top.reference.clone(),
        template: top.template,
        key,
        container: bottom.key.name.to_owned(),
        revision,
        long_running: !chain.iter().any(|link| matches!(link.reference.kind.as_str(), "Job" | "CronJob")),
    }))
}

/// One owner on the way up.
struct Link<'a> {
    reference: OwnerRef,
    object: &'a Value,
    template: &'a Value,
    key: KeyContainer<'a>,
}

/// The key container of a Pod template.
#[derive(PartialEq)]
struct KeyContainer<'a> {
    name: &'a str,
    image: &'a str,
}

/// Whether people edit objects of this kind, so that what owns them is of no interest.
fn is_top(reference: &OwnerRef) -> bool {
    let group = reference.api_version.split('/').next().unwrap_or_default();
    matches!(
        (group, reference.kind.as_str()),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet")
            | ("batch", "CronJob")
            | ("argoproj.io", "Rollout")
    )
}

/// The workload that an Argo Rollout borrows its template from.
fn workload_ref(reference: &OwnerRef, object: &Value) -> Option<OwnerRef> {
    if reference.kind != "Rollout" {
        return None;
    }
    let target = object.pointer("/spec/workloadRef")?;
    let field = |name: &str| target.get(name)?.as_str().map(str::to_owned);
    Some(OwnerRef {
        api_version: field("apiVersion")?,
        kind: field("kind")?,
        name: field("name")?,
        uid: None,
    })
}

/// The Pod template of a workload of any kind.
pub(crate) fn template_of(object: &Value) -> Option<&Value> {
    let paths = ["/spec/jobTemplate/spec/template", "/spec/template"];
    paths
        .into_iter()
        .filter_map(|path| object.pointer(path))
        .find(|template| template.pointer("/spec/containers").is_some_and(Value::is_array))
}

/// The named container of a Pod template, else its first.
fn key_container<'a>(template: &'a Value, container: Option<&str>) -> Option<KeyContainer<'a>> {
    let containers = template.pointer("/spec/containers")?.as_array()?;
    let key = match container {
        Some(name) => containers.iter().find(|one| one.get("name").and_then(Value::as_str) == Some(name)),
        None => containers.first(),
    }?;
    Some(KeyContainer { name: key.get("name")?.as_str()?, image: key.get("image")?.as_str()? })
}

fn owner_of(object: &Value) -> Option<OwnerRef> {
    let owners = object.pointer("/metadata/ownerReferences")?;
    let owners: Vec<_> = serde_json::from_value(owners.clone()).ok()?;
    controller_of(Some(&owners))
}

/// Compares the template that the Pod was made from with its workload's.
fn revision(pod: &PodFacts, bottom: &Link<'_>, top: &Link<'_>) -> Revision {
    let text = |path: &str| top.object.pointer(path).and_then(Value::as_str);
    let label = |name: &str| pod.labels.get(name).map(String::as_str);
    let same = match (bottom.reference.kind.as_str(), top.reference.kind.as_str()) {
        ("StatefulSet", "StatefulSet") => {
            let observed = top.object.pointer("/status/observedGeneration");
            if observed != top.object.pointer("/metadata/generation") {
                return Revision::Unknown;
            }
            label("controller-revision-hash") == text("/status/updateRevision")
        }
        ("DaemonSet", "DaemonSet") => {
            let generation = top.object.pointer("/metadata/annotations").and_then(|annotations| {
                annotations.get("deprecated.daemonset.template.generation").and_then(Value::as_str)
            });
            let (Some(of_pod), Some(newest)) = (label("pod-template-generation"), generation) else {
                return Revision::Unknown;
            };
            of_pod == newest
        }
        ("ReplicaSet", "Deployment") => without_hash(bottom.template) == without_hash(top.template),
        ("Job", "CronJob") => bottom.template.get("spec") == top.template.get("spec"),
        // Templates of other kinds aren't defaulted as the API server does its own: only what is
        // written in both compares.
        _ => bottom.key == top.key,
    };
    if same { Revision::Current } else { Revision::Older }
}

/// A template without the label that the Deployment controller adds to tell its revisions apart.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    template
}

/// Whether a Pod is part of a run of any Migrator, the original's included: those never wait and
/// never lead (contract §3).
pub fn is_run(pod: &PodFacts) -> bool {
    pod.no_wait && pod.labels.contains_key(names::RUN_LABEL)
}
