//! The saga of a rekey. No step is ever undone: a rewrapped secret can be opened as before.
use super::steps::Rewrap;
use crate::cluster::OperationContext;
use crate::operation::Lane;
use crate::saga::Saga;

/// The saga of a rekey. Its workers need the stores and no session.
pub(super) fn define(stores: OperationContext) -> Saga<OperationContext> {
    Saga::new("rekey", Lane::Change, move |_| Ok(stores.clone())).pivot(Rewrap)
}
