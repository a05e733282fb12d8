//! The webhook as a program: reads its command line, then hands over to the library.

use anyhow::Context;
use clap::Parser;
use migrations_webhook::config::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    config.telemetry.clone().start().context("cannot start logging")?;
    Ok(migrations_webhook::run(config).await?)
}
