//! The controller ends in the middle of each step of a run, and another one goes on.

use migrations_api::names;
use migrations_testkit::cluster::ControlPlane;

use super::shop::{Shop, configuration_versions, until_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_survives_a_restart_at_every_step_and_happens_once() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;

    // Stopped as soon as the claim shows: its Job may or may not be there yet.
    shop.deploy("shop:v1").await;
    shop.until_status("a claim", |status| status.current.is_some()).await;
    controller.stop().await;

    // Stopped as soon as the bind shows: its Job may or may not be started yet.
    let controller = shop.controller();
    let bound = |status: &migrations_api::MigratorStatus| {
        status.current.as_ref().is_some_and(|run| run.job_uid.is_some())
    };
    shop.until_status("a bound Job", bound).await;
    controller.stop().await;

    // Stopped while the migration runs, which ends unseen.
    let controller = shop.controller();
    let run = shop.run_starts("shop:v1").await;
    controller.stop().await;
    shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;

    let controller = shop.controller();
    let status = shop.until_done("shop:v1").await;
    assert_eq!(status.history.len(), 1);
    assert_eq!(shop.runs().await, 1, "Pods of runs");
    controller.stop().await;
}

/// Not even for a moment: Pods that come in it would start unmigrated.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_leaves_the_entries_in_place() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    controller.stop().await;
    let before = configuration_versions(plane.client()).await;
    for _ in 0..5 {
        let controller = shop.controller();
        until_ready(&controller.readiness).await;
        controller.stop().await;
    }
    assert_eq!(configuration_versions(plane.client()).await, before);
}

/// Leader election only saves work: even two controllers that both lead run nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_at_once_run_a_migration_once() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controllers = [shop.leading_controller(), shop.leading_controller()];
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    for image in ["shop:v1", "shop:v2", "shop:v3"] {
        if image == "shop:v1" {
            shop.deploy(image).await;
        } else {
            shop.set_image(image).await;
        }
        let run = shop.run_starts(image).await;
        shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;
        shop.until_done(image).await;
    }
    let status = shop.until_reason("UpToDate").await;
    let ran: Vec<_> = status.history.iter().rev().map(|it| it.image.as_str()).collect();
    assert_eq!(ran, ["shop:v1", "shop:v2", "shop:v3"]);
    for controller in controllers {
        controller.stop().await;
    }
}
