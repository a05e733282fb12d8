//! Puts all of the shipped configurations in order, one after the other, and tells what that means for
//! the Migrators.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use migrations_core::entries::Entry;
use migrations_core::snapshot::Gate;

use super::configuration::{Configurations, Desired, Reach};
use super::memory::Memory;

/// Puts every configuration in order, and says what is wrong with those where it can't; whether all
/// are in order now.
pub(super) async fn put_all(
    all: &BTreeMap<String, Vec<Entry>>,
    reach: &Reach<'_>,
    staying: &BTreeSet<String>,
    configurations: &Configurations,
    memory: &mut Memory,
    faults: &mut BTreeMap<String, String>,
) -> bool {
    let mut home: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, entries) in all {
        home.extend(entries.iter().flat_map(Entry::uids).map(|uid| (uid, name.as_str())));
    }
    let mut in_order: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<&str> = all.keys().map(String::as_str).collect();
    // Again for those that still hold the entry of a Migrator whose new one is elsewhere: it goes when
    // that one is there, so that its Pods are held all the while.
    for _ in 0..2 {
        let mut again = Vec::new();
        for name in left {
            let entries = all.get(name).map(Vec::as_slice).unwrap_or_default();
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((entries, reach, staying));
            if !memory.is_in_order(name, hash) {
                let moving = home.iter().filter(|(_, home)| **home != name && !in_order.contains(*home));
                let moving: BTreeSet<_> = moving.map(|(uid, _)| (*uid).to_owned()).collect();
                let desired = Desired { entries, reach, staying, moving: &moving };
                match configurations.put(name, &desired).await {
                    Ok(written) => {
                        if written.moving {
                            again.push(name);
                        }
                        memory.keep(name, hash, written);
                    }
                    Err(why) => {
                        memory.kept.remove(name);
                        faults.insert(name.to_owned(), why);
                        continue;
                    }
                }
            }
            if reach.proven {
                in_order.insert(name);
            }
        }
        for name in &again {
            memory.kept.remove(*name);
        }
        left = again;
    }
    faults.is_empty()
}

/// What to say of the Migrators that have an entry.
pub(super) fn gates_by_uid<'a>(
    all: &'a BTreeMap<String, Vec<Entry>>,
    unproven: Option<&Gate>,
    faults: &BTreeMap<String, String>,
    memory: &Memory,
) -> BTreeMap<&'a str, Gate> {
    let mut gates = BTreeMap::new();
    for (name, entries) in all {
        for entry in entries {
            let refused = memory.kept.get(name).and_then(|kept| kept.refused.get(entry.name()));
            let gate = match (unproven, faults.get(name), refused) {
                (_, Some(why), _) => Gate::Pending(why.clone()),
                (Some(unproven), None, _) => unproven.clone(),
                (None, None, Some(why)) => Gate::Refused(why.clone()),
                (None, None, None) => Gate::InPlace,
            };
            gates.extend(entry.uids().map(|uid| (uid, gate.clone())));
        }
    }
    gates
}
