//! The `Migrator` resource as users and programs see it: its types and schema, the names of its
//! labels and annotations, and its conditions. Data only: nothing here decides anything.

pub mod conditions;
mod migrator;
pub mod names;
mod schema;
mod status;

pub use conditions::{Reason, condition};
pub use migrator::{Migrator, MigratorSpec, RerunOn};
pub use status::{
    CurrentRun, DoneKey, How, MigratorStatus, RunRecord, RunResult, Source, SupersededRevision,
};
