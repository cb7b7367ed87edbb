//! The notes page of a tenant: plain sqlx on the tenant's database.
use super::session::{self, Session};
use super::{App, FormRequest, PageResult};
use tenantry::sqlx;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantPool};

impl App {
    pub(crate) async fn notes(&self, tenant: &Tenant, db: &TenantPool, form: &FormRequest) -> PageResult {
        match session::find(db, form).await? {
            Some(session) => self.notes_page(tenant, db, &session, 200, None).await,
            None => Ok(WebResponse::see_other("/login")),
        }
    }

    async fn notes_page(
        &self, tenant: &Tenant, db: &TenantPool, session: &Session, status: u16, problem: Option<&str>,
    ) -> PageResult {
        const NOTES: &str = "SELECT text, author, to_char(created_at, 'DD Mon YYYY HH24:MI') FROM notes
            ORDER BY id DESC LIMIT 100";
        let notes: Vec<(String, String, String)> = sqlx::query_as(NOTES).fetch_all(db).await?;
        let (company, email, csrf) = (tenant.name(), &session.email, &session.csrf);
        Ok(self.page(status, "notes.html", minijinja::context! { company, email, csrf, notes, problem })?)
    }

    pub(crate) async fn add_note(&self, tenant: &Tenant, db: &TenantPool, form: &FormRequest) -> PageResult {
        let session = session::check_form(self, db, form).await?;
        let text = form.field("text");
        if text.is_empty() || text.chars().count() > 2000 {
            let problem = Some("A note has between 1 and 2000 characters.");
            return self.notes_page(tenant, db, &session, 422, problem).await;
        }
        const ADD: &str = "INSERT INTO notes (author, text) VALUES ($1, $2)";
        sqlx::query(ADD).bind(&session.email).bind(text).execute(db).await?;
        Ok(WebResponse::see_other("/notes"))
    }
}
