//! [`AdminStore`] over a table in the tenant's own database.
//!
//! Provisioning creates the table as the migrator; the setup links read and change it as the application's login. Each
//! call is one statement or one simple-protocol query, so it is atomic without a transaction of its own.
use super::{AdminError, AdminStore, HashFirst, PasswordPolicy, hash};
use crate::names::{Email, RoleName};
use crate::sql::{Ddl, quote_identifier};
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Executor, PgConnection};
use uuid::Uuid;

/// Table `tenant_users` in schema `public` of the tenant's own database, with Argon2id hashes. The table is not part of
/// the application's migrations, and does not appear in their migrations table.
///
/// The application may read its columns and add others: `id uuid`, `email text` (unique in lower case), `password_hash
/// text` (a PHC string, or null), `is_admin`, `created_at`, `password_set_at`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PgAdminStore {
    policy: PasswordPolicy,
}
impl PgAdminStore {
    /// Uses these rules for new passwords, in place of the default ones.
    pub fn with_policy(policy: PasswordPolicy) -> Self {
        Self { policy }
    }
}

const TABLE: &str = "public.tenant_users";
/// Comment on the table. It distinguishes this crate's table from another one of that name. It is stored in every
/// tenant's database, so it must not change.
const TABLE_COMMENT: &str = "tenantry: users of this tenant";
const SELECT_COMMENT: &str = "SELECT pg_catalog.obj_description(c.oid, 'pg_class')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relname = 'tenant_users'";
/// One call of the simple protocol: PostgreSQL runs the statements in one transaction, so all of them take effect or
/// none.
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
/// Changes no row if the conflicting address is another one by the rule of `is_address!`.
const UPSERT_ADMIN: &str = "INSERT INTO public.tenant_users AS u (id, email, is_admin) VALUES ($1, $2, true)
    ON CONFLICT (lower(email)) DO UPDATE SET is_admin = true
    WHERE lower(u.email COLLATE \"C\") = lower(EXCLUDED.email COLLATE \"C\")";
/// The collation C folds ASCII letters only. Under most others `lower` turns the Kelvin sign into k, and so one address
/// into another one. The first comparison is the one that the index has.
macro_rules! is_address {
    () => {
        "lower(email) = lower($1) AND lower(email COLLATE \"C\") = lower($1 COLLATE \"C\")"
    };
}
const SET_PASSWORD: &str = concat!(
    "UPDATE public.tenant_users SET password_hash = $2, password_set_at = now() WHERE is_admin AND ",
    is_address!()
);
const SELECT_ADDRESS: &str = concat!("SELECT email FROM public.tenant_users WHERE is_admin AND ", is_address!());
const SELECT_HASH: &str = concat!("SELECT password_hash FROM public.tenant_users WHERE is_admin AND ", is_address!());

#[async_trait]
impl AdminStore for PgAdminStore {
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError> {
        let found: Option<Option<String>> = sqlx::query_scalar(SELECT_COMMENT).fetch_optional(&mut *db).await?;
        match found {
            None => {
                db.execute(sqlx::raw_sql(CREATE)).await?;
            }
            Some(comment) if comment.as_deref() == Some(TABLE_COMMENT) => {}
            Some(_) => return Err(AdminError::Foreign(TABLE)),
        }
        match app {
            Some(app) => Ok(grant_users(app).execute(db).await?),
            None => Ok(()),
        }
    }
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError> {
        let stored = sqlx::query(UPSERT_ADMIN).bind(Uuid::now_v7()).bind(email.as_str()).execute(db).await?;
        if stored.rows_affected() == 1 { Ok(()) } else { Err(AdminError::Similar(email.clone())) }
    }
    async fn find_admin(&self, db: &mut PgConnection, email: &Email) -> Result<Option<Email>, AdminError> {
        let stored: Option<String> = sqlx::query_scalar(SELECT_ADDRESS).bind(email.as_str()).fetch_optional(db).await?;
        // It equals `email` except for the case of ASCII letters, so it is an address too.
        let parsed = stored.map(|stored| stored.parse()).transpose();
        parsed.map_err(|invalid| AdminError::Database(sqlx::Error::Decode(Box::new(invalid))))
    }
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError> {
        let hash = self.hash(password).await?;
        self.set_hash(db, email, &hash).await
    }
    fn hash_first(&self) -> Option<&dyn HashFirst> {
        Some(self)
    }
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError> {
        let candidates = self.policy.candidates(password);
        if candidates.is_empty() {
            return Ok(false);
        }
        let stored: Option<Option<String>> =
            sqlx::query_scalar(SELECT_HASH).bind(email.as_str()).fetch_optional(db).await?;
        Ok(hash::verify_password(candidates, stored.flatten()).await?)
    }
}

#[async_trait]
impl HashFirst for PgAdminStore {
    async fn hash(&self, password: &SecretString) -> Result<SecretString, AdminError> {
        Ok(hash::hash_password(&self.policy.check(password)?).await?.into())
    }
    async fn set_hash(&self, db: &mut PgConnection, email: &Email, hash: &SecretString) -> Result<(), AdminError> {
        let set = sqlx::query(SET_PASSWORD).bind(email.as_str()).bind(hash.expose_secret()).execute(db).await?;
        if set.rows_affected() == 1 { Ok(()) } else { Err(AdminError::Unknown(email.clone())) }
    }
}

/// Lets the application's role use the table; run as the migrator. ALTER DEFAULT PRIVILEGES gives the same privileges
/// in a database that this crate provisioned, but it may not have run in this one.
fn grant_users(app: &RoleName) -> Ddl {
    Ddl(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.tenant_users TO {}", quote_identifier(app)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_sets_the_comment_that_prepare_looks_for() {
        assert!(CREATE.ends_with(&format!("COMMENT ON TABLE {TABLE} IS '{TABLE_COMMENT}'")));
    }
}
