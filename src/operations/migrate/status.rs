use crate::cluster::pg::ddl;
use crate::sqlstate;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use std::fmt;

/// Where a tenant stands against the migrations of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// The newest version in the tenant's ledger; `None`: no migration has run.
    pub applied: Option<i64>,
    /// The newest version of this program.
    pub newest: Option<i64>,
    /// What that means.
    pub state: MigrationState,
}

/// What a ledger says. Of several troubles it is the one that a migration meets first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum MigrationState {
    /// Everything has run.
    AtHead,
    /// These versions have not run yet: `migrate` runs them.
    Behind {
        /// Oldest first.
        pending: Vec<i64>,
    },
    /// A newer program has run a version that this one does not know.
    Ahead {
        /// Which.
        version: i64,
    },
    /// A version has run with another text than this program has.
    Changed {
        /// Which.
        version: i64,
    },
    /// A migration outside a transaction was begun, and nobody saw its end. Look at what it did; then delete its row
    /// from the ledger (it runs again) or set `success` (it counts as run), and resume the parked operation.
    Unfinished {
        /// Which.
        version: i64,
    },
}

impl fmt::Display for MigrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtHead => f.write_str("at head"),
            Self::Behind { pending } => {
                let next = pending.first().map(|v| format!(": next is {v}")).unwrap_or_default();
                write!(f, "behind by {}{next}", pending.len())
            }
            Self::Ahead { version } => write!(f, "ahead: version {version} is not known to this program"),
            Self::Changed { version } => write!(f, "version {version} has run with another text"),
            Self::Unfinished { version } => write!(f, "version {version} was begun outside a transaction; look at it"),
        }
    }
}

/// A row of the ledger: version, checksum, success.
type Row = (i64, Vec<u8>, bool);

/// The ledger, oldest version first; empty if there is none yet.
pub(super) async fn ledger(migrator: &Migrator, session: &mut PgConnection) -> Result<Vec<Row>, sqlx::Error> {
    match ddl::ledger(&migrator.table_name, session).await {
        Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_TABLE) => Ok(vec![]),
        rows => rows,
    }
}

impl MigrationStatus {
    pub(super) fn compare(migrator: &Migrator, ledger: &[Row]) -> Self {
        let known: Vec<_> = migrator.iter().filter(|m| m.migration_type.is_up_migration()).collect();
        let of = |version: i64| known.iter().find(|m| m.version == version);
        let pending: Vec<i64> =
            known.iter().map(|m| m.version).filter(|v| !ledger.iter().any(|row| row.0 == *v)).collect();
        let unfinished = ledger.iter().find(|row| !row.2);
        let ahead = ledger.iter().find(|row| of(row.0).is_none() && !migrator.ignore_missing);
        let changed = ledger.iter().find(|row| of(row.0).is_some_and(|m| *m.checksum != *row.1));
        let state = match (unfinished, ahead, changed) {
            (Some(row), ..) => MigrationState::Unfinished { version: row.0 },
            (None, Some(row), _) => MigrationState::Ahead { version: row.0 },
            (None, None, Some(row)) => MigrationState::Changed { version: row.0 },
            (None, None, None) if pending.is_empty() => MigrationState::AtHead,
            (None, None, None) => MigrationState::Behind { pending },
        };
        let newest = known.iter().map(|m| m.version).max();
        Self { applied: ledger.last().map(|row| row.0), newest, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static MIGRATIONS: Migrator = sqlx::migrate!("tests/suite/broken_migrations");

    fn ledger() -> Vec<Row> {
        MIGRATIONS.iter().map(|m| (m.version, m.checksum.to_vec(), true)).collect()
    }
    fn state(ledger: &[Row]) -> MigrationState {
        MigrationStatus::compare(&MIGRATIONS, ledger).state
    }

    #[test]
    fn each_trouble_is_named() {
        let (all, first) = (ledger(), ledger()[0].0);
        assert_eq!(state(&all), MigrationState::AtHead);
        let behind = MigrationStatus::compare(&MIGRATIONS, &all[..1]);
        assert_eq!(behind.applied, Some(first));
        assert_eq!(behind.newest, all.last().map(|row| row.0));
        assert_eq!(behind.state, MigrationState::Behind { pending: all[1..].iter().map(|row| row.0).collect() });
        assert_eq!(MigrationStatus::compare(&MIGRATIONS, &[]).applied, None);

        let mut changed = all.clone();
        changed[0].1[0] ^= 1;
        assert_eq!(state(&changed), MigrationState::Changed { version: first });
        let mut unfinished = all.clone();
        unfinished[0].2 = false;
        assert_eq!(state(&unfinished), MigrationState::Unfinished { version: first });
        let mut ahead = all;
        ahead.push((i64::MAX, vec![], true));
        assert_eq!(state(&ahead), MigrationState::Ahead { version: i64::MAX });
    }
}
