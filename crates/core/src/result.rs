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
/// code counts, where somebody saw it; the Job's condition can prove success only. Its output may have to
/// be kept back.
pub fn progress(job: Option<&JobFacts>, pods: &[&PodFacts], hide_output: bool) -> Progress {
    let containers = || pods.iter().filter_map(|pod| pod.key_container(Some(names::RUN_CONTAINER)));
    let ends: Vec<_> = containers().filter_map(termination).collect();
    if let Some(end) = ends.iter().find(|end| end.exit_code == 0).or(ends.first()) {
        return Progress::Ended(ended(end, None, hide_output));
    }
    if pods.iter().any(|pod| runs(pod)) {
        return Progress::Running;
    }
    let lost = containers().any(|it| matches!(it.state, ContainerState::Lost { started: true }));
    match job.map(|job| &job.outcome) {
        Some(None) if !lost => return Progress::NotStarted(why_not_started(pods)),
        Some(Some(JobOutcome::Complete)) => return Progress::Ended(unseen(RunResult::Succeeded, "")),
        Some(Some(JobOutcome::Failed(_)) | None) | None => {}
    }
    // Nobody saw the container end, and it was lost, or the Job failed or is gone.
    if job.is_none() && !lost && pods.iter().any(|pod| pod.unfinished()) {
        return Progress::NotStarted(why_not_started(pods));
    }
    // A sidecar is ended with its Pod, whatever became of the migration.
    let init = pods.iter().flat_map(|pod| &pod.init_containers).filter(|container| !container.sidecar);
    let mut failed_init = init.filter_map(|it| Some((it, termination(it).filter(|end| end.exit_code != 0)?)));
    if let Some((container, end)) = failed_init.next() {
        return Progress::Ended(ended(end, Some(&container.name), hide_output));
    }
    let said = match job.map(|job| &job.outcome) {
        Some(Some(JobOutcome::Failed(message))) => message.as_str(),
        Some(_) => "its node lost sight of it",
        None => "its Job was deleted",
    };
    if let Some(reason) = pods.iter().find_map(|pod| pod.unschedulable.as_ref()) {
        return Progress::Ended(unseen(RunResult::Failed, &format!("never scheduled: {reason}; {said}")));
    }
    // The last word of a kubelet at work, unlike that of one whose node is gone.
    let mut states = containers().map(|container| &container.state).peekable();
    if states.peek().is_some() && states.all(|it| matches!(it, ContainerState::Lost { started: false })) {
        return Progress::Ended(unseen(RunResult::Failed, &format!("its container never started: {said}")));
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
        (_, Some(name)) => {
            told(&format!("{}init container {name} exited with {}", reason(end), end.exit_code), output)
        }
        (_, None) => told(&format!("{}exit code {}", reason(end), end.exit_code), output),
    };
    Ended { result, message, started: end.started, finished: end.finished }
}

/// The kubelet's word for an end, where that says more than the exit code, such as `OOMKilled`.
fn reason(end: &Termination) -> String {
    match end.reason.as_str() {
        "" | "Error" | "Completed" => String::new(),
        reason => format!("{reason}, "),
    }
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
            sidecar: false,
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

    fn terminated(exit_code: i32, reason: &str, message: &str) -> ContainerState {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        ContainerState::Terminated(Termination { exit_code, reason, started: None, finished: None, message })
    }

    /// Its container is in that state, and it has an init container that ended.
    fn ended_pod(phase: &str, state: ContainerState, init: Option<(bool, i32)>) -> PodFacts {
        let mut pod = pod(phase);
        pod.containers[0].state = state;
        pod.init_containers = init.map_or_else(Vec::new, |(sidecar, exit_code)| {
            let state = terminated(exit_code, "Error", "");
            vec![ContainerFacts { name: "proxy".to_owned(), image: String::new(), sidecar, state }]
        });
        pod
    }

    const RAN: ContainerState = ContainerState::Lost { started: true };
    const NEVER_RAN: ContainerState = ContainerState::Lost { started: false };

    #[rstest]
    #[case::it_ran("Failed", RAN, None, RunResult::Unknown, "nobody saw the migration end")]
    #[case::it_ran_beside_a_sidecar("Failed", RAN, Some((true, 143)), RunResult::Unknown, "nobody saw")]
    #[case::and_the_sidecar_goes_on("Running", RAN, None, RunResult::Unknown, "nobody saw")]
    #[case::it_never_ran("Failed", NEVER_RAN, None, RunResult::Failed, "its container never started: ")]
    #[case::nobody_knows("Failed", ContainerState::Waiting(String::new()), Some((true, 137)), RunResult::Unknown, "nobody")]
    #[case::an_init_container_failed("Failed", NEVER_RAN, Some((false, 3)), RunResult::Failed, "init container proxy exited with 3")]
    #[case::killed("Failed", terminated(137, "Error", ""), None, RunResult::Failed, "exit code 137")]
    fn an_end_that_nobody_saw_is_unknown_unless_it_never_started(
        #[case] phase: &str,
        #[case] state: ContainerState,
        #[case] init: Option<(bool, i32)>,
        #[case] result: RunResult,
        #[case] message: &str,
    ) {
        let Progress::Ended(ended) = progress(None, &[&ended_pod(phase, state, init)], false) else {
            panic!("it has not ended")
        };
        assert_eq!(ended.result, result, "{}", ended.message);
        assert!(ended.message.starts_with(message), "{}", ended.message);
    }

    #[rstest]
    #[case::out_of_memory("OOMKilled", "loading", "OOMKilled, exit code 137: loading")]
    #[case::no_output("OOMKilled", "", "OOMKilled, exit code 137")]
    #[case::nothing_more_to_say("Error", "Killed", "exit code 137: Killed")]
    fn a_failure_says_first_what_the_kubelet_calls_it(
        #[case] reason: &str,
        #[case] output: &str,
        #[case] expected: &str,
    ) {
        let pod = ended_pod("Failed", terminated(137, reason, output), None);
        let Progress::Ended(ended) = progress(None, &[&pod], false) else { panic!("it has not ended") };
        assert_eq!(ended.message, expected);
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
