//! Sessions of a tenant's users, and the log-in page.
//!
//! A session is a random cookie. The tenant's own database stores only its hash, so the cookie is worthless on other
//! tenants' hosts and a leaked table does not reveal it.
use super::{App, FormRequest, PageResult, Problem};
use sha2::{Digest, Sha256};
use tenantry::sqlx;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantPool};

pub(super) const COOKIE: &str = "session";

pub(super) struct Session {
    pub(super) email: String,
    /// CSRF token. Each form of this session must contain it.
    pub(super) csrf: String,
}

/// 128 random bits, in hexadecimal.
pub(super) fn random() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>())
}

/// A cookie that only this host receives (no Domain), that scripts cannot read (HttpOnly), and that browsers do not
/// send with forms of other sites (SameSite). An application that serves TLS adds Secure.
pub(super) fn cookie(name: &str, value: &str, seconds: u32) -> String {
    format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}")
}

fn hash(value: &str) -> Vec<u8> {
    Sha256::digest(value.as_bytes()).to_vec()
}

pub(super) async fn find(db: &TenantPool, form: &FormRequest) -> Result<Option<Session>, sqlx::Error> {
    const FIND: &str = "SELECT email, csrf FROM sessions WHERE hash = $1 AND expires_at > now()";
    let Some(value) = form.cookie(COOKIE) else { return Ok(None) };
    let found: Option<(String, String)> = sqlx::query_as(FIND).bind(hash(value)).fetch_optional(db).await?;
    Ok(found.map(|(email, csrf)| Session { email, csrf }))
}

/// Checks that the form was sent from a page of this session. Redirects to the log-in if there is no session, and
/// answers 403 if the form comes from another site or has the wrong CSRF token.
pub(super) async fn check_form(app: &App, db: &TenantPool, form: &FormRequest) -> Result<Session, Problem> {
    let session = find(db, form).await?.ok_or_else(|| Problem::Page(WebResponse::see_other("/login")))?;
    if form.is_foreign() || form.field("csrf") != session.csrf {
        return Err(Problem::Page(app.text(
            403,
            "Request refused",
            "The form did not come from this page. Please try again.",
        )));
    }
    Ok(session)
}

impl App {
    pub(crate) async fn login_form(&self, tenant: &Tenant, db: &TenantPool, form: &FormRequest) -> PageResult {
        if find(db, form).await?.is_some() {
            return Ok(WebResponse::see_other("/notes"));
        }
        self.login_page(tenant, 200, "", None)
    }

    fn login_page(&self, tenant: &Tenant, status: u16, email: &str, problem: Option<&str>) -> PageResult {
        let context = minijinja::context! { company => tenant.name(), email, problem };
        Ok(self.page(status, "login.html", context)?)
    }

    pub(crate) async fn login(&self, tenant: &Tenant, db: &TenantPool, form: &FormRequest) -> PageResult {
        use tenantry::admin::{AdminStore, PgAdminStore};
        let (email, password) = (form.field("email"), form.password());
        let reject = || self.login_page(tenant, 401, email, Some("The address or the password is wrong."));
        if form.is_foreign() {
            return reject();
        }
        let Ok(address) = email.parse() else { return reject() };
        let mut connection = db.acquire().await?;
        if !PgAdminStore::default().verify(&mut connection, &address, &password.into()).await? {
            return reject();
        }
        let value = random();
        const BEGIN: &str = "INSERT INTO sessions (hash, email, csrf) VALUES ($1, $2, $3)";
        sqlx::query(BEGIN).bind(hash(&value)).bind(email).bind(random()).execute(&mut *connection).await?;
        Ok(WebResponse::see_other("/notes").header("set-cookie", cookie(COOKIE, &value, 12 * 3600)))
    }

    pub(crate) async fn logout(&self, db: &TenantPool, form: &FormRequest) -> PageResult {
        check_form(self, db, form).await?;
        if let Some(value) = form.cookie(COOKIE) {
            sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(hash(value)).execute(db).await?;
        }
        Ok(WebResponse::see_other("/login").header("set-cookie", cookie(COOKIE, "", 0)))
    }
}
