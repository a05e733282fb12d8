//! An init container that ends once the migrations of its Pod's image are done. It is pulled by
//! every Pod that waits, so it stays small; it needs no rights in the cluster, and no fault that may
//! pass makes it end.

mod client;
mod connect;
mod fault;
mod journal;
mod pace;
mod pass;
mod wire;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use migrations_protocol::{
    Answer, Arguments, EXIT_RELEASED, EXIT_TERMINATED, EXIT_TIMEOUT, EXIT_USAGE, Verdict,
};

use client::Client;
use fault::Fault;
use journal::Journal;
use pass::Pass;

/// What came of asking once.
enum Heard {
    /// There was no need to ask.
    Pass(Pass),
    /// What a server says.
    Answer(Answer),
    /// What is wrong with each of the servers.
    Faults(Vec<Fault>),
}

/// How much stack the asking thread may use; a handshake takes a tenth of it.
const STACK: usize = 512 * 1024;

/// Pause before a thread is asked for again that a node at its limits has refused.
const NO_THREAD: Duration = Duration::from_secs(1);

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
    let mut journal = Journal::new(&arguments);
    say(&journal.opened(&arguments));
    let patience = arguments.timeout.map_or(Duration::MAX, Duration::from_secs);
    let heard = start_asking(&arguments);
    loop {
        let now = started.elapsed();
        if now >= patience {
            say(&journal.gave_up(now));
            return ExitCode::from(EXIT_TIMEOUT);
        }
        let line = match heard.recv_timeout(journal.due(now).min(patience.saturating_sub(now))) {
            Ok(Heard::Pass(pass)) => {
                say(&Journal::released(&pass.reason(), started.elapsed()));
                return ExitCode::from(EXIT_RELEASED);
            }
            Ok(Heard::Answer(answer)) if answer.verdict == Verdict::Released => {
                say(&Journal::released(&answer.message, started.elapsed()));
                return ExitCode::from(EXIT_RELEASED);
            }
            Ok(Heard::Answer(answer)) => journal.answered(answer, started.elapsed()),
            Ok(Heard::Faults(faults)) => journal.failed(&faults, started.elapsed()),
            Err(RecvTimeoutError::Timeout) => journal.reminder(started.elapsed()),
            // Only a defect ends the asking without a release; the kubelet starts us again.
            Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
        };
        if let Some(line) = line {
            say(&line);
        }
    }
}

/// Asks in a thread of its own, since a question may be held for longer than nothing may be said.
fn start_asking(arguments: &Arguments) -> Receiver<Heard> {
    loop {
        let (sender, heard) = mpsc::channel();
        let arguments = arguments.clone();
        let asking = move || ask_until_released(&arguments, &sender);
        match thread::Builder::new().stack_size(STACK).spawn(asking) {
            Ok(_) => return heard,
            Err(error) => {
                say(&format!("the node has no thread for it, tries again: {error}"));
                thread::sleep(NO_THREAD);
            }
        }
    }
}

fn ask_until_released(arguments: &Arguments, heard: &Sender<Heard>) {
    let mut client = Client::new(arguments.clone());
    let (mut seen, mut faults) = (None, 0);
    loop {
        if let Some(pass) = Pass::find(&arguments.files) {
            // Nobody hears it any more where the waiter ends anyway.
            let _ = heard.send(Heard::Pass(pass));
            return;
        }
        let asked = Instant::now();
        let (pause, released, news) = match client.ask(seen.clone()) {
            Ok(answer) => {
                faults = 0;
                let known: Option<String> = seen.replace(answer.version.clone());
                let pause =
                    pace::after_answer(known.as_deref(), &answer.version, asked.elapsed(), pace::random());
                (pause, answer.verdict == Verdict::Released, Heard::Answer(answer))
            }
            Err(found) => {
                faults = u32::saturating_add(faults, 1);
                (pace::after_fault(faults, asked.elapsed(), pace::random()), false, Heard::Faults(found))
            }
        };
        if heard.send(news).is_err() || released {
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
