//! What a tenant's users see: their notes.
use super::session::{self, Session};
use super::{Answer, App, Seen};
use tenantry::sqlx;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantPool};

impl App {
    pub(crate) async fn notes(&self, tenant: &Tenant, db: &TenantPool, seen: &Seen) -> Answer {
        match session::find(db, seen).await? {
            Some(session) => self.notes_page(tenant, db, &session, 200, None).await,
            None => Ok(WebResponse::see_other("/login")),
        }
    }

    async fn notes_page(
        &self, tenant: &Tenant, db: &TenantPool, session: &Session, status: u16, problem: Option<&str>,
    ) -> Answer {
        const NOTES: &str = "SELECT text, author, to_char(created_at, 'DD Mon YYYY HH24:MI') FROM notes
            ORDER BY id DESC LIMIT 100";
        let notes: Vec<(String, String, String)> = sqlx::query_as(NOTES).fetch_all(db).await?;
        let (company, email, csrf) = (tenant.name(), &session.email, &session.csrf);
        Ok(self.page(status, "notes.html", minijinja::context! { company, email, csrf, notes, problem })?)
    }

    pub(crate) async fn add_note(&self, tenant: &Tenant, db: &TenantPool, seen: &Seen) -> Answer {
        let session = session::of_form(self, db, seen).await?;
        let text = seen.field("text");
        if text.is_empty() || text.chars().count() > 2000 {
            let problem = Some("A note has between 1 and 2000 characters.");
            return self.notes_page(tenant, db, &session, 422, problem).await;
        }
        const ADD: &str = "INSERT INTO notes (author, text) VALUES ($1, $2)";
        sqlx::query(ADD).bind(&session.email).bind(text).execute(db).await?;
        Ok(WebResponse::see_other("/notes"))
    }
}
