//! Says what the harness is doing: a step that takes longer than two seconds announces itself and keeps saying how long
//! it has been at it. Plain lines, because steps run side by side and logs are read later. Must not decide anything.

use std::fmt::Display;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

const QUIET: Duration = Duration::from_secs(2);
/// In seconds.
const EVERY: u64 = 15;
const EVERY_WHEN_LONG: u64 = 60;
const LONG: u64 = 120;

/// A step under way. Dropping it stops its announcements.
pub(crate) struct Step {
    name: String,
    started: Instant,
    _ended: Sender<()>,
}

impl Step {
    /// Starts the clock of a step.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let started = Instant::now();
        let (ended, running) = channel();
        thread::spawn({
            let name = name.clone();
            move || announce(&name, started, &running)
        });
        Self { name, started, _ended: ended }
    }

    /// Says how the step ended, where it was long enough to have been announced.
    pub(crate) fn end<T>(self, outcome: &Result<T>) {
        let took = self.started.elapsed();
        match outcome {
            Ok(_) if took < QUIET => {}
            Ok(_) => println!("  done: {} ({})", self.name, seconds(took)),
            Err(_) => println!("  failed: {} ({})", self.name, seconds(took)),
        }
    }
}

/// Does `work` as one step.
pub(crate) fn step<T>(name: impl Into<String>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let step = Step::start(name);
    let outcome = work();
    step.end(&outcome);
    outcome
}

/// A line about something that happened.
pub(crate) fn note(text: impl Display) {
    println!("  {text}");
}

/// A duration for people.
pub(crate) fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..60 => format!("{:.1} s", took.as_secs_f32()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

fn announce(name: &str, started: Instant, running: &Receiver<()>) {
    if running.recv_timeout(QUIET) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    println!("  {name} ...");
    let until_next = || {
        let so_far = started.elapsed().as_secs();
        let every = if so_far < LONG { EVERY } else { EVERY_WHEN_LONG };
        Duration::from_secs(every - so_far % every)
    };
    while running.recv_timeout(until_next()) == Err(RecvTimeoutError::Timeout) {
        println!("  {name}: {} s so far", started.elapsed().as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_person_says_them() {
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }
}
