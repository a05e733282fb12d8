//! The control plane that most tests share, and its controller, which has no more than the shipped
//! rights. Tests keep apart by namespaces.
//!
//! The webhook's configurations are not shipped here: without a webhook they would refuse every Pod that
//! has to wait. So `GatePending` is what a Migrator with nothing to do says, and runs happen all the same.

use std::collections::BTreeSet;
use std::thread;

use migrations_api::names::OPERATOR_NAMESPACE;
use migrations_core::snapshot::Policy;
use migrations_testkit::cluster::ControlPlane;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::shop::Controller;
use super::{admission, kinds};

/// A lock that holds for all namespaces.
pub(crate) const SHARED_LOCK: &str = "everywhere";

/// The controller's service account in the manifests.
const CONTROLLER: &str = "migrations-controller";

/// The control plane, in which a controller runs.
pub(crate) async fn plane() -> &'static ControlPlane {
    static STARTED: OnceCell<&'static ControlPlane> = OnceCell::const_new();
    STARTED.get_or_init(start).await
}

async fn start() -> &'static ControlPlane {
    let plane = ControlPlane::shared().await;
    plane.install_account(CONTROLLER).await;
    kinds::install(plane.client(), CONTROLLER).await;
    admission::install(plane.client(), &plane.namespace().await).await;
    // On a thread of its own: the runtime of a test ends with it.
    thread::spawn(move || {
        let policy = Policy { shared_locks: BTreeSet::from([SHARED_LOCK.to_owned()]), ..Policy::default() };
        Runtime::new().expect("a runtime").block_on(async {
            let client = plane.client_as(OPERATOR_NAMESPACE, CONTROLLER);
            Controller::start(client, OPERATOR_NAMESPACE, policy).go_on().await;
        });
    });
    plane
}
