use super::{AdminError, AdminStore, PasswordPolicy, password};
use crate::names::{Email, RoleName};
use crate::sql::{Ddl, id};
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::{Executor, PgConnection};
use uuid::Uuid;

/// Table `tenant_users` in schema `public` of the tenant's own database, with Argon2id hashes. It is no part of the
/// host's migrations and their ledger.
///
/// Its columns are the host's to read and to add to: `id uuid`, `email text` (unique in lower case),
/// `password_hash text` (a PHC string, or null), `is_admin`, `created_at`, `password_set_at`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PgAdminStore {
    policy: PasswordPolicy,
}
impl PgAdminStore {
    /// With rules of the host's own for passwords.
    pub fn with_policy(policy: PasswordPolicy) -> Self {
        Self { policy }
    }
}

const TABLE: &str = "public.tenant_users";
/// Tells our table from another's of that name: stored, a contract.
const MARK: &str = "tenantry: users of this tenant";
const FOUND: &str = "SELECT pg_catalog.obj_description(c.oid, 'pg_class')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relname = 'tenant_users'";
/// One call of the simple protocol: it happens as a whole or not at all.
const CREATE: &str = "CREATE TABLE public.tenant_users (
    id              uuid PRIMARY KEY,
    email           text NOT NULL,
    password_hash   text,
    is_admin        boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    password_set_at timestamptz
);
CREATE UNIQUE INDEX tenant_users_email ON public.tenant_users (lower(email));
COMMENT ON TABLE public.tenant_users IS 'tenantry: users of this tenant'";
const ENSURE: &str = "INSERT INTO public.tenant_users (id, email, is_admin) VALUES ($1, $2, true)
    ON CONFLICT (lower(email)) DO UPDATE SET is_admin = true";
const SET: &str = "UPDATE public.tenant_users SET password_hash = $2, password_set_at = now()
    WHERE lower(email) = lower($1) AND is_admin";
const HASH: &str = "SELECT password_hash FROM public.tenant_users WHERE lower(email) = lower($1) AND is_admin";

#[async_trait]
impl AdminStore for PgAdminStore {
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError> {
        let found: Option<Option<String>> = sqlx::query_scalar(FOUND).fetch_optional(&mut *db).await?;
        match found {
            None => {
                db.execute(sqlx::raw_sql(CREATE)).await?;
            }
            Some(mark) if mark.as_deref() == Some(MARK) => {}
            Some(_) => return Err(AdminError::Foreign(TABLE)),
        }
        match app {
            Some(app) => Ok(grant_users(app).execute(db).await?),
            None => Ok(()),
        }
    }
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError> {
        sqlx::query(ENSURE).bind(Uuid::now_v7()).bind(email.as_str()).execute(db).await?;
        Ok(())
    }
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError> {
        let hash = password::hashed(&self.policy.check(password)?).await?;
        let set = sqlx::query(SET).bind(email.as_str()).bind(hash).execute(db).await?;
        if set.rows_affected() == 1 { Ok(()) } else { Err(AdminError::Unknown(email.clone())) }
    }
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError> {
        let candidates = self.policy.candidates(password);
        if candidates.is_empty() {
            return Ok(false);
        }
        let stored: Option<Option<String>> = sqlx::query_scalar(HASH).bind(email.as_str()).fetch_optional(db).await?;
        Ok(password::matches(candidates, stored.flatten()).await?)
    }
}

/// As the migrator, after the users' table was made: as b6 gives it by default, also where b6 was never run.
fn grant_users(app: &RoleName) -> Ddl {
    Ddl(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.tenant_users TO {}", id(app)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_that_is_written_is_the_mark_that_is_looked_for() {
        assert!(CREATE.ends_with(&format!("COMMENT ON TABLE {TABLE} IS '{MARK}'")));
    }
}
