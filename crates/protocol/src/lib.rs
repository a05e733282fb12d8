//! What the webhook and the waiter must agree on: the waiter's arguments, its exit codes, and the
//! question and answer between them. Waiters live as long as their Pods, so an old waiter talks to
//! a newer webhook: nothing here may change its meaning, only grow.
//!
//! No I/O: the waiter carries it over TLS with its own client, the webhook with its own server.

mod arguments;
mod question;

pub use arguments::{ArgumentError, Arguments};
pub use question::{Answer, Container, Question, Verdict};

/// Version of question and answer. Part of [`QUESTION_PATH`].
pub const VERSION: u16 = 1;

/// Path of the question, asked with POST, a JSON body, and the Pod's token as `Authorization: Bearer`.
pub const QUESTION_PATH: &str = "/v1/question";

/// How long a webhook holds a question whose answer is still what the waiter has seen, in seconds.
/// A waiter allows the answer this time and some more.
pub const HOLD_SECONDS: u64 = 25;

/// Largest question and largest answer, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Exit code of a waiter that was released.
pub const EXIT_RELEASED: u8 = 0;

/// Exit code of a waiter whose arguments make no sense. Only a webhook writes them, so it is a
/// defect, or a Pod written by hand.
pub const EXIT_USAGE: u8 = 64;

/// Exit code of a waiter that has waited as long as its arguments allow.
pub const EXIT_TIMEOUT: u8 = 75;

/// Exit code of a waiter that was asked to end, by SIGTERM or SIGINT.
pub const EXIT_TERMINATED: u8 = 143;

/// Directory that the webhook mounts into the waiter's container: where the API server would otherwise
/// mount the application's own token, which the waiter must not have. It would do so after the webhook
/// was called, and call it again because of that.
pub const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// File of a waiter's directory with the certificates that it trusts, PEM.
pub const CA_FILE: &str = "ca.crt";

/// File of a waiter's directory with its Pod's token, for [`TOKEN_AUDIENCE`] alone.
pub const TOKEN_FILE: &str = "token";

/// File of a waiter's directory with its Pod's annotations, as the kubelet writes them.
pub const ANNOTATIONS_FILE: &str = "annotations";

/// File of a waiter's directory with its Pod's uid: what [`RELEASED_ANNOTATION`] has to say.
pub const UID_FILE: &str = "uid";

/// Annotation of a Pod: its own uid, once its waiters were released. They run again whenever the Pod's
/// sandbox is lost, and then end without asking anyone (contract §8). Since it says which Pod, a copy
/// of it on another (a template made from a live Pod, a backup) releases nothing.
pub const RELEASED_ANNOTATION: &str = "migrations.coderanger.net/released";

/// Annotation of a Pod: `"true"` ends its waiters without asking anyone.
pub const NO_WAIT_ANNOTATION: &str = "migrations.coderanger.net/no-wait";

/// Whom a waiter's token is meant for: nobody else takes it, and a token for others says nothing here.
pub const TOKEN_AUDIENCE: &str = "migrations.coderanger.net";
