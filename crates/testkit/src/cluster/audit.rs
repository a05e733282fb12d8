//! What service accounts asked of the API server, by its audit log, and what the shipped roles let them
//! ask: each right is used, and nothing else is asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use migrations_api::names::OPERATOR_NAMESPACE;
use serde_json::{Value, json};

use super::ControlPlane;
use crate::manifests::manifest;

/// How long after an answer its line may take to be in the log; far beyond what it takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the API server writes its audit log.
#[derive(Clone, Debug)]
pub(super) struct AuditLog(PathBuf);

impl AuditLog {
    /// One in `directory`, and the arguments that have an API server write it.
    pub(super) fn in_directory(directory: &Path) -> (Self, Vec<String>) {
        let policy = directory.join("audit-policy.json");
        let rules = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            "rules": [{ "level": "Metadata", "omitStages": ["RequestReceived"] }],
        });
        fs::write(&policy, rules.to_string()).expect("a file can be written");
        let log = directory.join("audit.log");
        let arguments = vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", log.display()),
            "--audit-log-mode=blocking".to_owned(),
            // Some clusters let an owner block deletions only who may change the owner's finalizers.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
        ];
        (Self(log), arguments)
    }

    /// What `account` of the operator's namespace has asked for so far.
    fn asked_by(&self, account: &str) -> BTreeSet<Asked> {
        let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{account}");
        let text = fs::read_to_string(&self.0).expect("the API server writes it");
        // The last line may not be whole yet.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["impersonatedUser"]["username"] == user)
            .filter_map(|event| asked(&event))
            .collect()
    }
}

/// A right: a verb on a resource, on one object of it where a name is given. What was asked for is told
/// the same way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    resource: String,
    name: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, name } = self;
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        let name = if name.is_empty() { String::new() } else { format!(" {name}") };
        write!(f, "{verb} {resource}{group}{name}")
    }
}

/// A request that the log tells of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    right: Right,
    namespace: String,
    allowed: bool,
}

/// Nothing for requests that are about no resource, such as what the API server serves.
fn asked(event: &Value) -> Option<Asked> {
    let object = event.get("objectRef")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = match object["subresource"].as_str() {
        Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
        None => text(&object["resource"]),
    };
    let (group, name) = (text(&object["apiGroup"]), text(&object["name"]));
    Some(Asked {
        right: Right { verb: text(&event["verb"]), group, resource, name },
        namespace: text(&object["namespace"]),
        allowed: event["annotations"]["authorization.k8s.io/decision"] == "allow",
    })
}

/// What a role grants.
fn granted(kind: &str, role: &str) -> BTreeSet<Right> {
    let role = manifest(kind, role);
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.extend(names.iter().map(|name| Right {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: numberless(name).to_owned(),
                    }));
                }
            }
        }
    }
    rights
}

/// What differs by a number alone is used alike: which of them hold an entry is a matter of chance.
fn numberless(name: &str) -> &str {
    name.trim_end_matches(|character: char| character.is_ascii_digit())
}

impl Asked {
    fn uses(&self, right: &Right, everywhere: bool) -> bool {
        let Right { verb, group, resource, name } = &self.right;
        (verb, group, resource) == (&right.verb, &right.group, &right.resource)
            && (right.name.is_empty() || numberless(name) == right.name)
            && (everywhere || self.namespace == OPERATOR_NAMESPACE)
    }
}

impl ControlPlane {
    /// Fails unless a service account of the manifests was refused nothing and has used each right of its
    /// roles, which have its name. `unseen` are rights that no request shows, and why they are needed all
    /// the same. For a control plane that was [started audited](Self::start_audited).
    pub async fn expect_rights_as_used(&self, account: &str, unseen: &[(&str, &str)]) {
        let log = self.audit.as_ref().expect("it is audited");
        let excused = |right: &Right| unseen.iter().any(|(unseen, _)| *unseen == right.to_string());
        let rights = |(kind, everywhere)| granted(kind, account).into_iter().map(move |it| (it, everywhere));
        let rights: Vec<_> = [("ClusterRole", true), ("Role", false)].into_iter().flat_map(rights).collect();
        let deadline = Instant::now() + TIMEOUT;
        let asked = loop {
            let asked = log.asked_by(account);
            let denied: Vec<_> = asked.iter().filter(|it| !it.allowed).collect();
            assert!(denied.is_empty(), "{account} lacks rights in manifests/rbac.yaml: {denied:#?}");
            let used =
                |(right, everywhere): &(Right, bool)| asked.iter().any(|it| it.uses(right, *everywhere));
            let unused: Vec<_> = rights.iter().filter(|it| !used(it) && !excused(&it.0)).collect();
            if unused.is_empty() {
                break asked;
            }
            let unused: Vec<_> = unused.into_iter().map(|(right, _)| right.to_string()).collect();
            assert!(
                Instant::now() < deadline,
                "{account} never used these rights; take them out of manifests/rbac.yaml: {unused:#?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        for (right, _) in unseen {
            let of_role = rights.iter().find(|(granted, _)| granted.to_string() == *right);
            let (of_role, everywhere) =
                of_role.unwrap_or_else(|| panic!("{account} has no right to {right}"));
            assert!(
                !asked.iter().any(|it| it.uses(of_role, *everywhere)),
                "{account} does {right}: excuse it no more"
            );
        }
    }
}
