//! A plan: the findings of one examination, as a JSON file that a person reviews and gives back.
//!
//! Invariant: applying a plan never does more than a fresh examination proposes. The file only selects repairs.
use super::code::Severity;
use super::finding::Finding;
use crate::error::DoctorError;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// The result of an examination: the findings, with the repairs that are proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// Version of the file format: 1.
    pub format: u32,
    /// The installation that was examined. A plan cannot be applied to another one.
    pub installation: Uuid,
    /// When the examination began, by the landlord's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub made_at: OffsetDateTime,
    /// Node that has made it: host name and process id.
    pub made_by: String,
    /// Servers that were examined.
    pub servers: u32,
    /// Tenants that were examined.
    pub tenants: u64,
    /// Tenants and servers that an operation changes now, or that have changed while they were examined. What was not
    /// the same at two looks is not in the plan; examine these again.
    pub busy: u64,
    /// The findings, the most severe first.
    pub findings: Vec<Finding>,
    /// Number of further findings that the plan does not hold.
    pub omitted: u64,
}

/// Version of the file format.
pub(crate) const FORMAT: u32 = 1;

impl Plan {
    /// Reads a plan that [`to_json`](Self::to_json) has written. A person may have removed findings from it.
    ///
    /// # Errors
    /// [`DoctorError::Plan`] if the text is no plan, or has the format of another version.
    pub fn from_json(text: &str) -> Result<Self, DoctorError> {
        let plan: Self = serde_json::from_str(text).map_err(DoctorError::Plan)?;
        match plan.format {
            FORMAT => Ok(plan),
            found => Err(DoctorError::Format { found }),
        }
    }
    /// The plan as indented JSON. It contains no secret.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
    /// Whether everything was examined and nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.omitted == 0 && self.busy == 0
    }
    /// The findings that have a repair.
    pub fn repairs(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.repair.is_some())
    }
    /// Number of findings of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
