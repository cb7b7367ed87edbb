//! Values of [`TenantDatabase::schema_state`](crate::directory::TenantDatabase::schema_state).
//!
//! The value is a digest of the ledger. So a worker that repeats the step of one that died finds out from the database
//! alone whether something was applied since the value was last stored, and two programs agree on it. Where the ledger
//! was not read, the value names the operation that may have applied something.
use crate::operation::OperationId;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;

/// The value for a ledger with these rows, in ascending order: version, checksum, and whether the migration succeeded.
pub(crate) fn of_ledger<'a>(rows: impl IntoIterator<Item = (i64, &'a [u8], bool)>) -> String {
    let mut hash = Sha256::new();
    for (version, checksum, success) in rows {
        hash.update(version.to_be_bytes());
        hash.update([u8::from(success)]);
        hash.update((checksum.len() as u64).to_be_bytes());
        hash.update(checksum);
    }
    format!("ledger {}", HEXLOWER.encode(&hash.finalize()[..16]))
}

/// The value after all migrations of a program have run in a new database.
pub(crate) fn of_migrations(migrator: Option<&Migrator>) -> String {
    let all = migrator.into_iter().flat_map(|migrator| migrator.iter());
    let mut applied: Vec<_> = all.filter(|m| m.migration_type.is_up_migration()).collect();
    applied.sort_by_key(|m| m.version);
    of_ledger(applied.into_iter().map(|m| (m.version, &*m.checksum, true)))
}

/// The value after an operation that may have applied something.
pub(crate) fn unknown_after(operation: OperationId) -> String {
    format!("operation {operation}")
}
