//! Every name that leaves the operator: API group, labels, annotations, field manager, objects it
//! makes. A name written twice is a name that can differ.

/// API group of the operator's resources.
pub const GROUP: &str = "migrations.coderanger.net";

/// Who wrote a field, as shown by `managedFields`.
pub const FIELD_MANAGER: &str = "migrations-operator";

/// Label of the Job and Pod of a run; its value is the Migrator's name, cut by [`label_value`].
pub const RUN_LABEL: &str = "migrations";

/// Annotation of a Pod: `"true"` lets it start without waiting (contract §2).
pub const NO_WAIT_ANNOTATION: &str = "migrations.coderanger.net/no-wait";

/// Annotation of a Pod: `"true"` refuses it while no Migrator matches (contract §2).
pub const REQUIRED_ANNOTATION: &str = "migrations.coderanger.net/required";

/// Annotation of a Migrator: a new value forces a run of what is deployed (contract §2).
pub const RUN_ANNOTATION: &str = "migrations.coderanger.net/run";

/// Annotation of a Migrator: that image is recorded as done without a run (contract §2).
pub const DONE_ANNOTATION: &str = "migrations.coderanger.net/done";

/// Annotation of a Migrator: `"true"` lets every Pod pass (contract §2).
pub const OPEN_ANNOTATION: &str = "migrations.coderanger.net/open";

/// Annotation of a run's Job: the key it migrates (contract §5).
pub const KEY_ANNOTATION: &str = "migrations.coderanger.net/key";

/// Annotation of a run's Job: the attempt, counted from 1 (contract §5).
pub const ATTEMPT_ANNOTATION: &str = "migrations.coderanger.net/attempt";

/// Annotation of a run's Job: hash of the run's spec and Pod template (contract §5).
pub const RUN_HASH_ANNOTATION: &str = "migrations.coderanger.net/run-hash";

/// Name of the container that runs the migration.
pub const RUN_CONTAINER: &str = "migrations";

/// Start of the names of injected containers; the Migrator's name follows.
pub const WAITER_PREFIX: &str = "migrate-wait-";

/// Name of the volume that an injected container mounts.
pub const WAITER_VOLUME: &str = "migrations-waiter";

/// Readiness gate of a run's Pod. Nobody ever sets it, so no Service ever sends the Pod traffic.
pub const NEVER_READY_GATE: &str = "migrations.coderanger.net/never-ready";

/// Namespace that the shipped manifests install into.
pub const OPERATOR_NAMESPACE: &str = "migrations-operator";

/// Secret in the operator's namespace with the key of the certificate authority; only the
/// controller reads it.
pub const CA_SECRET: &str = "migrations-ca";

/// Secret in the operator's namespace with the webhook's serving certificate.
pub const SERVING_SECRET: &str = "migrations-webhook-tls";

/// `ConfigMap` in each namespace with a Migrator: the certificates that waiters trust.
pub const CA_BUNDLE_CONFIG_MAP: &str = "migrations-ca-bundle";

/// Key of [`CA_BUNDLE_CONFIG_MAP`] and file name in the waiter's volume.
pub const CA_BUNDLE_KEY: &str = "ca.crt";

/// Lease in the operator's namespace; the replica of the controller that holds it leads.
pub const CONTROLLER_LEASE: &str = "migrations-controller";

/// Service in the operator's namespace that the API server and waiters call.
pub const WEBHOOK_SERVICE: &str = "migrations-webhook";

/// Port of [`WEBHOOK_SERVICE`] for admission reviews, called by the API server.
pub const ADMISSION_PORT: u16 = 443;

/// Port of the webhook's Pods for admission reviews, as shipped. [`ADMISSION_PORT`] leads to it.
pub const ADMISSION_LISTEN_PORT: u16 = 9443;

/// Path of admission reviews. What follows it names the entry that called.
pub const ADMIT_PATH: &str = "/admit";

/// Port of [`WEBHOOK_SERVICE`] for the waiters' questions.
pub const QUESTION_PORT: u16 = 9444;

/// The shipped webhook configuration for Pods annotated as required. Sorts after the
/// configurations of service meshes, so that the waiter comes first in the Pod (contract §7).
pub const REQUIRED_CONFIGURATION: &str = "zz-migrations-required";

/// The shipped webhook configuration by which the controller finds out whether the API server
/// reaches the webhook (contract §7).
pub const PROBE_CONFIGURATION: &str = "zz-migrations-probe";

/// Label of the Pod that asks that, which is never created.
pub const PROBE_LABEL: &str = "migrations.coderanger.net/probe";

/// Label of the leases that are locks (contract §5).
pub const LOCK_LABEL: &str = "migrations.coderanger.net/lock";

/// Name of the lease of a lock: of one namespace, or of all where the administrator shares it.
pub fn lock_lease(namespace: Option<&str>, lock: &str) -> String {
    let scope = namespace.unwrap_or_default();
    shortened("migrations-lock-", lock, &format!("-{}", short_hash(format!("{scope}\n{lock}").as_bytes())))
}

/// How many configurations the manifests ship for the entries of Migrators (contract §7).
pub const ENTRY_SHARDS: usize = 16;

/// Name of the shipped configuration `shard`, `zz-migrations-00` and so on.
pub fn entry_configuration(shard: usize) -> String {
    format!("zz-migrations-{shard:02}")
}

/// Longest label value, and longest name of a container or Job that Pods can be made from.
const LABEL_LENGTH: usize = 63;

/// `name` as a label value: itself where it fits, as the original has it, else cut and given a hash
/// of the whole, so that two long names never meet (contract §2).
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_LENGTH { name.to_owned() } else { shortened("", name, "") }
}

/// Name of the waiter container for a Migrator. A Migrator's name may hold dots, a container's
/// may not: those names are hashed as well.
pub fn waiter_container(migrator: &str) -> String {
    shortened(WAITER_PREFIX, migrator, "")
}

/// `prefix`, `name` and `suffix` in one DNS label of at most 63 characters. Where `name` has to
/// change for that, a hash of it is appended, so that different names stay different.
pub fn shortened(prefix: &str, name: &str, suffix: &str) -> String {
    let budget = LABEL_LENGTH.saturating_sub(prefix.len() + suffix.len());
    if name.len() <= budget && !name.contains('.') {
        return format!("{prefix}{name}{suffix}");
    }
    let hash = short_hash(name.as_bytes());
    let plain = name.replace('.', "-");
    let kept: String = plain.chars().take(budget.saturating_sub(hash.len() + 1)).collect();
    format!("{prefix}{}-{hash}{suffix}", kept.trim_end_matches('-'))
}

/// Ten lower-case hexadecimal digits of the SHA-256 of `bytes`: enough for names within one
/// namespace, stable across versions of the operator.
pub fn short_hash(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write;
    Sha256::digest(bytes).iter().take(5).fold(String::with_capacity(10), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_kept() {
        assert_eq!(waiter_container("shop"), "migrate-wait-shop");
    }

    #[test]
    fn a_long_name_is_cut_to_63_and_stays_different_from_its_neighbour() {
        let (one, two) = ("a".repeat(100), "a".repeat(101));
        assert_eq!(waiter_container(&one).len(), 63);
        assert_ne!(waiter_container(&one), waiter_container(&two));
    }

    #[test]
    fn a_label_holds_every_name_that_fits_as_it_is() {
        assert_eq!(label_value("shop.example"), "shop.example");
        assert_eq!(label_value(&"a".repeat(64)).len(), 63);
    }

    #[test]
    fn a_dot_is_replaced_and_does_not_meet_the_dash() {
        assert_ne!(waiter_container("a.b"), waiter_container("a-b"));
        assert!(!waiter_container("a.b").contains('.'));
    }
}
