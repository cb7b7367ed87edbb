//! The stored names and outputs of the steps whose outputs are read after a repair.
use crate::store::journal::Record;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The stored name of the step that acts.
pub(super) const APPLY: &str = "repair.apply";
/// The stored name of the step that examines the subject once more.
pub(super) const VERIFY: &str = "repair.verify";

/// The stored output of the step that acts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Applied {
    /// Why a part of the repair was left to a queue; `None` if all of it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<String>,
}

/// The stored output of the step that examines the subject once more.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Verified {
    /// Whether the finding is gone.
    pub(super) gone: bool,
}

/// Whether the record shows that the repair was done in full and that the finding is gone.
pub(super) fn is_repaired(record: &Record) -> bool {
    let applied: Option<Applied> = read(record, APPLY);
    let verified: Option<Verified> = read(record, VERIFY);
    verified.is_some_and(|verified| verified.gone) && applied.is_some_and(|applied| applied.left.is_none())
}

fn read<T: DeserializeOwned>(record: &Record, step: &str) -> Option<T> {
    serde_json::from_value(record.outputs.get(step)?.clone()).ok()
}
