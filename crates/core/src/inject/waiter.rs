//! What is injected: a container for each Migrator that selects the Pod, the volume they mount, and
//! what lets them past a mesh.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, EnvVar,
    KeyToPath, ObjectFieldSelector, ProjectedVolumeSource, SeccompProfile, SecurityContext,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use migrations_api::names;
use migrations_protocol::{
    ANNOTATIONS_FILE, Arguments, CA_FILE, Container as Admitted, MOUNT_PATH, TOKEN_AUDIENCE, TOKEN_FILE,
    UID_FILE,
};

use super::pod::Pod;
use super::{Gate, Resources, Settings, mesh};
use crate::revision::revision;

/// Environment variable of a waiter with a hash of what was injected. A waiter whose hash is
/// today's is left as it is, whatever other webhooks have since made of it: they may have to point
/// its image at a mirror, and the API server may call us again after them.
pub(super) const CONTENT_VARIABLE: &str = "MIGRATIONS_WAITER_CONTENT";

/// Who a waiter runs as where the Pod's containers don't say, or are root.
const NOBODY: i64 = 65532;

/// Most that a waiter is told of its Pod's labels, in bytes. One with more is told none: it waits also
/// when no Migrator selects it any more.
const LABELS: usize = 8 * 1024;

/// Most that a waiter is told of its Pod's containers, in bytes: more than any Pod has, and less than its
/// question may be. One with more is told none, and waits for what is released by revision.
const CONTAINERS: usize = 32 * 1024;

/// What a Pod that waits is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// The waiters, one for each Migrator, in the order of the Migrators' names.
    pub containers: Vec<Container>,
    /// The volume they mount.
    pub volume: &'static Volume,
    /// Annotations that keep a mesh away from the waiters' questions, with their whole values.
    pub annotations: BTreeMap<&'static str, String>,
}

impl Injection {
    pub(super) fn of(pod: Pod<'_>, namespace: &str, gates: &[&Gate], settings: &Settings) -> Self {
        let waiter = |gate: &&Gate| waiter(pod, namespace, gate, settings);
        let containers = gates.iter().map(waiter).collect();
        Self { containers, volume: &VOLUME, annotations: mesh::exclusions(pod, names::QUESTION_PORT) }
    }
}

fn waiter(pod: Pod<'_>, namespace: &str, gate: &Gate, settings: &Settings) -> Container {
    let Settings { image, servers, server_name, resources, unsupported: _, timeout } = settings;
    let labels = pod.labels();
    let arguments = Arguments {
        namespace: namespace.to_owned(),
        migrator: gate.migrator.clone(),
        containers: admitted(pod),
        revision: revision(pod.controller().as_ref(), &labels),
        follower: gate.template_selector.as_ref().is_some_and(|selector| !selector.matches(&labels)),
        labels: if size(&labels) > LABELS { BTreeMap::new() } else { labels },
        servers: servers.clone(),
        server_name: server_name.clone(),
        files: MOUNT_PATH.into(),
        timeout: *timeout,
    };
    let mut container = Container {
        name: names::waiter_container(&gate.migrator),
        image: Some(image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(arguments.to_args()),
        resources: Some(Resources::within(resources, pod)),
        security_context: Some(restricted(pod)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![VolumeMount {
            name: names::WAITER_VOLUME.to_owned(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    let content = names::short_hash(&serde_json::to_vec(&container).unwrap_or_default());
    container.env =
        Some(vec![EnvVar { name: CONTENT_VARIABLE.to_owned(), value: Some(content), value_from: None }]);
    container
}

fn size(labels: &BTreeMap<String, String>) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The Pod's containers as they are admitted. One without an image is left out: other webhooks may
/// fill it in, or the API server refuses the Pod.
fn admitted(pod: Pod<'_>) -> Vec<Admitted> {
    let named = |container: &serde_json_borrow::Value<'_>| {
        let (name, image) = (container.get("name").as_str()?, container.get("image").as_str()?);
        (!name.is_empty() && !image.is_empty())
            .then(|| Admitted { name: name.to_owned(), image: image.to_owned() })
    };
    let admitted: Vec<_> = pod.containers().iter().filter_map(named).collect();
    let size: usize = admitted.iter().map(|container| container.name.len() + container.image.len()).sum();
    if size > CONTAINERS { Vec::new() } else { admitted }
}

/// The restricted profile of the Pod Security Standards. The user is one of the Pod's own: where they
/// all agree, the kubelet makes it the owner of their tokens, which another user would take from
/// them; and a platform may allow no others.
fn restricted(pod: Pod<'_>) -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(pod.user().unwrap_or(NOBODY)),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

/// One projected volume for all of a Pod's waiters. Readable for all: they may run as any user.
static VOLUME: LazyLock<Volume> = LazyLock::new(|| {
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.to_owned()),
        path: TOKEN_FILE.to_owned(),
        // The API server's default, said so that a second look at the Pod finds what it injected.
        expiration_seconds: Some(3600),
    };
    let bundle = ConfigMapProjection {
        name: names::CA_BUNDLE_CONFIG_MAP.to_owned(),
        items: Some(vec![KeyToPath {
            key: names::CA_BUNDLE_KEY.to_owned(),
            path: CA_FILE.to_owned(),
            mode: None,
        }]),
        // Without it the waiter says what is missing; else its Pod would only hang.
        optional: Some(true),
    };
    let field = |file: &str, path: &str| DownwardAPIVolumeFile {
        path: file.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: path.to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let fields = vec![field(ANNOTATIONS_FILE, "metadata.annotations"), field(UID_FILE, "metadata.uid")];
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(bundle), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(fields) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name: names::WAITER_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o444), sources: Some(sources) }),
        ..Volume::default()
    }
});
