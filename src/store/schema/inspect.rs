//! The installed state of the schema `tenantry`: reads it from the catalog, and decides what is missing.
//!
//! [`install`](super::install) and [`check`](super::check) call [`SchemaState::read`] and then
//! [`SchemaState::check_against`]. The decision makes no queries.
use super::objects::{TABLES, Table};
use crate::error::SchemaError;
use sqlx::migrate::{Migration, Migrator};
use sqlx::{FromRow, PgConnection};
use std::collections::HashMap;

/// What is installed, as this role sees it.
#[derive(Debug, Default)]
pub(super) struct SchemaState {
    /// Whether the schema `tenantry` exists.
    pub(super) exists: bool,
    /// Whether this role has USAGE on the schema.
    has_usage: bool,
    /// Checksums of the applied migrations, by version. Empty if this role may not read the migrations table.
    applied: HashMap<i64, Vec<u8>>,
    tables: HashMap<String, TableState>,
}

#[derive(Debug, FromRow)]
struct TableState {
    name: String,
    columns: Vec<String>,
    /// Valid indexes, and enabled triggers.
    #[sqlx(rename = "parts")]
    indexes_and_triggers: Vec<String>,
    /// Those of SELECT, INSERT, UPDATE and DELETE that this role lacks on the table.
    #[sqlx(rename = "lacking")]
    missing_privileges: Vec<String>,
}

const SCHEMA: &str = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'tenantry'";
const TABLES_SEEN: &str = "SELECT c.relname::text AS name,
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns,
    ARRAY(SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
          WHERE x.indrelid = c.oid AND x.indisvalid
          UNION ALL
          SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled <> 'D') AS parts,
    ARRAY(SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p
          WHERE NOT has_table_privilege(c.oid, p)) AS lacking
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'tenantry' AND c.relkind IN ('r', 'p')";
const APPLIED: &str = "SELECT version, checksum FROM tenantry.schema_migrations WHERE success";

impl SchemaState {
    /// Reads the catalog and the migrations table in the caller's transaction.
    pub(super) async fn read(session: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let Some(has_usage) = sqlx::query_scalar::<_, bool>(SCHEMA).fetch_optional(&mut *session).await? else {
            return Ok(Self::default());
        };
        let found: Vec<TableState> = sqlx::query_as(TABLES_SEEN).fetch_all(&mut *session).await?;
        let tables: HashMap<_, _> = found.into_iter().map(|t| (t.name.clone(), t)).collect();
        let can_read =
            tables.get("schema_migrations").is_some_and(|t| !t.missing_privileges.iter().any(|p| p == "SELECT"));
        let applied = if has_usage && can_read {
            sqlx::query_as(APPLIED).fetch_all(&mut *session).await?.into_iter().collect()
        } else {
            HashMap::new()
        };
        Ok(Self { exists: true, has_usage, applied, tables })
    }

    /// Compares the state with the migrations of this version and with [`TABLES`].
    ///
    /// A newer version is reported first: it may have renamed or dropped objects, so the other comparisons would give
    /// false results. A role that cannot read the migrations table gets only the list of missing privileges, since the
    /// versions are unknown then.
    pub(super) fn check_against(&self, ours: &Migrator) -> Result<(), SchemaError> {
        let privileges = self.missing_privileges();
        let is_unreadable =
            !self.has_usage || privileges.iter().any(|p| p.starts_with("SELECT on tenantry.schema_migrations"));
        if self.exists && is_unreadable {
            return fail_if_any(privileges, SchemaError::Rights);
        }
        fail_if_any(self.foreign_migrations(ours), SchemaError::Newer)?;
        fail_if_any(self.missing_migrations(ours), SchemaError::Missing)?;
        fail_if_any(TABLES.iter().flat_map(|t| self.missing_objects(t)).collect(), SchemaError::Damaged)?;
        fail_if_any(privileges, SchemaError::Rights)
    }

    /// Whether the migration has not been applied.
    pub(super) fn is_pending(&self, migration: &Migration) -> bool {
        !self.applied.contains_key(&migration.version)
    }

    /// Applied migrations that this version does not know, or knows with another checksum.
    fn foreign_migrations(&self, ours: &Migrator) -> Vec<String> {
        let mut versions: Vec<_> = self.applied.keys().filter(|v| !ours.version_exists(**v)).collect();
        versions.sort();
        let newer = versions.into_iter().map(|v| format!("migration {v}"));
        let changed = ours.iter().filter(|m| self.applied.get(&m.version).is_some_and(|sum| *sum != *m.checksum));
        newer.chain(changed.map(|m| format!("a different migration {} ({})", m.version, m.description))).collect()
    }

    /// Migrations of this version that have not been applied, and the schema itself if it does not exist.
    fn missing_migrations(&self, ours: &Migrator) -> Vec<String> {
        let pending = ours.iter().filter(|m| self.is_pending(m));
        let mut missing: Vec<_> = pending.map(|m| format!("migration {} ({})", m.version, m.description)).collect();
        if !self.exists {
            missing.insert(0, "the schema tenantry".into());
        }
        missing
    }

    /// Columns, indexes and triggers of the table that do not exist, or the table itself.
    fn missing_objects(&self, table: &Table) -> Vec<String> {
        let Table { name, columns, indexes_and_triggers } = table;
        let Some(installed) = self.tables.get(*name) else { return vec![format!("the table tenantry.{name}")] };
        let missing = |expected: &'static str, found: &[String]| {
            expected.split_whitespace().filter(|e| !found.iter().any(|f| f == e)).collect::<Vec<_>>()
        };
        let columns =
            missing(columns, &installed.columns).into_iter().map(|c| format!("the column tenantry.{name}.{c}"));
        let others = missing(indexes_and_triggers, &installed.indexes_and_triggers)
            .into_iter()
            .map(|o| format!("the index or trigger {o} on tenantry.{name}"));
        columns.chain(others).collect()
    }

    /// Privileges of this role that are missing, as they would be named in a GRANT.
    fn missing_privileges(&self) -> Vec<String> {
        let mut tables: Vec<_> = self.tables.values().filter(|t| !t.missing_privileges.is_empty()).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let privileges = |t: &TableState| format!("{} on tenantry.{}", t.missing_privileges.join(", "), t.name);
        let usage = (self.exists && !self.has_usage).then(|| "USAGE on the schema tenantry".to_owned());
        usage.into_iter().chain(tables.into_iter().map(privileges)).collect()
    }
}

fn fail_if_any(found: Vec<String>, error: fn(Vec<String>) -> SchemaError) -> Result<(), SchemaError> {
    if found.is_empty() { Ok(()) } else { Err(error(found)) }
}
