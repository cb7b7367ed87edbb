//! Who is logged in to a tenant: a random cookie, of which the tenant's own database keeps the hash.
use super::{Answer, App, Problem, Seen};
use sha2::{Digest, Sha256};
use tenantry::sqlx;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantPool};

pub(super) const COOKIE: &str = "session";

pub(super) struct Session {
    pub(super) email: String,
    /// Must come back with each form.
    pub(super) csrf: String,
}

pub(super) fn random() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>())
}

/// HttpOnly, of this host alone (no Domain), and not sent along by other sites' forms. A host that serves TLS adds Secure.
pub(super) fn cookie(name: &str, value: &str, seconds: u32) -> String {
    format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}")
}

fn hash(value: &str) -> Vec<u8> {
    Sha256::digest(value.as_bytes()).to_vec()
}

pub(super) async fn find(db: &TenantPool, seen: &Seen) -> Result<Option<Session>, sqlx::Error> {
    const FIND: &str = "SELECT email, csrf FROM sessions WHERE hash = $1 AND expires_at > now()";
    let Some(value) = seen.cookie(COOKIE) else { return Ok(None) };
    let found: Option<(String, String)> = sqlx::query_as(FIND).bind(hash(value)).fetch_optional(db).await?;
    Ok(found.map(|(email, csrf)| Session { email, csrf }))
}

/// A form of this session's own page.
pub(super) async fn of_form(app: &App, db: &TenantPool, seen: &Seen) -> Result<Session, Problem> {
    let session = find(db, seen).await?.ok_or_else(|| Problem::Page(WebResponse::see_other("/login")))?;
    if seen.is_foreign() || seen.field("csrf") != session.csrf {
        return Err(Problem::Page(app.text(
            403,
            "Not this way",
            "The form did not come from this page. Please try again.",
        )));
    }
    Ok(session)
}

impl App {
    pub(crate) async fn login_form(&self, tenant: &Tenant, db: &TenantPool, seen: &Seen) -> Answer {
        if find(db, seen).await?.is_some() {
            return Ok(WebResponse::see_other("/notes"));
        }
        self.login_page(tenant, 200, "", None)
    }

    fn login_page(&self, tenant: &Tenant, status: u16, email: &str, problem: Option<&str>) -> Answer {
        let context = minijinja::context! { company => tenant.name(), email, problem };
        Ok(self.page(status, "login.html", context)?)
    }

    pub(crate) async fn login(&self, tenant: &Tenant, db: &TenantPool, seen: &Seen) -> Answer {
        use tenantry::admin::{AdminStore, PgAdminStore};
        let (email, password) = (seen.field("email"), seen.password());
        let wrong =
            || self.login_page(tenant, 401, email, Some("This address and this password do not belong together."));
        if seen.is_foreign() {
            return wrong();
        }
        let Ok(address) = email.parse() else { return wrong() };
        let mut connection = db.acquire().await?;
        if !PgAdminStore::default().verify(&mut connection, &address, &password.into()).await? {
            return wrong();
        }
        let value = random();
        const BEGIN: &str = "INSERT INTO sessions (hash, email, csrf) VALUES ($1, $2, $3)";
        sqlx::query(BEGIN).bind(hash(&value)).bind(email).bind(random()).execute(&mut *connection).await?;
        Ok(WebResponse::see_other("/notes").header("set-cookie", cookie(COOKIE, &value, 12 * 3600)))
    }

    pub(crate) async fn logout(&self, db: &TenantPool, seen: &Seen) -> Answer {
        of_form(self, db, seen).await?;
        if let Some(value) = seen.cookie(COOKIE) {
            sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(hash(value)).execute(db).await?;
        }
        Ok(WebResponse::see_other("/login").header("set-cookie", cookie(COOKIE, "", 0)))
    }
}
