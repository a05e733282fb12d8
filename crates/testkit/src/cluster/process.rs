//! A process that cannot outlive the test that needs it, however that test ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A shell that runs a program until its own standard input ends, which the kernel sees to when
/// the test process is gone, then removes a directory. It works for a test that is killed, and
/// unlike a parent death signal it isn't tied to the thread that started it.
const SUPERVISOR: &str = r#"
directory=$1; shift
exec 3<&0
"$@" </dev/null & program=$!
{ cat <&3 >/dev/null; kill -9 "$program"; } & guard=$!
wait "$program"; status=$?
kill "$guard"
[ -z "$directory" ] || rm -rf "$directory"
exit "$status"
"#;

/// A running program; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    log: PathBuf,
    supervisor: Child,
}

impl Process {
    /// Starts `program`, whose output goes to a log in `directory`. With `owns_directory`, the
    /// directory goes when the program ends.
    pub(super) fn start(program: &Path, args: &[String], directory: &Path, owns_directory: bool) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).expect("a log can be created");
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(if owns_directory { directory } else { Path::new("") })
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a file can be shared"))
            .stderr(output)
            // Ctrl-C reaches the test; what it started ends in order after it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        Self { name, log, supervisor }
    }

    /// Panics with the end of its log if it has ended.
    pub(super) fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.supervisor.try_wait() {
            panic!("{} ended with {status}:\n{}", self.name, self.last_output());
        }
    }

    /// The last lines of its log.
    pub(super) fn last_output(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn stop(&mut self) -> io::Result<()> {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A panic in drop would hide the one that a test ended with.
        let _ = self.stop();
    }
}
