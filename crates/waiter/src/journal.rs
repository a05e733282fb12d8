//! What is said, and when: a line for each change and a reminder every 30 s, for people who look at
//! `kubectl logs POD -c migrate-wait-X` first.

use std::time::Duration;

use migrations_protocol::{Answer, Arguments};

use crate::fault::Fault;

/// How long nothing is said while nothing changes.
const REMINDER: Duration = Duration::from_secs(30);

/// How soon another fault is told of while faults go on: they may take turns.
const NEXT_FAULT: Duration = Duration::from_secs(5);

/// So many silent rounds are no hiccup.
const SILENT_ROUNDS: u32 = 3;

/// What silent rounds hint at.
const SUSPECT: &str = "; where connections time out, look for a NetworkPolicy that doesn't let this namespace's \
                       Pods out to the operator";

/// What has been said so far.
pub(crate) struct Journal {
    /// What is waited for, before any server has said more.
    awaited: String,
    answer: Option<Answer>,
    trouble: Option<Trouble>,
    said_at: Duration,
}

/// Faults since the last answer.
struct Trouble {
    since: Duration,
    attempts: u32,
    silent: u32,
    text: String,
    told: String,
}

impl Journal {
    /// Nothing yet.
    pub(crate) fn new(Arguments { namespace, migrator, .. }: &Arguments) -> Self {
        let awaited = format!("waits for Migrator {namespace}/{migrator}");
        Self { awaited, answer: None, trouble: None, said_at: Duration::ZERO }
    }

    /// The first line.
    pub(crate) fn opened(&self, Arguments { servers, .. }: &Arguments) -> String {
        line(Duration::ZERO, &format!("{}; asks {}", self.awaited, servers.join(", ")))
    }

    /// The last line of a Pod that may start.
    pub(crate) fn released(why: &str, now: Duration) -> String {
        line(now, &format!("released: {why}"))
    }

    /// The last line of one that has waited as long as it may.
    pub(crate) fn gave_up(&self, now: Duration) -> String {
        line(now, &format!("gives up, as the webhook's --waiter-timeout says: {}", self.latest()))
    }

    /// How long until a reminder is due.
    pub(crate) fn due(&self, now: Duration) -> Duration {
        (self.said_at + REMINDER).saturating_sub(now)
    }

    /// What to say of an answer, if anything.
    pub(crate) fn answered(&mut self, answer: Answer, now: Duration) -> Option<String> {
        let again = self.trouble.take().is_some();
        let changed = self.answer.as_ref().is_none_or(|known| known.version != answer.version);
        let text = match (again, changed) {
            (false, false) => None,
            (_, true) => Some(answer.message.clone()),
            (true, false) => Some(format!("reached again; still {}", first_line(&answer.message))),
        };
        self.answer = Some(answer);
        text.map(|text| self.say(now, &text))
    }

    /// What to say of a round of faults, if anything.
    pub(crate) fn failed(&mut self, faults: &[Fault], now: Duration) -> Option<String> {
        let text = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let silent = faults.iter().any(|fault| fault.silent);
        let is_new = self.trouble.is_none();
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: now,
            attempts: 0,
            silent: 0,
            text: String::new(),
            told: String::new(),
        });
        trouble.attempts += 1;
        trouble.silent = if silent { trouble.silent + 1 } else { 0 };
        let suspicious = trouble.silent == SILENT_ROUNDS;
        let changed = trouble.told != text;
        trouble.text = text;
        let soon = now < self.said_at + NEXT_FAULT;
        (is_new || suspicious || (changed && !soon)).then(|| self.tell_trouble(now))
    }

    /// What to say when nothing has changed for [`REMINDER`].
    pub(crate) fn reminder(&mut self, now: Duration) -> Option<String> {
        if !self.due(now).is_zero() {
            return None;
        }
        if self.trouble.is_some() {
            return Some(self.tell_trouble(now));
        }
        let text = format!("still {}", self.latest());
        Some(self.say(now, &text))
    }

    /// What is waited for and why, as far as it is known.
    fn latest(&self) -> String {
        match &self.answer {
            Some(answer) => first_line(&answer.message).to_owned(),
            None => format!("{}, with no answer yet", self.awaited),
        }
    }

    fn tell_trouble(&mut self, now: Duration) -> String {
        let known = self
            .answer
            .as_ref()
            .map(|answer| format!("; by the last answer, it {}", first_line(&answer.message)));
        let Some(Trouble { since, attempts, silent, text, told }) = &mut self.trouble else {
            return String::new();
        };
        told.clone_from(text);
        let count = match attempts {
            1 => String::new(),
            _ => format!(" ({attempts} attempts in {})", elapsed(now.saturating_sub(*since))),
        };
        let suspect = if *silent >= SILENT_ROUNDS { SUSPECT } else { "" };
        let line = format!("can't ask, tries again: {text}{count}{suspect}{}", known.unwrap_or_default());
        self.say(now, &line)
    }

    fn say(&mut self, now: Duration, text: &str) -> String {
        self.said_at = now;
        line(now, text)
    }
}

/// A line of the log; further lines of the text are indented below it.
fn line(now: Duration, text: &str) -> String {
    let text: Vec<_> = text.lines().collect();
    format!("[{}] {}", elapsed(now), text.join("\n    "))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, s) => format!("{h}h{m:02}m{s:02}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations_protocol::Verdict;
    use rstest::rstest;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn answer(version: &str, message: &str) -> Answer {
        Answer {
            verdict: Verdict::Wait,
            reason: "Running".to_owned(),
            message: message.to_owned(),
            version: version.to_owned(),
        }
    }

    fn journal() -> Journal {
        let line = [
            "--namespace=default",
            "--migrator=shop",
            "--server=10.0.0.1:9444",
            "--server-name=w",
            "--files=/",
        ];
        Journal::new(&Arguments::parse(line).unwrap())
    }

    fn refused() -> Fault {
        Fault::new("10.0.0.1:9444", "connection refused")
    }

    fn silent() -> Fault {
        Fault { silent: true, ..Fault::new("10.0.0.1:9444", "the connection timed out") }
    }

    #[test]
    fn an_answer_is_told_once_until_it_changes() {
        let mut journal = journal();
        assert_eq!(journal.answered(answer("1", "waits"), at(1)).as_deref(), Some("[1s] waits"));
        assert_eq!(journal.answered(answer("1", "waits"), at(26)), None);
        assert_eq!(journal.answered(answer("2", "runs"), at(27)).as_deref(), Some("[27s] runs"));
    }

    #[test]
    fn a_runs_output_is_indented_and_told_once() {
        let mut journal = journal();
        let told = journal.answered(answer("1", "failed\nits last output:\nboom"), at(61)).unwrap();
        assert_eq!(told, "[1m01s] failed\n    its last output:\n    boom");
        assert_eq!(journal.reminder(at(91)).unwrap(), "[1m31s] still failed");
    }

    #[rstest]
    #[case::too_early(29, None)]
    #[case::due(30, Some("[30s] still waits for Migrator default/shop, with no answer yet"))]
    fn a_reminder_comes_every_30_seconds(#[case] now: u64, #[case] said: Option<&str>) {
        let mut journal = journal();
        assert_eq!(journal.reminder(at(now)).as_deref(), said);
        assert_eq!(journal.due(at(now)), at(if said.is_some() { 30 } else { 1 }));
    }

    #[test]
    fn faults_are_told_once_with_a_reminder_that_counts_them() {
        let mut journal = journal();
        assert_eq!(
            journal.failed(&[refused()], at(1)).as_deref(),
            Some("[1s] can't ask, tries again: 10.0.0.1:9444: connection refused")
        );
        assert_eq!(journal.failed(&[refused()], at(9)), None);
        let reminder = journal.reminder(at(31)).unwrap();
        assert!(reminder.ends_with("connection refused (2 attempts in 30s)"), "{reminder}");
    }

    #[test]
    fn faults_that_take_turns_do_not_fill_the_log() {
        let mut journal = journal();
        assert!(journal.failed(&[refused()], at(1)).is_some());
        assert!(journal.failed(&[silent()], at(2)).is_none());
        assert!(journal.failed(&[refused()], at(3)).is_none());
        assert!(journal.failed(&[silent()], at(4)).is_none());
        assert!(journal.failed(&[silent()], at(9)).is_some());
    }

    #[test]
    fn an_answer_after_faults_is_told_of_even_if_it_is_the_old_one() {
        let mut journal = journal();
        journal.answered(answer("1", "runs\nmore"), at(1));
        journal.failed(&[refused()], at(2));
        assert_eq!(
            journal.answered(answer("1", "runs\nmore"), at(8)).as_deref(),
            Some("[8s] reached again; still runs")
        );
        assert!(journal.failed(&[refused()], at(9)).is_some());
    }

    #[test]
    fn repeated_time_outs_name_network_policies() {
        let mut journal = journal();
        let told: Vec<_> = (1..=4).map(|second| journal.failed(&[silent()], at(second))).collect();
        assert!(!told[0].as_ref().unwrap().contains("NetworkPolicy"));
        assert_eq!(told[1], None);
        assert!(told[2].as_ref().unwrap().contains("NetworkPolicy"));
        assert_eq!(told[3], None);
    }

    #[test]
    fn while_nobody_can_be_asked_reminders_say_what_was_known() {
        let mut journal = journal();
        journal.answered(answer("1", "waits for shop:2, failed\nits last output:\nboom"), at(1));
        journal.failed(&[refused()], at(2));
        let reminder = journal.reminder(at(32)).unwrap();
        assert!(
            reminder.ends_with("connection refused; by the last answer, it waits for shop:2, failed"),
            "{reminder}"
        );
    }

    #[test]
    fn a_reminder_follows_whatever_was_said_last_by_30_seconds() {
        let mut journal = journal();
        journal.answered(answer("1", "runs"), at(10));
        assert_eq!(journal.reminder(at(39)), None);
        assert_eq!(journal.reminder(at(40)).as_deref(), Some("[40s] still runs"));
        assert_eq!(journal.reminder(at(69)), None);
        assert_eq!(journal.reminder(at(70)).as_deref(), Some("[1m10s] still runs"));
    }

    #[test]
    fn the_end_says_why() {
        assert_eq!(Journal::released("done", at(3661)), "[1h01m01s] released: done");
        let mut journal = journal();
        assert!(journal.gave_up(at(9)).contains("waits for Migrator default/shop, with no answer yet"));
        journal.answered(answer("1", "waits for shop:2\nmore"), at(1));
        assert_eq!(
            journal.gave_up(at(60)),
            "[1m00s] gives up, as the webhook's --waiter-timeout says: waits for shop:2"
        );
    }
}
