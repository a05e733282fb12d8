//! An init container that ends once the migrations of its Pod's image are done. It is pulled by
//! every Pod that waits, so it stays small; it needs no rights in the cluster, and no fault that may
//! pass makes it end.

mod client;
mod fault;
mod journal;
mod pace;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use migrations_protocol::{Answer, Arguments, EXIT_RELEASED, EXIT_TERMINATED, EXIT_USAGE, Verdict};

use client::Client;
use fault::Fault;
use journal::Journal;

/// What came of asking once: an answer, or what is wrong with each of the servers.
type Heard = Result<Answer, Vec<Fault>>;

fn main() -> ExitCode {
    end_at_once_on_sigterm();
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        // Help as well: 0 is for a Pod that may start, and for nothing else.
        Err(error) => {
            say(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let started = Instant::now();
    let mut journal = Journal::default();
    say(&Journal::opened(&arguments));
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || ask_until_released(Client::new(arguments), &sender));
    loop {
        let now = started.elapsed();
        let line = match heard.recv_timeout(journal.due(now)) {
            Ok(Ok(answer)) if answer.verdict == Verdict::Released => {
                say(&Journal::released(&answer, started.elapsed()));
                return ExitCode::from(EXIT_RELEASED);
            }
            Ok(Ok(answer)) => journal.answered(answer, started.elapsed()),
            Ok(Err(faults)) => journal.failed(&faults, started.elapsed()),
            Err(RecvTimeoutError::Timeout) => journal.reminder(started.elapsed()),
            // Only a defect ends the asking without a release; the kubelet starts us again.
            Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
        };
        if let Some(line) = line {
            say(&line);
        }
    }
}

fn ask_until_released(mut client: Client, heard: &Sender<Heard>) {
    let (mut seen, mut faults) = (None, 0);
    loop {
        let asked = Instant::now();
        let answer = client.ask(seen.clone());
        let pause = if let Ok(answer) = &answer {
            faults = 0;
            let known = seen.replace(answer.version.clone());
            pace::after_answer(known.as_deref(), &answer.version, asked.elapsed(), pace::random())
        } else {
            faults = u32::saturating_add(faults, 1);
            pace::after_fault(faults, pace::random())
        };
        let released = answer.as_ref().is_ok_and(|answer| answer.verdict == Verdict::Released);
        if heard.send(answer).is_err() || released {
            return;
        }
        thread::sleep(pause);
    }
}

/// The first process of a container ignores signals that it has no handler for: without one, a Pod
/// that is deleted while it waits would linger for its whole grace period.
fn end_at_once_on_sigterm() {
    let armed = Arc::new(AtomicBool::new(true));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let handler = signal_hook::flag::register_conditional_shutdown(
            signal,
            EXIT_TERMINATED.into(),
            Arc::clone(&armed),
        );
        if let Err(error) = handler {
            say(&format!("can't listen to signal {signal}, goes on without: {error}"));
        }
    }
}

/// Nobody may be reading: that is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
