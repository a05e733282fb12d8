//! Runs other programs: to their end, with an error that names the command and shows the end of what it said.
//!
//! Each child has a process group of its own, so that Ctrl-C reaches it through us (and spares what must not stop
//! halfway), and with it the children that it has in turn.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{interrupt, paths};

/// How long a child may take to stop when asked to.
const GRACE: Duration = Duration::from_secs(10);
const TAIL: usize = 25;

/// Runs the command; what it printed is only shown when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs the command and returns what it printed to stdout, without the last line end.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    execute(command, Manner::default())
}

/// Runs the command, which is stopped and failed after `limit`.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Result<()> {
    execute(command, Manner { limit: Some(limit), ..Manner::default() }).map(drop)
}

/// Runs the command with `input` as its stdin.
pub(crate) fn run_with_input(input: File, command: &mut Command) -> Result<()> {
    execute(command, Manner { input: input.into(), ..Manner::default() }).map(drop)
}

/// Runs the command even if someone asks to stop meanwhile: for what must not end halfway, and for cleaning up.
pub(crate) fn run_to_end(command: &mut Command) -> Result<()> {
    output_to_end(command).map(drop)
}

/// [`output`], even if someone asks to stop meanwhile.
pub(crate) fn output_to_end(command: &mut Command) -> Result<String> {
    execute(command, Manner { stoppable: false, ..Manner::default() })
}

/// Runs the command with its output shown as it comes.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    execute(command, Manner { shown: true, ..Manner::default() }).map(drop)
}

/// Whether the command can be run and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    run(command).is_ok()
}

/// Whether a program of this name is in `PATH`.
pub(crate) fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// `PATH` with a folder before the others.
pub(crate) fn path_with(folder: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.to_owned()].into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(folders).with_context(|| format!("{} can't be in PATH", folder.display()))
}

/// `cargo` in the checkout, as if called from a shell: what `cargo run` tells this program about itself would make
/// build scripts that look at it run again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    for (name, _) in std::env::vars_os() {
        let told = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if told {
            command.env_remove(name);
        }
    }
    command
}

/// Asks the process group to stop, and ends it if it does not.
pub(crate) fn stop(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(child.id().try_into().context("a process id out of range")?);
    // An error means that the group is gone already.
    let _ = killpg(group, Signal::SIGTERM);
    let asked = Instant::now();
    while child.try_wait()?.is_none() {
        if asked.elapsed() > GRACE {
            let _ = killpg(group, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

struct Manner {
    input: Stdio,
    limit: Option<Duration>,
    stoppable: bool,
    shown: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { input: Stdio::null(), limit: None, stoppable: true, shown: false }
    }
}

fn execute(command: &mut Command, manner: Manner) -> Result<String> {
    let Manner { input, limit, stoppable, shown } = manner;
    let out = || if shown { Stdio::inherit() } else { Stdio::piped() };
    command.stdin(input).stdout(out()).stderr(out()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", line(command)))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);

    let status = wait(command, &mut child, limit, stoppable);
    let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.map(|reader| String::from_utf8_lossy(&reader.join().unwrap_or_default()).trim_end().to_owned())
    };
    let (stdout, stderr) = (text(stdout).unwrap_or_default(), text(stderr).unwrap_or_default());
    let status = status?;
    if status.success() {
        return Ok(stdout);
    }
    let said = if stderr.is_empty() { &stdout } else { &stderr };
    bail!("{} {}{}", line(command), ending(status), tail(said));
}

fn wait(
    command: &Command,
    child: &mut Child,
    limit: Option<Duration>,
    stoppable: bool,
) -> Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stoppable && interrupt::raised() {
            stop(child)?;
            bail!("interrupted during {}", line(command));
        }
        if let Some(limit) = limit.filter(|limit| started.elapsed() > *limit) {
            stop(child)?;
            bail!("{} did not end within {} s", line(command), limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| match word.to_string_lossy().split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => word.to_string_lossy().into_owned(),
    });
    format!("`{}`", words.collect::<Vec<_>>().join(" "))
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let mut tail = String::new();
    for line in &lines[lines.len().saturating_sub(TAIL)..] {
        tail.push_str("\n    ");
        tail.push_str(line);
    }
    tail
}

/// Runs the command with `text` as its stdin.
pub(crate) fn run_with_text(text: &str, command: &mut Command) -> Result<()> {
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    file.write_all(text.as_bytes())?;
    std::io::Seek::rewind(&mut file)?;
    run_with_input(file, command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_names_the_command_and_shows_what_it_said() {
        let error = output(&mut shell("echo bad news >&2; exit 3")).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("exit code 3") && error.contains("bad news"),
            "{error}"
        );
    }

    #[test]
    fn output_is_stdout_alone() {
        assert_eq!(output(&mut shell("echo one; echo two >&2")).unwrap(), "one");
    }

    #[test]
    fn a_command_over_its_limit_is_stopped() {
        let error = run_within(Duration::from_millis(50), &mut shell("sleep 60")).unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }

    #[test]
    fn text_arrives_as_input() {
        run_with_text("hello", &mut shell("grep -q hello")).unwrap();
    }
}
