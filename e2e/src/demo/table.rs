//! The table at the end of the demo: how long each step took, and what it cost.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::shop::Requests;
use super::state::Ended;

/// One step of the story, for the table.
#[derive(Debug)]
pub(super) struct Row {
    /// What was done.
    pub(super) step: String,
    /// When it was done.
    pub(super) changed: Timestamp,
    /// The migration that it caused.
    pub(super) migration: Option<Ended>,
    /// When the last Pod was ready, where it came to that.
    pub(super) ready: Option<Timestamp>,
    /// What the client counted meanwhile, where it was there.
    pub(super) requests: Option<Requests>,
}

const HEAD: [&str; 6] =
    ["step", "migration starts after", "takes", "last Pod ready after that", "in all", "requests failed"];

/// The rows under a head, in columns.
pub(super) fn print(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    for line in lines {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(text, "{cell:width$}  ");
        }
        let _ = writeln!(table, "  {}", text.trim_end());
    }
    table
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    let Row { step, changed, migration, ready, requests } = row;
    let none = || "-".to_owned();
    let (starts, takes) = match migration {
        None => ("no migration".to_owned(), none()),
        Some(run) => {
            let failed = if run.succeeded() { "" } else { ", fails" };
            (between(*changed, run.started), format!("{}{failed}", between(run.started, run.finished)))
        }
    };
    let since = migration.as_ref().map_or(*changed, |run| run.finished);
    [
        step.clone(),
        starts,
        takes,
        ready.map_or_else(none, |ready| between(since, ready)),
        ready.map_or_else(none, |ready| between(*changed, ready)),
        requests.map_or_else(none, |requests| format!("{} of {}", requests.failed, requests.sent)),
    ]
}

/// Kubernetes rounds the times of containers down to seconds, so a start may seem to come before its cause.
fn between(from: Timestamp, to: Timestamp) -> String {
    format!("{:.1} s", to.duration_since(from).as_secs_f64().max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn columns_line_up_and_nothing_is_negative() {
        let migration = Ended {
            image: "app:v2".to_owned(),
            job: "shop-1".to_owned(),
            started: at(9),
            finished: at(13),
            result: "Failed".to_owned(),
            message: String::new(),
        };
        let failing = Row {
            step: "v3".into(),
            changed: at(10),
            migration: Some(migration),
            ready: None,
            requests: None,
        };
        let requests = Some(Requests { sent: 80, failed: 0 });
        let back =
            Row { step: "back".into(), changed: at(20), migration: None, ready: Some(at(23)), requests };
        let table = print(&[failing, back]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0].find("takes"), lines[1].find("4.0 s, fails"));
        assert!(lines[1].contains(" 0.0 s "), "{}", lines[1]);
        assert!(lines[2].ends_with("3.0 s   0 of 80"), "{}", lines[2]);
    }
}
