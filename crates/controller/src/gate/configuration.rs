//! One of the shipped configurations in the cluster: makes its entries those desired, and finds the
//! ones that the API server refuses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client, ResourceExt};
use migrations_api::names;
use migrations_core::entries::{Entry, apart, differ, name_of, refusal as words, speaks_of, trusting};
use serde_json::{Value, json};

/// How the API server is known to reach the webhook.
#[derive(Hash)]
pub(super) struct Reach<'a> {
    /// Whether that is proven.
    pub(super) proven: bool,
    /// Whom it trusted then, in base64: entries that stay as they are have to trust the same.
    pub(super) ca_bundle: &'a str,
}

/// What is desired of a configuration.
pub(super) struct Desired<'a> {
    /// The entries.
    pub(super) entries: &'a [Entry],
    /// How the API server gets through.
    pub(super) reach: &'a Reach<'a>,
    /// Uids of Migrators that can't be looked after now. Their entries stay: their Pods are held if they
    /// were.
    pub(super) staying: &'a BTreeSet<String>,
    /// Uids of Migrators whose entry is to be in another configuration, but isn't yet. The one here
    /// stays until it is.
    pub(super) moving: &'a BTreeSet<String>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Something had to be changed.
    pub(super) changed: bool,
    /// An entry is left that is to be elsewhere.
    pub(super) moving: bool,
    /// Entries that the API server refuses, by name, with its words. They are left out.
    pub(super) refused: BTreeMap<String, String>,
}

/// Writes configurations; never creates or deletes one.
pub(super) struct Configurations(Api<DynamicObject>);

impl Configurations {
    pub(super) fn new(client: Client) -> Self {
        Self(Api::all_with(client, &ApiResource::erase::<MutatingWebhookConfiguration>(&())))
    }

    /// Makes one configuration's entries those desired, if they differ; why not, where it can't.
    pub(super) async fn put(&self, name: &str, desired: &Desired<'_>) -> Result<Written, String> {
        let Some(mut configuration) = self.0.get_opt(name).await.map_err(|error| error.to_string())? else {
            return Err(format!(
                "MutatingWebhookConfiguration {name} doesn't exist; install the operator again ('kubectl apply' or 'helm upgrade')"
            ));
        };
        let found = configuration.data["webhooks"].as_array().cloned().unwrap_or_default();
        let all = desired.entries.iter();
        let ours: Vec<_> = if desired.reach.proven {
            all.map(|entry| entry.settled(&found)).collect()
        } else {
            all.filter_map(|entry| entry.unproven(&found)).collect()
        };
        let is_in = |all: &[Value], name: &str| all.iter().any(|entry| name_of(entry) == name);
        let stays = |entry: &&Value| [desired.staying, desired.moving].iter().any(|it| speaks_of(entry, it));
        // The name may be that of another one with whom it was shared.
        let named = |entry: &Value| match is_in(&ours, name_of(entry)) {
            false => Some(entry.clone()),
            true if speaks_of(entry, desired.staying) => {
                Some(apart(entry, desired.staying)).filter(|apart| !is_in(&found, name_of(apart)))
            }
            true => None,
        };
        let kept = |entry: Value| {
            if desired.reach.proven { trusting(&entry, desired.reach.ca_bundle) } else { entry }
        };
        let others: Vec<_> = found.iter().filter(stays).filter_map(named).map(kept).collect();
        let moving = others.iter().any(|entry| speaks_of(entry, desired.moving));
        let mut written = Written { moving, ..Written::default() };
        let entries = in_order(ours.iter().chain(&others));
        if !differ(&found, &entries) {
            return Ok(written);
        }
        configuration.metadata.managed_fields = None;
        match self.replace(&configuration, &entries, false).await {
            Ok(()) => written.changed = true,
            Err(kube::Error::Api(refusal)) if refusal.code == 422 => {
                let (accepted, refused) = self.sift(&configuration, others, ours).await?;
                written.refused = refused;
                written.changed = differ(&found, &accepted);
                if written.changed {
                    let replaced = self.replace(&configuration, &accepted, false).await;
                    replaced.map_err(|error| error.to_string())?;
                }
            }
            Err(error) => return Err(error.to_string()),
        }
        if written.changed {
            tracing::info!(configuration = name, entries = entries.len(), "wrote webhook entries");
        }
        Ok(written)
    }

    /// Of `entries`, those that the API server takes beside `others`, and those that it refuses, by
    /// asking for ever smaller parts.
    async fn sift(
        &self,
        configuration: &DynamicObject,
        others: Vec<Value>,
        entries: Vec<Value>,
    ) -> Result<(Vec<Value>, BTreeMap<String, String>), String> {
        let (mut accepted, mut refused, mut parts) = (others, BTreeMap::new(), vec![entries]);
        while let Some(mut part) = parts.pop() {
            let tried = in_order(accepted.iter().chain(&part));
            match self.replace(configuration, &tried, true).await {
                Ok(()) => accepted.append(&mut part),
                Err(kube::Error::Api(refusal)) if refusal.code == 422 => match part.as_slice() {
                    [] => return Err(refusal.message),
                    [one] => drop(refused.insert(name_of(one).to_owned(), words(&refusal.message))),
                    _ => {
                        let second = part.split_off(part.len() / 2);
                        parts.extend([second, part]);
                    }
                },
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((in_order(&accepted), refused))
    }

    async fn replace(
        &self,
        configuration: &DynamicObject,
        entries: &[Value],
        dry_run: bool,
    ) -> Result<(), kube::Error> {
        let mut configuration = configuration.clone();
        configuration.data = json!({ "webhooks": entries });
        let parameters = PostParams { dry_run, field_manager: Some(names::FIELD_MANAGER.to_owned()) };
        let name = configuration.name_any();
        self.0.replace(&name, &parameters, &configuration).await.map(drop)
    }
}

fn in_order<'a>(entries: impl IntoIterator<Item = &'a Value>) -> Vec<Value> {
    let mut entries: Vec<_> = entries.into_iter().cloned().collect();
    entries.sort_by(|one, other| name_of(one).cmp(name_of(other)));
    entries
}
