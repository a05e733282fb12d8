//! What linters don't know of the workflows: who may publish, and when.

use std::fs;

use serde_yaml_ng::Value;

use crate::script::workspace;

fn text(name: &str) -> String {
    fs::read_to_string(workspace().join(".github/workflows").join(name).with_extension("yaml")).unwrap()
}

fn workflow(name: &str) -> Value {
    serde_yaml_ng::from_str(&text(name)).unwrap()
}

/// The jobs that may write anything, or are given a secret.
fn trusted(workflow: &Value) -> Vec<&str> {
    let trusted = |job: &Value| {
        let text = serde_yaml_ng::to_string(job).unwrap();
        text.contains(": write") || text.contains("secrets.") || text.contains("github.token")
    };
    let jobs = workflow["jobs"].as_mapping().unwrap().iter();
    jobs.filter(|(_, job)| trusted(job)).map(|(name, _)| name.as_str().unwrap()).collect()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_sequence().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn pull_requests_are_checked_on_both_architectures_and_know_no_secret() {
    let ci = workflow("ci");
    assert!(ci["on"].as_mapping().unwrap().contains_key("pull_request"));
    let include = ci["jobs"]["check"]["strategy"]["matrix"]["include"].as_sequence().unwrap();
    let architectures: Vec<_> = include.iter().map(|one| one["architecture"].as_str().unwrap()).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    for job in ["check", "e2e"] {
        assert!(ci["jobs"][job]["if"].is_null(), "{job}");
    }
    assert_eq!(trusted(&ci), ["publish"]);
}

#[test]
fn images_are_published_from_the_default_branch_once_everything_passed() {
    let ci = workflow("ci");
    let publish = &ci["jobs"]["publish"];
    assert_eq!(
        publish["if"],
        "github.event_name == 'push' && github.ref == format('refs/heads/{0}', github.event.repository.default_branch)"
    );
    assert_eq!(names(&publish["needs"]), ["check", "e2e"]);
}

/// Each may have what it is there for.
#[test]
fn a_release_is_made_of_a_version_tag_alone() {
    let release = workflow("release");
    assert_eq!(serde_yaml_ng::to_string(&release["on"]).unwrap(), "push:\n  tags:\n  - v*\n");
    assert_eq!(trusted(&release), ["promote", "release"]);
    let writes = |job: &str| {
        let permissions = release["jobs"][job]["permissions"].as_mapping().unwrap();
        let writes = permissions.iter().filter(|(_, right)| *right == "write");
        writes.map(|(name, _)| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(writes("promote"), ["packages"]);
    assert_eq!(writes("release"), ["contents"]);
    assert_eq!(release["jobs"]["release"]["needs"], "promote");
}

/// Without, GitHub runs a shell that doesn't notice.
#[test]
fn a_pipe_fails_where_its_first_command_does() {
    for name in ["ci", "release"] {
        assert_eq!(workflow(name)["defaults"]["run"]["shell"], "bash", "{name}");
    }
}
