//! `cargo demo`: a Django application through a first install, a rollout under load, a rollback, a migration that fails
//! halfway and its repair. Tells what happens as it happens and ends with a table of times.

mod follow;
mod shop;
mod state;
mod table;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;

use self::follow::Follow;
use self::shop::{MIGRATOR, Requests, Shop};
use self::state::State;
use self::table::Row;
use crate::environment::Environment;
use crate::progress::step;
use crate::{command, interrupt};

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";
const V3: &str = "migrations-app:v3";
const V4: &str = "migrations-app:v4";
/// The row that v3's migration stumbles over.
const CULPRIT: &str = "order 2718";
const SEEN_WITHIN: Duration = Duration::from_mins(1);

/// Tells the story; leaves the application up afterwards if asked to.
pub(crate) fn run(environment: &Environment, keep: bool) -> Result<()> {
    let shop = Shop::new(environment);
    // One may be left from a run that was to keep it.
    shop.remove()?;
    let told = tell(shop);
    if told.is_err() {
        explain(shop);
    }
    if keep {
        println!("\nThe cluster and the shop stay up. To look around:");
        println!("    export KUBECONFIG={}", environment.cluster().kubeconfig().display());
        println!("    kubectl --namespace shop get migrators,deployments,pods,jobs");
        println!("    cargo e2e down    # takes everything down");
        return told;
    }
    told.and(shop.remove())
}

fn tell(shop: Shop<'_>) -> Result<()> {
    let mut rows = vec![first_install(shop)?];
    step("starting a client that sends 20 requests a second", || shop.start_client())?;
    for scene in [rollout, rollback, failure, repair] {
        let before = shop.requests()?;
        let mut row = scene(shop)?;
        let requests = settled(shop, before)?;
        println!("  {} requests meanwhile, {} failed", requests.sent, requests.failed);
        ensure!(requests.failed == 0, "requests failed:\n{}", shop.failures()?);
        row.requests = Some(requests);
        rows.push(row);
    }
    println!("\nThe shop answers: {}\n", shop.answer()?);
    println!("{}", table::print(&rows));
    println!("  Times of migrations are whole seconds, as Kubernetes gives them.");
    Ok(())
}

fn first_install(shop: Shop<'_>) -> Result<Row> {
    scene(
        "v1 is installed, everything at once: database, web, worker, Migrator.",
        "Pods wait for one migration.",
    );
    let mut follow = Follow::change(shop, V1, || shop.deploy())?;
    let ready = follow.until_rolled_out()?;
    migrated("first install of v1", &follow, Some(ready))
}

fn rollout(shop: Shop<'_>) -> Result<Row> {
    scene("v2 is rolled out: new tables, and seconds of data migration.", "v1 serves until v2 can.");
    let mut follow = Follow::change(shop, V2, || shop.set_image(V2))?;
    let ready = follow.until_rolled_out()?;
    migrated("rollout of v2", &follow, Some(ready))
}

fn rollback(shop: Shop<'_>) -> Result<Row> {
    scene("Back to v1.", "Its migrations are done: nothing runs, and its Pods start at once.");
    let mut follow = Follow::change(shop, V1, || shop.set_image(V1))?;
    let ready = follow.until_rolled_out()?;
    ensure!(follow.migration().is_none(), "a rollback ran a migration");
    Ok(row("rollback to v1", &follow, Some(ready)))
}

fn failure(shop: Shop<'_>) -> Result<Row> {
    scene(
        "v3 is rolled out, and its migration fails halfway.",
        "v1 goes on, and everyone can see why v3 doesn't.",
    );
    let mut follow = Follow::change(shop, V3, || shop.set_image(V3))?;
    let failed = |state: &State| state.ended.first().is_some_and(|run| run.image == V3);
    follow.until("the migration of v3 to fail", failed)?;
    let Some(run) = follow.migration().filter(|run| !run.succeeded()) else {
        bail!("the migration of v3 was to fail");
    };
    show("The Migrator's history", &run.message);
    let condition = seen("the condition of the Migrator", || {
        let conditions = shop.state()?.conditions;
        let ready = conditions.into_iter().find(|condition| condition.kind == "Ready");
        Ok(ready.map(|it| format!("Ready is {}, {}: {}", it.status, it.reason, it.message)))
    })?;
    show("Its condition (kubectl describe migrator shop)", &condition);
    let event = seen("an event", || Ok(shop.warnings()?.into_iter().find(|event| event.contains(CULPRIT))))?;
    show("Its event (kubectl get events)", &event);
    let log = seen("the log of a waiter", || match shop.state()?.waiting_pod(V3) {
        Some(pod) => shop.waiter_log(pod, 40).map(Some),
        None => Ok(None),
    })?;
    show(&format!("What a waiting Pod says (kubectl logs POD -c migrate-wait-{MIGRATOR})"), &log);
    restart_an_old_pod(shop, &mut follow)?;
    Ok(row("rollout of v3", &follow, None))
}

fn restart_an_old_pod(shop: Shop<'_>, follow: &mut Follow<'_>) -> Result<()> {
    let state = shop.state()?;
    let wanted = state.serving(V1).count();
    let name = state.serving(V1).next().context("no web Pod of v1 serves")?.name.clone();
    let deleted = Timestamp::now();
    follow.line(deleted, &format!("a web Pod of v1 is deleted: {name}"));
    command::run(&mut shop.kubectl(&["delete", "pod", &name, "--wait=false"]))?;
    let replaced = |state: &State| {
        let others = state.serving(V1).filter(|pod| pod.name != name);
        others.count() >= wanted
    };
    let back = follow.until("another web Pod of v1", replaced)?;
    let took = back.duration_since(deleted).as_secs_f64();
    follow.line(back, &format!("{took:.1} s later another one serves in its place"));
    Ok(())
}

fn repair(shop: Shop<'_>) -> Result<Row> {
    scene("v4 repairs the migration and is rolled out.", "It goes on where v3 stopped.");
    let mut follow = Follow::change(shop, V4, || shop.set_image(V4))?;
    let ready = follow.until_rolled_out()?;
    migrated("rollout of v4", &follow, Some(ready))
}

fn scene(what: &str, why: &str) {
    println!("\n{what}\n{why}");
}

fn row(step: &str, follow: &Follow<'_>, ready: Option<Timestamp>) -> Row {
    Row {
        step: step.to_owned(),
        changed: follow.changed(),
        migration: follow.migration(),
        ready,
        requests: None,
    }
}

/// A row of a step that ran a migration which succeeded.
fn migrated(step: &str, follow: &Follow<'_>, ready: Option<Timestamp>) -> Result<Row> {
    let succeeded = follow.migration().is_some_and(|run| run.succeeded());
    ensure!(succeeded, "{step}: Pods are ready, but no migration is on record that succeeded");
    Ok(row(step, follow, ready))
}

/// Asks until the answer names the culprit.
fn seen(place: &str, ask: impl Fn() -> Result<Option<String>>) -> Result<String> {
    let asked = Instant::now();
    step(format!("looking for the reason in {place}"), || {
        loop {
            let answer = ask()?.unwrap_or_default();
            if answer.contains(CULPRIT) {
                return Ok(answer);
            }
            ensure!(!interrupt::raised(), "interrupted");
            ensure!(
                asked.elapsed() < SEEN_WITHIN,
                "{place} doesn't say that it is about {CULPRIT}: {answer:?}"
            );
            thread::sleep(Duration::from_millis(500));
        }
    })
}

/// What a text says about the culprit, and how much more it says.
fn show(title: &str, text: &str) {
    println!("  {title}:");
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let about = lines.iter().position(|line| line.contains(CULPRIT)).unwrap_or_default();
    for line in lines.iter().skip(about).take(1) {
        println!("      {line}");
    }
    if lines.len() > 1 {
        println!("      ... and {} more lines", lines.len() - 1);
    }
}

/// What the client counted since `before`, once it has counted what is under way.
fn settled(shop: Shop<'_>, before: Requests) -> Result<Requests> {
    thread::sleep(Duration::from_secs(2));
    let Requests { sent, failed } = shop.requests()?;
    Ok(Requests { sent: sent - before.sent, failed: failed - before.failed })
}

/// What to look at after something went wrong, with what it says now.
fn explain(shop: Shop<'_>) {
    let questions: [&[&str]; 5] = [
        &["get", "migrators,deployments,jobs,pods", "--output", "wide"],
        &["describe", "migrator", MIGRATOR],
        &["get", "events", "--sort-by", ".lastTimestamp"],
        &["logs", "--selector", "migrations", "--all-containers", "--tail=20"],
        &[
            "--namespace",
            "migrations-operator",
            "logs",
            "--selector",
            "app.kubernetes.io/part-of",
            "--tail=20",
        ],
    ];
    println!("\nThat went wrong. What to look at, and what it says now:");
    for question in questions {
        let quoted = question.join(" ");
        println!("\n$ kubectl --namespace shop {quoted}");
        let answer = command::output_to_end(&mut shop.kubectl(question));
        println!("{}", answer.unwrap_or_else(|error| format!("{error:#}")));
    }
    println!();
}
