//! All matching Pods of a Migrator, each with what it was made from and what it waits for
//! (contract §3).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::Timestamp;
use migrations_api::{DoneKey, RerunOn, Source, names};
use serde_json::Value;

use crate::due::due;
use crate::revision::revision;
use crate::snapshot::{OwnerRef, Owners, PodFacts, Snapshot};
use crate::validate::Valid;
use crate::workload::{Climb, Known, OwnTemplate, Revision, Workload, climb, is_run};

/// The matching Pods, each with where it comes from.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    /// Live Pods whose origin is known.
    pub members: Vec<Member<'a>>,
    /// Live Pods that lack the named container.
    pub lacking: Vec<&'a PodFacts>,
}

/// A matching Pod and where it comes from.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The Pod.
    pub pod: &'a PodFacts,
    /// Shared by all Pods of the revision.
    pub origin: Rc<Origin<'a>>,
    /// Whether a run may be cloned from it; else it follows those it may be.
    pub leads: bool,
}

/// What Pods of one revision were made from.
#[derive(Clone, Debug)]
pub struct Origin<'a> {
    /// The workload, or the Pod itself where there is none.
    pub reference: OwnerRef,
    /// The workload, where there is one.
    pub workload: Option<Workload<'a>>,
    /// What a run is cloned from; `None` while it has not been read, or is gone.
    pub template: Option<&'a Value>,
    /// What the Pods wait for.
    pub key: String,
    /// Image of the key container.
    pub image: String,
    /// Name of the key container.
    pub container: String,
    /// Whether they were made from the template as it stands.
    pub revision: Revision,
    /// What names the revision, where something does.
    pub id: Option<String>,
}

impl Origin<'_> {
    /// What names the revision, and no other one.
    fn own_id(&self) -> Option<&String> {
        let known = self.workload.as_ref().map(|workload| workload.known);
        self.id.as_ref().filter(|_| matches!(known, Some(Known::Kept | Known::Told)))
    }

    /// Whether nothing tells what the Pods were made from: an earlier template of their workload, or the
    /// one as it stands, whose image another webhook rewrote.
    pub fn untold(&self) -> bool {
        let untold = |workload: &Workload<'_>| workload.known == Known::Guessed && workload.own.is_none();
        self.workload.as_ref().is_some_and(untold)
    }

    /// Whether the Pods serve on and on, unlike those of a Job.
    pub fn long_running(&self) -> bool {
        self.workload.as_ref().is_some_and(|workload| workload.long_running)
    }
}

impl Member<'_> {
    /// Whether it holds its application back until it is released.
    pub fn waits(&self, migrator: &str) -> bool {
        self.pod.gated_by(migrator) && !self.pod.application_started() && !self.pod.no_wait
    }

    /// Whether it runs, or will, without having been held.
    pub fn ungated(&self, migrator: &str) -> bool {
        !self.pod.gated_by(migrator) && !self.pod.no_wait
    }

    /// Whether it was made from the template as it stands.
    pub fn current(&self) -> bool {
        self.origin.revision == Revision::Current
    }

    /// The Pod and its workload, as the status and events name them.
    pub fn source(&self) -> Source {
        let reference = &self.origin.reference;
        Source {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
            uid: reference.uid.clone(),
            pod: self.pod.name.clone(),
            revision: self.origin.id.clone(),
        }
    }

    /// Whether it may start: its key is done, or it is tied to one that is.
    pub fn released(&self, done: &[DoneKey]) -> bool {
        // Most by far are by their key, and there may be as many ties as Pods.
        done.iter().any(|one| one.key == self.origin.key)
            || done.iter().any(|one| one.revisions.contains(self.tie()))
    }

    /// What ties it to a done key: its revision; its own uid where that is also what Pods of another
    /// template have, or where it has none.
    pub fn tie(&self) -> &String {
        self.origin.own_id().unwrap_or(&self.pod.uid)
    }

    /// Whether the image that admission saw is what its waiter is released by. Another webhook may
    /// have rewritten it, or the key may be more than an image.
    pub fn released_by_image(&self, done: &[DoneKey]) -> bool {
        let container = &self.origin.container;
        let admitted = self.pod.admitted.as_ref().and_then(|admitted| {
            admitted.containers.iter().find(|one| one.name == *container).or(admitted.containers.first())
        });
        admitted.is_none_or(|container| done.iter().any(|one| one.key == container.image))
    }
}

/// Looks at every matching Pod once, and at every revision once.
pub fn survey<'a>(valid: &Valid, pods: &'a [PodFacts], owners: &'a Owners) -> Survey<'a> {
    let container = valid.container.as_deref();
    let mut survey = Survey { members: Vec::new(), lacking: Vec::new() };
    let mut known: BTreeMap<Group<'_>, Option<Rc<Origin<'a>>>> = BTreeMap::new();
    for pod in live(pods) {
        if pod.key_container(container).is_none() {
            survey.lacking.push(pod);
            continue;
        }
        let origin = match group(pod) {
            None => itself(pod, container, owners).map(Rc::new),
            Some(group) => match known.get(&group) {
                Some(Some(origin)) => Some(Rc::clone(origin)),
                Some(None) => of_pod(valid, pod, owners).map(|(origin, _)| Rc::new(origin)),
                None => {
                    let found = of_pod(valid, pod, owners);
                    // What was taken from the Pod itself holds for no other.
                    let shared = found.map(|(origin, shared)| (Rc::new(origin), shared));
                    known.insert(group, shared.as_ref().filter(|it| it.1).map(|it| Rc::clone(&it.0)));
                    shared.map(|(origin, _)| origin)
                }
            },
        };
        let leads = valid.template_selector.as_ref().is_none_or(|it| it.matches(&pod.labels));
        survey.members.extend(origin.map(|origin| Member { pod, origin, leads }));
    }
    survey
}

/// What has to be read before Pods can be surveyed, and the due ones among them cloned from. Ask
/// again once it has been read: there may be more above it.
pub fn wanted(valid: &Valid, snapshot: &Snapshot) -> BTreeSet<OwnerRef> {
    let container = valid.container.as_deref();
    let of_owners: BTreeSet<_> = live(&snapshot.pods)
        .filter_map(|pod| Some((group(pod)?, pod)))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .filter_map(|pod| match climb(pod.owner.as_ref()?, &pod.labels, container, &snapshot.owners) {
            Climb::Read(reference) => Some(reference),
            Climb::Itself | Climb::Reached(_) => None,
        })
        .collect();
    if !of_owners.is_empty() {
        return of_owners;
    }
    let survey = survey(valid, &snapshot.pods, &snapshot.owners);
    let due = due(&survey, &snapshot.status.done, snapshot.run_requested());
    let unread = |member: &&&Member<'_>| {
        member.origin.template.is_none() && !snapshot.owners.contains_key(&member.origin.reference)
    };
    due.iter()
        .filter_map(|due| due.candidates.iter().find(unread))
        .map(|member| member.origin.reference.clone())
        .collect()
}

fn live(pods: &[PodFacts]) -> impl Iterator<Item = &PodFacts> {
    pods.iter().filter(|pod| pod.live() && !is_run(pod))
}

/// Pods that one climb speaks for: of one owner, made from one template.
type Group<'a> = (&'a OwnerRef, Vec<&'a str>);

fn group(pod: &PodFacts) -> Option<Group<'_>> {
    const TOLD_APART_BY: [&str; 3] =
        ["controller-revision-hash", "pod-template-generation", "rollouts-pod-template-hash"];
    let label = |name: &&str| pod.labels.get(*name).map_or("", String::as_str);
    Some((pod.owner.as_ref()?, TOLD_APART_BY.iter().map(label).collect()))
}

/// The origin of a Pod with an owner, and whether it holds for all Pods of its group.
fn of_pod<'a>(valid: &Valid, pod: &'a PodFacts, owners: &'a Owners) -> Option<(Origin<'a>, bool)> {
    let container = valid.container.as_deref();
    let mut workload = match climb(pod.owner.as_ref()?, &pod.labels, container, owners) {
        // Read before a survey is made, in all that decisions follow from.
        Climb::Read(_) => return None,
        Climb::Itself => return itself(pod, container, owners).map(|origin| (origin, false)),
        Climb::Reached(workload) => workload,
    };
    let id = id_of(pod);
    let proven = match workload.known {
        Known::Kept | Known::Guessed => true,
        // As admitted: labels can be changed later.
        Known::Told => id == revision(pod.owner.as_ref(), &pod.labels),
        Known::Unchanged => was_made_by_its_owner(pod, owners),
    };
    if !proven {
        workload.known = Known::Guessed;
    }
    let of_pod = admitted_container(pod, container);
    let has_image = |own: &OwnTemplate<'_>| {
        admitted_container(pod, Some(own.container)).is_some_and(|(_, image)| image == own.image)
    };
    if workload.known == Known::Guessed && !workload.own.as_ref().is_some_and(has_image) {
        // It is older than the template, or another webhook rewrote its image; to take it for the
        // template's would let it start on what was never migrated.
        workload.own = None;
        workload.revision = Revision::Older;
    }
    let (image, container, fingerprint) = match (&workload.own, &id) {
        // However it is known by now: the key must not change with that.
        (Some(own), Some(id)) if workload.known != Known::Kept => (own.image, own.container, id.clone()),
        (Some(own), _) => (own.image, own.container, own.fingerprint()),
        (None, id) => {
            let (container, image) = of_pod?;
            (image, container, id.clone().unwrap_or_default())
        }
    };
    let (image, container) = (image.to_owned(), container.to_owned());
    let uid = workload.reference.uid.as_deref().unwrap_or_default();
    let key = match valid.rerun_on {
        RerunOn::Image => image.clone(),
        // An image can't hold a '#'.
        RerunOn::Template => {
            format!("{image}#{}", names::short_hash(format!("{uid}\n{fingerprint}").as_bytes()))
        }
    };
    let origin = Origin {
        reference: workload.reference.clone(),
        template: Some(workload.template),
        key,
        image,
        container,
        revision: workload.revision,
        id,
        workload: Some(workload),
    };
    let shared = origin
        .workload
        .as_ref()
        .is_some_and(|workload| workload.own.is_some() && workload.known == Known::Kept);
    Some((origin, shared))
}

/// Whether a Pod is no orphan that its owner adopted: those are older than it, or have a name of their own.
fn was_made_by_its_owner(pod: &PodFacts, owners: &Owners) -> bool {
    let Some(owner) = &pod.owner else { return false };
    let object = owners.get(owner).and_then(Option::as_ref);
    let since =
        object.and_then(|object| object.pointer("/metadata/creationTimestamp")?.as_str()?.parse().ok());
    let named = pod.name.strip_prefix(owner.name.as_str()).is_some_and(|rest| rest.starts_with('-'));
    named && since.is_some_and(|since: Timestamp| pod.created >= Some(since))
}

/// The origin of a Pod that stands for itself.
fn itself<'a>(pod: &'a PodFacts, container: Option<&str>, owners: &'a Owners) -> Option<Origin<'a>> {
    let reference = OwnerRef {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name.clone(),
        uid: Some(pod.uid.clone()),
    };
    let (name, image) = admitted_container(pod, container)?;
    Some(Origin {
        template: owners.get(&reference).and_then(Option::as_ref),
        reference,
        workload: None,
        key: image.to_owned(),
        image: image.to_owned(),
        container: name.to_owned(),
        revision: Revision::Current,
        id: id_of(pod),
    })
}

/// Name and image of the key container as admission saw it: an image can be changed later, and a Pod
/// goes on waiting for the one it came with.
fn admitted_container<'a>(pod: &'a PodFacts, container: Option<&str>) -> Option<(&'a str, &'a str)> {
    let admitted = pod.admitted.as_ref().and_then(|admitted| match container {
        Some(name) => admitted.containers.iter().find(|one| one.name == name),
        None => admitted.containers.first(),
    });
    match admitted {
        Some(container) => Some((&container.name, &container.image)),
        None => pod.key_container(container).map(|it| (it.name.as_str(), it.image.as_str())),
    }
}

/// Its waiter asks by what admission wrote; labels can be changed later.
fn id_of(pod: &PodFacts) -> Option<String> {
    match &pod.admitted {
        Some(admitted) => admitted.revision.clone(),
        None => revision(pod.owner.as_ref(), &pod.labels),
    }
}
