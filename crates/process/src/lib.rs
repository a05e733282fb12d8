//! What both programs need to be good Pods: logs, an orderly end, probes and metrics, TLS serving.
//! No word of migrations in here: it would serve any other operator as well.

pub mod listen;
pub mod open_files;
pub mod probes;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
