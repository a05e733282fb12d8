//! The waiter's command line: written by admission, read by the waiter, shown by `kubectl describe`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::{Container, Question};

/// What admission tells a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Migrator to wait for.
    pub migrator: String,
    /// The Pod's containers with the images they were admitted with.
    pub containers: Vec<Container>,
    /// The Pod's revision, where it has one: see [`Question::revision`].
    pub revision: Option<String>,
    /// Whether the Pod follows others: see [`Question::follower`].
    pub follower: bool,
    /// The Pod's labels as they were admitted: see [`Question::labels`].
    pub labels: BTreeMap<String, String>,
    /// Where to ask, in order: `host:port`, cluster IPs before names, so that no waiter depends on
    /// cluster DNS (contract §8).
    pub servers: Vec<String>,
    /// The name that the server's certificate must carry, however it was reached.
    pub server_name: String,
    /// Directory with [`crate::CA_FILE`], [`crate::TOKEN_FILE`], [`crate::ANNOTATIONS_FILE`] and
    /// [`crate::UID_FILE`]. The kubelet renews them, so they are read again at each attempt.
    pub files: PathBuf,
    /// How long to wait at most, in seconds: without end where it isn't said.
    pub timeout: Option<u64>,
}

/// A command line that is no waiter's.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// The line asks for help.
    #[error("{}", Arguments::HELP)]
    Help,
    /// A flag is unknown, lacks its value, or has one that can't be read.
    #[error("{0}; see --help")]
    Malformed(#[from] lexopt::Error),
    /// A flag is missing.
    #[error("--{0} is missing; it is written by the webhook when the Pod is created")]
    Missing(&'static str),
    /// A container is not `name=image`.
    #[error("--container {0:?} is not NAME=IMAGE")]
    Container(String),
    /// A label is not `name=value`.
    #[error("--label {0:?} is not NAME=VALUE")]
    Label(String),
}

impl Arguments {
    /// What `--help` prints.
    pub const HELP: &'static str = "\
Waits in a Pod, as an init container, until the migrations of the Pod's image are done.
Written into Pods by the migrations webhook; there is no need to run it by hand.

Usage: migrations-waiter --namespace NS --migrator NAME --container NAME=IMAGE...
                         [--revision UID/HASH] [--follower] [--label NAME=VALUE...]
                         --server HOST:PORT... --server-name NAME --files DIR
                         [--timeout SECONDS]

  --namespace NS          namespace of the Pod and of the Migrator
  --migrator NAME         the Migrator to wait for
  --container NAME=IMAGE  a container of the Pod with its image; once for each
  --revision UID/HASH     what the Pod was made from: its controller, and the hash of its template
  --follower              the Migrator's templateSelector leaves the Pod out
  --label NAME=VALUE      a label of the Pod; once for each
  --server HOST:PORT      where to ask; tried in order
  --server-name NAME      the name in the server's certificate
  --files DIR             certificates to trust, the Pod's token, its annotations and its uid
  --timeout SECONDS       give up after that time; off where it isn't given

Exit codes: 0 released, 64 wrong arguments, 75 waited for --timeout, 143 asked to end; 1 or 134 is a defect.
A fault that may pass never ends it.";

    /// The command line, as an init container's `args`.
    pub fn to_args(&self) -> Vec<String> {
        let mut args =
            vec![format!("--namespace={}", self.namespace), format!("--migrator={}", self.migrator)];
        args.extend(self.containers.iter().map(|c| format!("--container={}={}", c.name, c.image)));
        args.extend(self.revision.iter().map(|revision| format!("--revision={revision}")));
        args.extend(self.follower.then(|| "--follower".to_owned()));
        args.extend(self.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        args.extend(self.servers.iter().map(|server| format!("--server={server}")));
        args.push(format!("--server-name={}", self.server_name));
        args.push(format!("--files={}", self.files.display()));
        args.extend(self.timeout.map(|seconds| format!("--timeout={seconds}")));
        args
    }

    /// Reads a command line, without the program's name.
    pub fn parse<I>(args: I) -> Result<Self, ArgumentError>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let (mut namespace, mut migrator, mut server_name, mut files) = (None, None, None, None);
        let (mut revision, mut follower, mut labels) = (None, false, BTreeMap::new());
        let mut timeout = None;
        let (mut containers, mut servers) = (Vec::new(), Vec::new());
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("namespace") => namespace = Some(parser.value()?.string()?),
                Long("migrator") => migrator = Some(parser.value()?.string()?),
                Long("container") => containers.push(container(&parser.value()?.string()?)?),
                Long("revision") => revision = Some(parser.value()?.string()?),
                Long("follower") => follower = true,
                Long("label") => labels.extend([label(&parser.value()?.string()?)?]),
                Long("server") => servers.push(parser.value()?.string()?),
                Long("server-name") => server_name = Some(parser.value()?.string()?),
                Long("files") => files = Some(PathBuf::from(parser.value()?)),
                Long("timeout") => timeout = Some(parser.value()?.parse()?),
                Long("help") | Short('h') => return Err(ArgumentError::Help),
                other => return Err(other.unexpected().into()),
            }
        }
        if servers.is_empty() {
            return Err(ArgumentError::Missing("server"));
        }
        Ok(Self {
            namespace: namespace.ok_or(ArgumentError::Missing("namespace"))?,
            migrator: migrator.ok_or(ArgumentError::Missing("migrator"))?,
            containers,
            revision,
            follower,
            labels,
            servers,
            server_name: server_name.ok_or(ArgumentError::Missing("server-name"))?,
            files: files.ok_or(ArgumentError::Missing("files"))?,
            timeout,
        })
    }

    /// The question these arguments ask. `seen` is the version of the answer that is known.
    pub fn question(&self, seen: Option<String>) -> Question {
        Question {
            namespace: self.namespace.clone(),
            migrator: self.migrator.clone(),
            containers: self.containers.clone(),
            revision: self.revision.clone(),
            follower: self.follower,
            labels: self.labels.clone(),
            seen,
        }
    }
}

fn label(text: &str) -> Result<(String, String), ArgumentError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ArgumentError::Label(text.to_owned())),
    }
}

fn container(text: &str) -> Result<Container, ArgumentError> {
    match text.split_once('=') {
        Some((name, image)) if !name.is_empty() && !image.is_empty() => {
            Ok(Container { name: name.to_owned(), image: image.to_owned() })
        }
        _ => Err(ArgumentError::Container(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            namespace in "[a-z][a-z0-9-]{0,20}",
            migrator in "[a-z][a-z0-9.-]{0,40}",
            containers in proptest::collection::vec(("[a-z][a-z0-9-]{0,10}", "[ -~]{1,60}"), 0..4),
            servers in proptest::collection::vec("[a-z0-9.:\\[\\]]{1,40}", 1..4),
            files in "/[a-z/. ]{1,30}",
            revision in proptest::option::of("[a-f0-9-]{1,36}(/[a-z0-9-]{1,20})?"),
            follower: bool,
            labels in proptest::collection::btree_map("[a-z./-]{1,20}", "[a-zA-Z0-9._-]{0,10}", 0..4),
            timeout: Option<u64>,
        ) {
            let arguments = Arguments {
                namespace,
                migrator,
                containers: containers.into_iter().map(|(name, image)| Container { name, image }).collect(),
                revision,
                follower,
                labels,
                servers,
                server_name: "webhook.operator.svc".to_owned(),
                files: files.into(),
                timeout,
            };
            prop_assert_eq!(Arguments::parse(arguments.to_args()).unwrap(), arguments);
        }
    }

    #[rstest]
    #[case::nothing(&[], "--server is missing")]
    #[case::unknown_flag(&["--colour=red"], "invalid option '--colour'")]
    #[case::container_without_image(&["--container=app"], "is not NAME=IMAGE")]
    #[case::label_without_value(&["--label=app"], "--label \"app\" is not NAME=VALUE")]
    #[case::timeout_in_words(&["--timeout=soon"], "\"soon\"")]
    #[case::help(&["--help"], "Usage:")]
    fn a_wrong_line_is_told_what_is_wrong(#[case] args: &[&str], #[case] said: &str) {
        let error = Arguments::parse(args).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
