//! The examination: reads the landlord, the servers and the tenants, and runs the checks on what was read.
//!
//! [`Doctor`](super::Doctor) examines everything, and a repair examines its subject again before and after it acts.
//!
//! Invariants: the examination changes nothing. Its memory does not depend on the number of rows in the registry: it
//! reads placements and tenants in pages, and keeps the catalogs of one server at a time.
use super::finding::Finding;
use super::plan::Plan;
use super::scope::Scope;
use super::view::Expected;
use crate::cluster::OperationContext;
use crate::error::{DoctorError, StepError};
use crate::operation::{OperationId, Subject};
use crate::store::nodes::Nodes;
use crate::store::schema::LandlordPool;
use std::sync::Arc;

/// Runs examinations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Examiner {
    stores: OperationContext,
    landlord: LandlordPool,
    nodes: Arc<dyn Nodes>,
    expected: Expected,
}

impl Examiner {
    pub(crate) fn new(
        stores: OperationContext, landlord: LandlordPool, nodes: Arc<dyn Nodes>, expected: Expected,
    ) -> Self {
        Self { stores, landlord, nodes, expected }
    }

    /// Examines everything in `scope`, and calls `found` with each finding.
    pub(crate) async fn examine_all(
        &self, _scope: &Scope, _found: &mut (dyn FnMut(&Finding) + Send),
    ) -> Result<Plan, DoctorError> {
        Err(DoctorError::Closed)
    }

    /// Examines one subject, also while the operation `except` is open for it. For repairs.
    pub(crate) async fn examine_subject(
        &self, _subject: &Subject, _except: Option<OperationId>,
    ) -> Result<Vec<Finding>, StepError> {
        Err(StepError::fail(DoctorError::Closed))
    }
}
