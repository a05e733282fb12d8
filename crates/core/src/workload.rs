//! From a Pod to its workload: the climb along controller owner references (contract §3). The shell
//! reads what [`climb`] asks for, one object at a time, until it has an answer.

mod staged;

use std::collections::BTreeMap;

use migrations_api::names;
use serde_json::{Map, Value};

use crate::snapshot::{OwnerRef, Owners, PodFacts, controller_of};

pub use staged::left_alone;

/// Longest chain of owners that is followed. Real ones have three links; a cycle has no end.
const MAX_CLIMB: usize = 8;

/// Labels that the Deployment controller and Argo Rollouts add to tell templates apart.
const ADDED_LABELS: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

/// One step of the climb.
#[derive(Clone, Debug, PartialEq)]
pub enum Climb<'a> {
    /// This object has to be read first.
    Read(OwnerRef),
    /// No owner with a Pod template can be read: the Pod stands for itself.
    Itself,
    /// The top is reached.
    Reached(Workload<'a>),
}

/// Where a Pod comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload<'a> {
    /// The object that people edit: a Deployment, say.
    pub reference: OwnerRef,
    /// That object.
    pub object: &'a Value,
    /// The template that new Pods are made from.
    pub template: &'a Value,
    /// Image of the key container in it.
    pub image: &'a str,
    /// The template that this very Pod was made from; `None` where it can't be had any more.
    pub own: Option<OwnTemplate<'a>>,
    /// How that is known.
    pub known: Known,
    /// Whether the Pod was made from the template as it stands.
    pub revision: Revision,
    /// Whether its Pods serve on and on, unlike those of a Job.
    pub long_running: bool,
}

/// How it is known which template a Pod was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its controller never changes its template, or keeps one for each revision.
    Kept,
    /// Its controller has one template, which can be changed under its Pods, and says by which hash
    /// those are labelled that are made from it.
    Told,
    /// Its controller has one template, which was never changed.
    Unchanged,
    /// Its controller has one template, which may have been changed under the Pod. It is the Pod's
    /// where it has the Pod's image; else nothing can be said.
    Guessed,
}

/// The template that a Pod was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnTemplate<'a> {
    /// The template.
    template: &'a Value,
    /// Whether only its spec is the user's: the Job controller adds labels of its own.
    of_job: bool,
    /// Name of the key container in it.
    pub container: &'a str,
    /// Image of the key container in it.
    pub image: &'a str,
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

/// Climbs from the Pods that `owner` made with those labels, as far as `owners` has been read.
/// `container` names the key container; the first one is it where there is no name.
pub fn climb<'a>(
    owner: &OwnerRef,
    labels: &BTreeMap<String, String>,
    container: Option<&str>,
    owners: &'a Owners,
) -> Climb<'a> {
    let mut chain: Vec<Link<'a>> = Vec::new();
    let mut next = Some(owner.clone());
    while let Some(reference) = next.take() {
        let Some(read) = owners.get(&reference) else { return Climb::Read(reference) };
        // Unreadable, or without a template of ours: the climb ends below it.
        let Some(object) = read.as_ref() else { break };
        let template = match borrowed_template(&reference, object) {
            Some(target) => match owners.get(&target) {
                None => return Climb::Read(target),
                Some(target) => target.as_ref().and_then(template_of),
            },
            None => template_of(object),
        };
        let Some((template, key)) =
            template.and_then(|template| Some((template, key_container(template, container)?)))
        else {
            break;
        };
        if !is_top(&reference) && chain.len() < MAX_CLIMB {
            next = owner_of(object);
        }
        chain.push(Link { reference, object, template, key });
    }
    let (Some(bottom), Some(top)) = (chain.first(), chain.last()) else { return Climb::Itself };
    let (known, told) = known(bottom, labels);
    let mut revision =
        told.filter(|told| *told != Revision::Current).unwrap_or_else(|| revision(labels, bottom, top));
    let own = if known == Known::Told && told != Some(Revision::Current) {
        None
    } else if chain.len() > 1 || revision == Revision::Current {
        Some((bottom.template, bottom.key))
    } else {
        // One object makes Pods of several templates, and keeps the earlier ones apart.
        match kept_template(bottom, labels) {
            None => None,
            Some(reference) => match owners.get(&reference) {
                None => return Climb::Read(reference),
                Some(read) => read
                    .as_ref()
                    .and_then(|read| read.pointer("/data/spec/template"))
                    .and_then(|template| Some((template, key_container(template, container)?))),
            },
        }
    };
    // Its controller goes by the template too: one that was set back has its Pods as it wants them.
    let set_back = |(template, _): (&Value, _)| same_template(template, top.template);
    if bottom.reference.kind == "DaemonSet" && revision == Revision::Older && own.is_some_and(set_back) {
        revision = Revision::Current;
    }
    let of_job = bottom.reference.kind == "Job";
    Climb::Reached(Workload {
        reference: top.reference.clone(),
        object: top.object,
        template: top.template,
        image: top.key.image,
        own: own.map(|(template, key)| OwnTemplate {
            template,
            of_job,
            container: key.name,
            image: key.image,
        }),
        known,
        revision,
        long_running: !chain.iter().any(|link| matches!(link.reference.kind.as_str(), "Job" | "CronJob")),
    })
}

impl OwnTemplate<'_> {
    /// A text that differs when the template does, in anything that people write into it.
    pub fn fingerprint(&self) -> String {
        let spec = self.template.get("spec").unwrap_or(&Value::Null);
        if self.of_job {
            return spec.to_string();
        }
        let part =
            |name: &str| self.template.pointer(&format!("/metadata/{name}")).and_then(Value::as_object);
        let labels = part("labels").map(|labels| without(labels, &ADDED_LABELS));
        let annotations = part("annotations").filter(|all| !all.is_empty());
        serde_json::json!([labels, annotations, spec]).to_string()
    }
}

/// One owner on the way up.
struct Link<'a> {
    reference: OwnerRef,
    object: &'a Value,
    template: &'a Value,
    key: KeyContainer<'a>,
}

/// The key container of a Pod template.
#[derive(Clone, Copy, PartialEq)]
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
fn borrowed_template(reference: &OwnerRef, object: &Value) -> Option<OwnerRef> {
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

/// Where a StatefulSet or DaemonSet keeps the template of a Pod of an earlier revision.
fn kept_template(bottom: &Link<'_>, labels: &BTreeMap<String, String>) -> Option<OwnerRef> {
    let hash = labels.get("controller-revision-hash")?;
    let name = match bottom.reference.kind.as_str() {
        "StatefulSet" => hash.clone(),
        "DaemonSet" => format!("{}-{hash}", bottom.reference.name),
        _ => return None,
    };
    Some(OwnerRef {
        api_version: bottom.reference.api_version.clone(),
        kind: "ControllerRevision".to_owned(),
        name,
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

/// How it is known from which template the Pod's controller made it, and whether that is the one as it
/// stands, where its controller itself tells that.
fn known(bottom: &Link<'_>, labels: &BTreeMap<String, String>) -> (Known, Option<Revision>) {
    match bottom.reference.kind.as_str() {
        "StatefulSet" | "DaemonSet" | "Job" => return (Known::Kept, None),
        // Made by something above them, one for each revision, whether that can be read or not.
        "ReplicaSet" | "ReplicationController" if owner_of(bottom.object).is_some() => {
            return (Known::Kept, None);
        }
        _ => {}
    }
    let object = bottom.object;
    let generation = object.pointer("/metadata/generation");
    let newest = object.pointer("/status/updateRevision").and_then(Value::as_str);
    if let (Some(newest), Some(hash)) = (newest, labels.get("controller-revision-hash")) {
        let same = newest.strip_suffix(hash.as_str()).is_some_and(|it| it.is_empty() || it.ends_with('-'));
        let revision = match (object.pointer("/status/observedGeneration") == generation, same) {
            (false, _) => Revision::Unknown,
            (true, true) => Revision::Current,
            (true, false) => Revision::Older,
        };
        return (Known::Told, Some(revision));
    }
    // The API server counts the changes of a spec.
    if generation.and_then(Value::as_i64) == Some(1) {
        return (Known::Unchanged, None);
    }
    (Known::Guessed, None)
}

/// Compares the template that the Pod was made from with its workload's.
fn revision(labels: &BTreeMap<String, String>, bottom: &Link<'_>, top: &Link<'_>) -> Revision {
    let text = |path: &str| top.object.pointer(path).and_then(Value::as_str);
    let label = |name: &str| labels.get(name).map(String::as_str);
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
        ("ReplicaSet", "Deployment") => same_template(bottom.template, top.template),
        ("Job", "CronJob") => bottom.template.get("spec") == top.template.get("spec"),
        ("ReplicaSet", "Rollout") if text("/status/currentPodHash").is_some() => {
            // Unlike others, it writes the generation that it has seen as a text.
            let generation = top.object.pointer("/metadata/generation").map(Value::to_string);
            if text("/status/observedGeneration") != generation.as_deref() {
                return Revision::Unknown;
            }
            label("rollouts-pod-template-hash") == text("/status/currentPodHash")
        }
        // Templates of other kinds aren't defaulted as the API server does its own: only what is
        // written in both compares.
        _ => bottom.key == top.key,
    };
    if same { Revision::Current } else { Revision::Older }
}

/// Whether two templates are the same but for the labels that controllers add.
fn same_template(one: &Value, other: &Value) -> bool {
    let part = |template: &Value, name: &str| {
        let part = template.pointer(&format!("/metadata/{name}")).and_then(Value::as_object);
        part.map(|part| without(part, &ADDED_LABELS)).unwrap_or_default()
    };
    one.get("spec") == other.get("spec")
        && part(one, "labels") == part(other, "labels")
        && part(one, "annotations") == part(other, "annotations")
}

fn without(map: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    map.iter()
        .filter(|(key, _)| !keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Whether a Pod is part of a run of any Migrator, the original's included: those never wait and
/// never lead (contract §3).
pub fn is_run(pod: &PodFacts) -> bool {
    pod.no_wait && pod.labels.contains_key(names::RUN_LABEL)
}
