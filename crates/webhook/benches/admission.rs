//! What admission and held questions cost the webhook, measured on a process of its own:
//!
//! ```sh
//! cargo bench --profile webhook -p migrations-webhook --bench admission \
//!     --target x86_64-unknown-linux-musl [-- admissions | crowd | questions]
//! ```
//!
//! It serves the real listeners over TLS on loopback, in a second process, and prints a table of
//! each part. docs/performance.md says what it gave.
#![allow(clippy::unwrap_used, reason = "a measurement ends with a panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

#[path = "admission/client.rs"]
mod client;
#[path = "admission/load.rs"]
mod load;
#[path = "admission/objects.rs"]
mod objects;
#[path = "admission/questions.rs"]
mod questions;
#[path = "admission/server.rs"]
mod server;

use load::{Load, Protocol};
use server::Server;

/// Connections that ask nothing, beside which admission is measured.
const CROWD: usize = 10_000;

/// Questions held at a time.
const HELD: usize = 3_000;

fn main() {
    if std::env::args().any(|argument| argument == server::ROLE) {
        return server::serve();
    }
    migrations_process::open_files::allow_as_many_as_possible();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let parts: Vec<_> = std::env::args().collect();
    let asked_for = |part: &str| {
        let named = |part| parts.iter().any(|argument| argument == part);
        named(part) || !["admissions", "crowd", "questions"].into_iter().any(named)
    };
    if asked_for("admissions") {
        runtime.block_on(admissions());
    }
    if asked_for("crowd") {
        runtime.block_on(crowd());
    }
    if asked_for("questions") {
        runtime.block_on(held_questions());
    }
}

/// Reviews of a Pod of which all waiters are still to be injected.
async fn admissions() {
    println!("\nA review has {} bytes.\n", objects::review().len());
    println!(
        "| Migrators | matching | namespaces | protocol | connections | each | p50 | p99 | requests/s | CPU each | RSS |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let http_2 = |connections, streams| Load { protocol: Protocol::Http2, connections, streams };
    let row = [http_2(1, 1), http_2(1, 16), http_2(16, 1)];
    for (migrators, matching, namespaces) in
        [(1, 1, 1), (100, 1, 1), (100, 5, 1), (1000, 1, 1), (1000, 5, 1), (1000, 1, 1000)]
    {
        let mut server = Server::start(1);
        server.fill(migrators, matching, namespaces);
        for load in row {
            measure(&format!("{migrators} | {matching} | {namespaces}"), &server, load).await;
        }
        if migrators == 1 {
            let http_1 = Load { protocol: Protocol::Http1, connections: 16, streams: 1 };
            measure(&format!("{migrators} | {matching} | {namespaces}"), &server, http_1).await;
        }
    }
}

async fn measure(what: &str, server: &Server, load: Load) {
    let measured = load.run(server).await;
    let Load { protocol, connections, streams } = load;
    println!(
        "| {what} | {protocol} | {connections} | {streams} | {:.2} ms | {:.2} ms | {:.0} | {:.0} us | {:.1} MiB |",
        measured.percentile(50),
        measured.percentile(99),
        measured.rate(),
        measured.cpu_each_us(),
        server.resident_mib(),
    );
}

/// The same beside connections of the question port that ask nothing.
async fn crowd() {
    println!("\n| idle connections to the question port | connections | p50 | p99 | requests/s | RSS |");
    println!("|---|---|---|---|---|---|");
    let mut server = Server::start(CROWD + 100);
    server.fill(1, 1, 1);
    let mut idle = Vec::new();
    for crowd in [0, CROWD] {
        while idle.len() < crowd {
            idle.push(client::tls(&server, server.question, idle.len(), "http/1.1").await);
        }
        for connections in [1, 16] {
            let load = Load { protocol: Protocol::Http2, connections, streams: 1 };
            let measured = load.run(&server).await;
            println!(
                "| {crowd} | {connections} | {:.2} ms | {:.2} ms | {:.0} | {:.1} MiB |",
                measured.percentile(50),
                measured.percentile(99),
                measured.rate(),
                server.resident_mib(),
            );
        }
    }
    let open = futures::future::join_all(idle.iter_mut().map(client::is_open)).await;
    println!("\n{} of {CROWD} are still open.", open.into_iter().filter(|open| *open).count());
}

/// Questions that are held until one status change answers all of them.
async fn held_questions() {
    println!(
        "\n| held questions | RSS before | RSS while held | half of them answered after | the last after | RSS then |"
    );
    println!("|---|---|---|---|---|---|");
    for _ in 0..3 {
        let mut server = Server::start(HELD + 100);
        server.fill(1, 1, 1);
        let before = server.resident_mib();
        let held = questions::hold(&server, HELD).await;
        let during = server.resident_mib();
        let answered = held.release(&mut server).await;
        println!(
            "| {HELD} | {before:.1} MiB | {during:.1} MiB | {:.0?} | {:.0?} | {:.1} MiB |",
            answered.get(HELD / 2).unwrap(),
            answered.last().unwrap(),
            server.resident_mib()
        );
    }
}
