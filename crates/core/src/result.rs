//! How a run ended, read from its container (contract §5).

use jiff::Timestamp;
use migrations_api::{RunResult, names};

use crate::snapshot::{ContainerFacts, ContainerState, JobFacts, JobOutcome, PodFacts, Termination};

/// Longest output kept in the status, in bytes: what the kubelet keeps of a termination message.
const LONGEST_MESSAGE: usize = 4096;

/// How much of a log the kubelet takes for a termination message, in bytes, from the middle of a line
/// where the log is longer; a little less, since the line end is trimmed.
const LOG_TAIL: usize = 2000;

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub result: RunResult,
    /// Its last output, or why there is none.
    pub message: String,
    /// When its container started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

/// Where a run is that has been let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It ended.
    Ended(Ended),
    /// Its container runs.
    Running,
    /// Its container has not started; why not, where somebody said so.
    NotStarted(String),
}

/// Reads a run's progress from its Job, where that still exists, and its Pods. The container's exit
/// code counts; the Job's condition can prove success only. Its output may have to be kept back.
pub fn progress(job: Option<&JobFacts>, pods: &[&PodFacts], hide_output: bool) -> Progress {
    let containers = || pods.iter().filter_map(|pod| pod.key_container(Some(names::RUN_CONTAINER)));
    let ends: Vec<_> = containers().filter_map(termination).collect();
    if let Some(end) = ends.iter().find(|end| end.exit_code == 0).or(ends.first()) {
        return Progress::Ended(ended(end, None, hide_output));
    }
    if pods.iter().any(|pod| runs(pod)) {
        return Progress::Running;
    }
    match job.map(|job| &job.outcome) {
        Some(None) => return Progress::NotStarted(why_not_started(pods)),
        Some(Some(JobOutcome::Complete)) => return Progress::Ended(unseen(RunResult::Succeeded, "")),
        Some(Some(JobOutcome::Failed(_))) | None => {}
    }
    // The Job failed or is gone, and nobody saw the container end.
    if job.is_none() && pods.iter().any(|pod| pod.unfinished()) {
        return Progress::NotStarted(why_not_started(pods));
    }
    let failed_init = pods.iter().flat_map(|pod| &pod.init_containers).find_map(|container| {
        termination(container).filter(|end| end.exit_code != 0).map(|end| (container, end))
    });
    if let Some((container, end)) = failed_init {
        return Progress::Ended(ended(end, Some(&container.name), hide_output));
    }
    let said = match job.and_then(|job| job.outcome.as_ref()) {
        Some(JobOutcome::Failed(message)) => message.as_str(),
        _ => "its Job was deleted",
    };
    if let Some(reason) = pods.iter().find_map(|pod| pod.unschedulable.as_ref()) {
        return Progress::Ended(unseen(RunResult::Failed, &format!("never scheduled: {reason}; {said}")));
    }
    Progress::Ended(unseen(
        RunResult::Unknown,
        &format!("nobody saw the migration end, so it may have done its work or a part of it: {said}"),
    ))
}

/// Whether the migration is at work there. Of a Pod that was declared finished because its node is gone,
/// the last word of that node stays: its containers seem to run for ever.
fn runs(pod: &PodFacts) -> bool {
    let container = pod.key_container(Some(names::RUN_CONTAINER));
    pod.unfinished() && container.is_some_and(|it| matches!(it.state, ContainerState::Running(_)))
}

fn termination(container: &ContainerFacts) -> Option<&Termination> {
    match &container.state {
        ContainerState::Terminated(end) => Some(end),
        _ => None,
    }
}

fn ended(end: &Termination, init_container: Option<&str>, hide_output: bool) -> Ended {
    let result = if end.exit_code == 0 { RunResult::Succeeded } else { RunResult::Failed };
    let output = last_bytes(end.message.trim_end(), LONGEST_MESSAGE);
    let output = if output.len() < LOG_TAIL { output } else { whole_lines(output) };
    let output = if hide_output { "" } else { output };
    let message = match (result, init_container) {
        (RunResult::Succeeded, _) => String::new(),
        (_, Some(name)) => told(&format!("init container {name} exited with {}", end.exit_code), output),
        (_, None) => told(&format!("exit code {}", end.exit_code), output),
    };
    Ended { result, message, started: end.started, finished: end.finished }
}

/// An end and its output. The line that says most comes first: lists show the first line alone.
fn told(end: &str, output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match (headline(&lines), lines.len()) {
        (None, _) => end.to_owned(),
        (Some(only), 1) => format!("{end}: {only}"),
        (Some(headline), _) => format!("{end}: {headline}\n{output}"),
    }
}

/// The last line that speaks of an error, else the last: programs often say more after it.
fn headline<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let speaks = |line: &&&str| {
        let line = line.to_ascii_lowercase();
        ["error", "exception", "fatal", "panic"].iter().any(|word| line.contains(word))
    };
    lines.iter().rfind(speaks).or(lines.last()).copied()
}

fn unseen(result: RunResult, message: &str) -> Ended {
    Ended { result, message: message.to_owned(), started: None, finished: None }
}

/// Why a run's container has not started, in the words of the scheduler or the kubelet.
fn why_not_started(pods: &[&PodFacts]) -> String {
    let said = |pod: &&PodFacts| {
        if let Some(reason) = &pod.unschedulable {
            return Some(format!("Pod {} is not scheduled: {reason}", pod.name));
        }
        pod.init_containers.iter().chain(&pod.containers).find_map(|container| {
            match &container.state {
                // The kubelet's words for "all is well, wait".
                ContainerState::Waiting(reason)
                    if !matches!(reason.as_str(), "" | "PodInitializing" | "ContainerCreating") =>
                {
                    Some(format!("container {} of Pod {} waits: {reason}", container.name, pod.name))
                }
                _ => None,
            }
        })
    };
    pods.iter().find_map(said).unwrap_or_default()
}

/// The end of a text, at most `limit` bytes: an exception's last lines say most. Cut between lines
/// where there are several, else between characters.
pub fn last_bytes(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let start = text.len() - limit;
    let start = (start..=text.len()).find(|index| text.is_char_boundary(*index)).unwrap_or(text.len());
    whole_lines(text.get(start..).unwrap_or_default())
}

/// A text without its first line, which is half of one; all of it where there is no other.
fn whole_lines(text: &str) -> &str {
    text.split_once('\n').map(|(_, rest)| rest).filter(|rest| !rest.is_empty()).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    proptest! {
        #[test]
        fn a_cut_text_is_an_end_of_it_within_the_limit(text in "(\\PC|\n)*", limit in 0usize..40) {
            let cut = last_bytes(&text, limit);
            prop_assert!(cut.len() <= limit && text.ends_with(cut));
            prop_assert!(text.len() > limit || cut == text);
        }
    }

    /// Its container runs, by the last word of its node.
    fn pod(phase: &str) -> PodFacts {
        let container = ContainerFacts {
            name: names::RUN_CONTAINER.to_owned(),
            image: "shop:v1".to_owned(),
            state: ContainerState::Running(None),
        };
        PodFacts { phase: phase.to_owned(), containers: vec![container], ..PodFacts::default() }
    }

    #[rstest]
    #[case::at_work("Running", true)]
    #[case::node_out_of_reach("Unknown", true)]
    #[case::lost_with_its_node("Failed", false)]
    fn a_container_runs_as_long_as_its_pod_is_unfinished(#[case] phase: &str, #[case] at_work: bool) {
        let progress = progress(None, &[&pod(phase)], false);
        assert_eq!(progress == Progress::Running, at_work, "{progress:?}");
        let unknown = matches!(&progress, Progress::Ended(it) if it.result == RunResult::Unknown);
        assert_eq!(unknown, !at_work, "{progress:?}");
    }

    #[rstest]
    #[case::silent("", "exit code 1")]
    #[case::one_line("no such table", "exit code 1: no such table")]
    #[case::the_last_line("first\nlast\n", "exit code 1: last\nfirst\nlast\n")]
    #[case::the_error_before_it(
        "Traceback\nValueError: no\n  Applying 0002...",
        "exit code 1: ValueError: no\nTraceback\nValueError: no\n  Applying 0002..."
    )]
    fn the_first_line_says_most(#[case] output: &str, #[case] expected: &str) {
        assert_eq!(told("exit code 1", output), expected);
    }

    #[rstest]
    #[case::fits("one\ntwo", 20, "one\ntwo")]
    #[case::between_lines("one\ntwo\nthree", 11, "two\nthree")]
    #[case::one_long_line("abcdef", 3, "def")]
    #[case::between_characters("aä", 1, "")]
    fn a_text_is_cut_where_it_reads_best(#[case] text: &str, #[case] limit: usize, #[case] expected: &str) {
        assert_eq!(last_bytes(text, limit), expected);
    }
}
