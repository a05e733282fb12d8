//! The limit of open files. Container runtimes start programs with a soft limit that may be as low
//! as 1024, of which each connection takes one, and leave it to programs to raise it.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and returns it. Where that can't be done, the program goes
/// on with what it has.
pub fn allow_as_many_as_possible() -> Option<u64> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    raised.inspect_err(|error| tracing::warn!(%error, "cannot raise the limit of open files")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_opened_is_opened() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).unwrap();
        assert_eq!(allow_as_many_as_possible(), Some(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
