//! What stands between the webhook and the API server, so that a test can take it away.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Road {
    /// They lead to the API server.
    Open,
    /// They are closed.
    Closed,
    /// They are taken, and nothing comes back.
    Silent,
}

/// A relay on loopback.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    road: watch::Sender<Road>,
}

impl Proxy {
    /// One that leads to `port` on loopback.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let road = watch::Sender::new(Road::Open);
        let changes = road.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(relay(stream, port, changes.clone()));
            }
        });
        Self { port: own, road }
    }

    /// From now on; also for connections that are there.
    pub(crate) fn set(&self, road: Road) {
        self.road.send_replace(road);
    }
}

/// Until the road is another one.
async fn relay(mut stream: TcpStream, port: u16, mut road: watch::Receiver<Road>) {
    let now = *road.borrow_and_update();
    let served = async {
        match now {
            Road::Open => {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                // An error is either side's leaving.
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            }
            Road::Closed => {}
            Road::Silent => std::future::pending().await,
        }
    };
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => return,
        _ = road.changed() => {}
    }
    if *road.borrow_and_update() == Road::Silent {
        // Both ends stay open, and hear nothing.
        let _ = road.changed().await;
    }
}
