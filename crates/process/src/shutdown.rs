//! The request to end, as anything in the program can await it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Knows whether the program has been asked to end. Clones speak of the same request.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Asks the program to end; for tests and for programs that end by themselves.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Shutdown {
    /// A request that comes with SIGTERM or SIGINT.
    pub fn on_signal() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (trigger, shutdown) = Self::by_hand();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("asked to end by SIGTERM"),
                _ = interrupt.recv() => tracing::info!("asked to end by SIGINT"),
            }
            trigger.request();
        });
        Ok(shutdown)
    }

    /// A request that comes with [`Trigger::request`].
    pub fn by_hand() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// Returns once the program has been asked to end.
    pub async fn requested(&self) {
        // An error means that the trigger is gone without a request: nothing will ever ask.
        if self.0.clone().wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the program has been asked to end.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

impl Trigger {
    /// Asks the program to end.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_of_the_request_also_afterwards() {
        let (trigger, shutdown) = Shutdown::by_hand();
        let earlier = shutdown.clone();
        trigger.request();
        earlier.requested().await;
        shutdown.clone().requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_is_not_a_request() {
        let (trigger, shutdown) = Shutdown::by_hand();
        drop(trigger);
        tokio::select! {
            biased;
            () = shutdown.requested() => panic!("nobody asked"),
            () = tokio::task::yield_now() => assert!(!shutdown.is_requested()),
        }
    }
}
