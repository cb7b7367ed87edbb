//! What stands in the landlord, and what that means: the reading apart from the deciding.
use super::objects::{TABLES, Table};
use crate::error::SchemaError;
use sqlx::migrate::{Migration, Migrator};
use sqlx::{FromRow, PgTransaction};
use std::collections::HashMap;

/// What stands there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The schema itself.
    pub(super) schema: bool,
    /// Whether this role may look into it.
    usage: bool,
    applied: HashMap<i64, Vec<u8>>,
    tables: HashMap<String, SeenTable>,
}

#[derive(Debug, FromRow)]
struct SeenTable {
    name: String,
    columns: Vec<String>,
    parts: Vec<String>,
    /// Of SELECT, INSERT, UPDATE, DELETE: what this role lacks.
    lacking: Vec<String>,
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

impl Seen {
    pub(super) async fn read(tx: &mut PgTransaction<'_>) -> Result<Self, sqlx::Error> {
        let Some(usage) = sqlx::query_scalar::<_, bool>(SCHEMA).fetch_optional(&mut **tx).await? else {
            return Ok(Self::default());
        };
        let found: Vec<SeenTable> = sqlx::query_as(TABLES_SEEN).fetch_all(&mut **tx).await?;
        let tables: HashMap<_, _> = found.into_iter().map(|t| (t.name.clone(), t)).collect();
        let readable = tables.get("schema_migrations").is_some_and(|t| !t.lacking.iter().any(|r| r == "SELECT"));
        let applied = if usage && readable {
            sqlx::query_as(APPLIED).fetch_all(&mut **tx).await?.into_iter().collect()
        } else {
            HashMap::new()
        };
        Ok(Self { schema: true, usage, applied, tables })
    }

    /// Newer first: of a landlord that somebody else understands better nothing else can be said.
    pub(super) fn verdict(&self, ours: &Migrator) -> Result<(), SchemaError> {
        let lacking = self.lacking();
        let unreadable = !self.usage || lacking.iter().any(|r| r.starts_with("SELECT on tenantry.schema_migrations"));
        if self.schema && unreadable {
            return none(lacking, SchemaError::Rights);
        }
        none(self.unknown(ours), SchemaError::Newer)?;
        none(self.pending(ours), SchemaError::Missing)?;
        none(TABLES.iter().flat_map(|t| self.lost(t)).collect(), SchemaError::Damaged)?;
        none(lacking, SchemaError::Rights)
    }

    pub(super) fn lacks(&self, migration: &Migration) -> bool {
        !self.applied.contains_key(&migration.version)
    }

    fn unknown(&self, ours: &Migrator) -> Vec<String> {
        let mut versions: Vec<_> = self.applied.keys().filter(|v| !ours.version_exists(**v)).collect();
        versions.sort();
        let newer = versions.into_iter().map(|v| format!("migration {v}"));
        let changed = ours.iter().filter(|m| self.applied.get(&m.version).is_some_and(|sum| *sum != *m.checksum));
        newer.chain(changed.map(|m| format!("another migration {} ({})", m.version, m.description))).collect()
    }

    fn pending(&self, ours: &Migrator) -> Vec<String> {
        let pending = ours.iter().filter(|m| self.lacks(m));
        let mut missing: Vec<_> = pending.map(|m| format!("migration {} ({})", m.version, m.description)).collect();
        if !self.schema {
            missing.insert(0, "the schema tenantry".into());
        }
        missing
    }

    fn lost(&self, table: &Table) -> Vec<String> {
        let Table { name, columns, parts } = table;
        let Some(seen) = self.tables.get(*name) else { return vec![format!("the table tenantry.{name}")] };
        let gone = |expected: &'static str, found: &[String]| {
            expected.split_whitespace().filter(|e| !found.iter().any(|f| f == e)).collect::<Vec<_>>()
        };
        let columns = gone(columns, &seen.columns).into_iter().map(|c| format!("the column tenantry.{name}.{c}"));
        let parts =
            gone(parts, &seen.parts).into_iter().map(|p| format!("the index or trigger {p} on tenantry.{name}"));
        columns.chain(parts).collect()
    }

    fn lacking(&self) -> Vec<String> {
        let mut lacking: Vec<_> = self.tables.values().filter(|t| !t.lacking.is_empty()).collect();
        lacking.sort_by(|a, b| a.name.cmp(&b.name));
        let on = |t: &SeenTable| format!("{} on tenantry.{}", t.lacking.join(", "), t.name);
        let usage = (self.schema && !self.usage).then(|| "USAGE on the schema tenantry".to_owned());
        usage.into_iter().chain(lacking.into_iter().map(on)).collect()
    }
}

fn none(found: Vec<String>, error: fn(Vec<String>) -> SchemaError) -> Result<(), SchemaError> {
    if found.is_empty() { Ok(()) } else { Err(error(found)) }
}
