//! The webhook as a program: reads its command line, then hands over to the library.

use anyhow::Context;
use clap::Parser;
use migrations_process::open_files;
use migrations_webhook::config::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    config.telemetry.clone().start().context("cannot start logging")?;
    open_files::allow_as_many_as_possible();
    Ok(migrations_webhook::run(config).await?)
}
