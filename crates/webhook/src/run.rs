//! From the start to the orderly end: watches first, then the listeners once there is something to
//! answer from.

use std::io;
use std::sync::Arc;

use kube::Client;
use migrations_process::listen::{ListenError, listen};
use migrations_process::probes::{self, Part, Readiness};
use migrations_process::shutdown::Shutdown;
use migrations_process::tls::Certificate;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::config::Config;
use crate::follow;
use crate::held::Held;
use crate::metrics::Metrics;
use crate::question::Questions;
use crate::serving::serve_both;
use crate::settings::InForce;
use crate::tokens::Tokens;
use crate::turns::Turns;
use crate::view::View;

/// Why the webhook ended otherwise than asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to hear of SIGTERM.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    /// Neither a Pod's service account nor a kubeconfig.
    #[error("cannot find out how to reach the API server")]
    Client(#[source] Box<kube::Error>),
    /// A port is taken.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS can't be configured.
    #[error("cannot serve TLS")]
    Tls(#[from] rustls::Error),
    /// A defect: watches go on for ever.
    #[error("the watches have ended by themselves")]
    WatchesEnded,
}

/// Runs the webhook until SIGTERM.
pub async fn run(config: Config) -> Result<(), RunError> {
    let asked_to_end = Shutdown::on_signal().map_err(RunError::Signals)?;
    let client = Client::try_default().await.map_err(|error| RunError::Client(Box::new(error)))?;
    run_with(config, client, asked_to_end).await
}

/// The same with a given client and end.
pub async fn run_with(config: Config, client: Client, asked_to_end: Shutdown) -> Result<(), RunError> {
    let (readiness, [certified, synced, addressed, serving]) =
        Readiness::of(["serving certificate", "list of Migrators", "address of the Service", "listeners"]);
    let probes = listen(config.probes.probe_port).await?;
    let metrics = Metrics::default();
    let probes = tokio::spawn(probes::serve(probes, readiness, Arc::new(metrics.registry())));

    let (view, certificate) = (View::default(), Certificate::default());
    let settings = InForce::new(
        &config.namespace,
        config.waiter_image.clone(),
        config.waiter_resources(),
        config.unsupported_pods.into(),
        config.waiter_timeout,
    );
    let namespace = config.namespace.as_str();
    let milestones = [certified, synced, addressed].map(Milestone::new);
    let [certified, synced, addressed] = &milestones;
    let follow_all = async {
        tokio::join!(
            follow::serving_secret(client.clone(), namespace, certificate.clone(), || certified.reached()),
            Box::pin(follow::migrators(client.clone(), view.clone(), || synced.reached())),
            follow::service(client.clone(), namespace, settings.clone(), || addressed.reached()),
        )
    };
    let serve_all = async {
        for milestone in &milestones {
            milestone.wait().await;
        }
        let admissions = listen(config.admission_port).await?;
        let questions = listen(config.question_port).await?;
        serving.set(true);
        let (trigger, end) = Shutdown::by_hand();
        let admission = Admission {
            view: view.clone(),
            settings: settings.clone(),
            turns: Turns::default(),
            metrics: metrics.clone(),
        };
        let tokens = Tokens::new(client.clone(), metrics.clone());
        let held = Held::default();
        let question = Questions { view: view.clone(), tokens, held, end: end.clone(), metrics };
        let served = serve_both(
            &certificate,
            &end,
            config.question_connections,
            (admissions, admission),
            (questions, question),
        );
        let ending = async {
            asked_to_end.requested().await;
            serving.set(false);
            // Endpoints take a moment to go; until then clients are still sent here.
            tokio::time::sleep(config.shutdown_delay()).await;
            trigger.request();
        };
        let (served, ()) = tokio::join!(served, ending);
        Ok::<_, RunError>(served?)
    };
    let before_serving = async {
        asked_to_end.requested().await;
        // Once it serves, it ends in its own time.
        if milestones.iter().all(Milestone::is_reached) {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        _ = follow_all => Err(RunError::WatchesEnded),
        served = serve_all => served,
        () = before_serving => Ok(()),
    };
    probes.abort();
    result
}

/// Something that has to be there before anything is served.
struct Milestone {
    part: Part,
    reached: watch::Sender<bool>,
}

impl Milestone {
    fn new(part: Part) -> Self {
        Self { part, reached: watch::Sender::new(false) }
    }

    fn reached(&self) {
        self.part.set(true);
        self.reached.send_replace(true);
    }

    fn is_reached(&self) -> bool {
        *self.reached.borrow()
    }

    async fn wait(&self) {
        // The sender is ours: it can't be gone.
        let _ = self.reached.subscribe().wait_for(|reached| *reached).await;
    }
}
