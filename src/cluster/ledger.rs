//! Compares a tenant's migration table (by default `_sqlx_migrations`, called ledger) with the migrations of this
//! program.
//!
//! The operations report a [`MigrationStatus`]; the resolver asks [`find_obstacle`] whether the program can serve the
//! tenant. Both look at every version of the ledger, not only at the newest one. The comparison is pure: it changes
//! nothing, and a [`MigrationStatus`] names the first problem that a migration would meet.
use super::pg::ddl;
use crate::sqlstate;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use std::fmt;

/// How the tenant's migration table (by default `_sqlx_migrations`, called ledger) compares with the migrations of this
/// program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Newest version in the tenant's ledger; `None` if no migration has run.
    pub applied: Option<i64>,
    /// Newest version among this program's migrations; `None` if it has none.
    pub newest: Option<i64>,
    /// How the ledger compares with the migrations.
    pub state: MigrationState,
    /// Versions of this program that have not run, oldest first, whatever the state is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<i64>,
}

/// State of a ledger. If several problems apply, this is the one that a migration would meet first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum MigrationState {
    /// Every migration of this program has run.
    AtHead,
    /// Some versions have not run yet; `migrate` runs them.
    Behind {
        /// Versions that have not run, oldest first.
        pending: Vec<i64>,
    },
    /// The ledger has a version that this program does not have: probably a newer program has run it.
    Ahead {
        /// The version that this program does not have.
        version: i64,
    },
    /// A version has run with another text than this program has, as their checksums show.
    Changed {
        /// The version whose text differs.
        version: i64,
    },
    /// A migration outside a transaction was begun, and its end was not recorded. Check what it did. Then delete its
    /// row from the ledger, so that it runs again, or set `success` in that row, so that it counts as run. Finally
    /// resume the parked operation.
    Unfinished {
        /// The version that was begun.
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
            Self::Ahead { version } => write!(f, "ahead: this program does not have version {version}"),
            Self::Changed { version } => write!(f, "version {version} has run with another text than this program has"),
            Self::Unfinished { version } => {
                write!(f, "version {version} was begun outside a transaction and may be incomplete; check what it did")
            }
        }
    }
}

/// A row of the ledger: version, checksum, and whether the migration succeeded.
pub(crate) type Row = (i64, Vec<u8>, bool);

/// Reads the ledger, oldest version first. Without a ledger table the result is empty.
pub(crate) async fn read_ledger(migrator: &Migrator, session: &mut PgConnection) -> Result<Vec<Row>, sqlx::Error> {
    match ddl::read_ledger(&migrator.table_name, session).await {
        Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_TABLE) => Ok(vec![]),
        rows => rows,
    }
}

impl MigrationStatus {
    /// Compares a ledger, oldest version first, with the program's migrations.
    pub(crate) fn compare(migrator: &Migrator, ledger: &[Row]) -> Self {
        let own: Vec<_> = migrator.iter().filter(|m| m.migration_type.is_up_migration()).collect();
        let find_own = |version: i64| own.iter().find(|m| m.version == version);
        let pending: Vec<i64> =
            own.iter().map(|m| m.version).filter(|v| !ledger.iter().any(|row| row.0 == *v)).collect();
        let missing = pending.clone();
        let unfinished = ledger.iter().find(|row| !row.2);
        let ahead = ledger.iter().find(|row| find_own(row.0).is_none() && !migrator.ignore_missing);
        let changed = ledger.iter().find(|row| find_own(row.0).is_some_and(|m| *m.checksum != *row.1));
        let state = match (unfinished, ahead, changed) {
            (Some(row), ..) => MigrationState::Unfinished { version: row.0 },
            (None, Some(row), _) => MigrationState::Ahead { version: row.0 },
            (None, None, Some(row)) => MigrationState::Changed { version: row.0 },
            (None, None, None) if pending.is_empty() => MigrationState::AtHead,
            (None, None, None) => MigrationState::Behind { pending },
        };
        let newest = own.iter().map(|m| m.version).max();
        Self { applied: ledger.last().map(|row| row.0), newest, state, missing }
    }
}

/// What keeps a program from serving a tenant with this ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerObstacle {
    /// A version of the program has not run. A migration runs it.
    Missing,
    /// This version of the program has run with another text, or was begun and not finished. A person must repair it.
    Unusable(i64),
}

/// Finds the first version of the program, oldest first, that has not run in the tenant's database as the program has
/// it. Versions that the program does not have are ignored, finished or not: a newer program runs them.
pub(crate) fn find_obstacle(migrator: &Migrator, ledger: &[Row]) -> Option<LedgerObstacle> {
    let own = migrator.iter().filter(|m| m.migration_type.is_up_migration());
    own.filter_map(|m| match ledger.iter().find(|row| row.0 == m.version) {
        None => Some(LedgerObstacle::Missing),
        Some((version, checksum, success)) if !success || **checksum != *m.checksum => {
            Some(LedgerObstacle::Unusable(*version))
        }
        Some(_) => None,
    })
    // A migration stops at an unusable version, so that one decides.
    .max_by_key(|obstacle| matches!(obstacle, LedgerObstacle::Unusable(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    static MIGRATIONS: Migrator = sqlx::migrate!("tests/suite/broken_migrations");

    fn full_ledger() -> Vec<Row> {
        MIGRATIONS.iter().map(|m| (m.version, m.checksum.to_vec(), true)).collect()
    }
    fn state(ledger: &[Row]) -> MigrationState {
        MigrationStatus::compare(&MIGRATIONS, ledger).state
    }

    #[test]
    fn compare_reports_the_state_of_each_ledger() {
        let (all, first) = (full_ledger(), full_ledger()[0].0);
        assert_eq!(state(&all), MigrationState::AtHead);
        let behind = MigrationStatus::compare(&MIGRATIONS, &all[..1]);
        assert_eq!(behind.applied, Some(first));
        assert_eq!(behind.newest, all.last().map(|row| row.0));
        assert_eq!(behind.state, MigrationState::Behind { pending: all[1..].iter().map(|row| row.0).collect() });
        assert_eq!(MigrationStatus::compare(&MIGRATIONS, &[]).applied, None, "an empty ledger has no applied version");

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

    #[test]
    fn compare_and_find_obstacle_report_a_gap_below_the_newest_version() {
        let mut gap = full_ledger();
        let missing = gap.remove(0).0;
        assert_eq!(state(&gap), MigrationState::Behind { pending: vec![missing] });
        assert_eq!(find_obstacle(&MIGRATIONS, &gap), Some(LedgerObstacle::Missing));
        gap.push((i64::MAX, vec![], true));
        assert_eq!(find_obstacle(&MIGRATIONS, &gap), Some(LedgerObstacle::Missing), "a newer version hides the gap");
    }

    #[test]
    fn find_obstacle_refuses_own_versions_that_are_changed_or_unfinished_and_ignores_newer_ones() {
        let all = full_ledger();
        assert_eq!(find_obstacle(&MIGRATIONS, &all), None);
        let mut newer = all.clone();
        newer.push((i64::MAX, vec![], false));
        assert_eq!(find_obstacle(&MIGRATIONS, &newer), None, "an unfinished version of a newer program");
        for at in 0..all.len() {
            let (mut changed, mut unfinished) = (all.clone(), all.clone());
            changed[at].1[0] ^= 1;
            unfinished[at].2 = false;
            let unusable = Some(LedgerObstacle::Unusable(all[at].0));
            assert_eq!(find_obstacle(&MIGRATIONS, &changed), unusable, "changed");
            assert_eq!(find_obstacle(&MIGRATIONS, &unfinished), unusable, "unfinished");
        }
        assert_eq!(find_obstacle(&MIGRATIONS, &[]), Some(LedgerObstacle::Missing));
    }
}
