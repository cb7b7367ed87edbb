//! What the doctor's repairs begin: the drivers of all operations of this process that can repair something.
use super::Repairs;
use crate::cluster::OperationContext;
use crate::operations::lifecycle::Lifecycle;
use crate::operations::migrate::Migration;
use crate::operations::rekey::Rekey;
use crate::operations::restore_entry::EntryRestoration;
use crate::operations::rotate::Rotation;
use crate::operations::servers::Servers;
use crate::saga::{Engine, Recoverer};
use crate::tenant::TenantId;
use std::sync::Arc;

/// The drivers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Drivers {
    pub(crate) stores: OperationContext,
    pub(crate) engine: Engine,
    pub(crate) recoverer: Recoverer,
    pub(crate) repairs: Repairs,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) migration: Migration,
    pub(crate) rotation: Rotation,
    pub(crate) restore_entry: EntryRestoration,
    pub(crate) rekey: Rekey,
    pub(crate) servers: Servers,
    /// Called with each tenant that a repair has changed, so that this process reads it again.
    pub(crate) changed: Arc<dyn Fn(TenantId) + Send + Sync>,
}
