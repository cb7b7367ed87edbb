//! The operator's pages on the bare host: log-in, the list of tenants, and one button per lifecycle operation.
//!
//! Every post needs the operator's cookie and the CSRF token of the page. A tenant's own host never serves these pages.
use super::session::{cookie, random};
use super::{App, FormRequest, PageResult, Problem};
use std::sync::PoisonError;
use tenantry::registry::TenantRegistry;
use tenantry::tenant::TenantStatus;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantRef};

const COOKIE: &str = "admin";

/// The operator's session.
pub(super) struct AdminSession {
    cookie: String,
    csrf: String,
    /// What the last action did, and whether it failed. The next page shows it once.
    message: Option<(String, bool)>,
}

impl App {
    /// Applies `use_session` to the operator's session, if the request has the operator's cookie.
    fn admin_session<T>(&self, form: &FormRequest, use_session: impl FnOnce(&mut AdminSession) -> T) -> Option<T> {
        let mut admin = self.0.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let session = admin.as_mut().filter(|session| form.cookie(COOKIE) == Some(&session.cookie))?;
        Some(use_session(session))
    }

    pub(crate) async fn admin(&self, tenant: Option<&Tenant>, form: &FormRequest) -> PageResult {
        if tenant.is_some() {
            return Ok(self.text(404, "Nothing here", "Tenants are administered on the bare host."));
        }
        match self.admin_session(form, |session| (session.csrf.clone(), session.message.take())) {
            Some((csrf, message)) => self.admin_page(&csrf, message).await,
            None => Ok(self.page(200, "admin_login.html", minijinja::context! {})?),
        }
    }

    pub(crate) fn admin_login(&self, tenant: Option<&Tenant>, form: &FormRequest) -> PageResult {
        let is_valid = !form.is_foreign() && tenant.is_none() && form.password() == self.0.admin_password;
        if !is_valid {
            let problem = "This is not the password that was printed when the program started.";
            return Ok(self.page(401, "admin_login.html", minijinja::context! { problem })?);
        }
        let session = AdminSession { cookie: random(), csrf: random(), message: None };
        let cookie = cookie(COOKIE, &session.cookie, 3600);
        *self.0.admin.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        Ok(WebResponse::see_other("/admin").header("set-cookie", cookie))
    }

    async fn admin_page(&self, csrf: &str, message: Option<(String, bool)>) -> PageResult {
        use futures_util::TryStreamExt;
        let registry = self.0.tenantry.registry();
        let tenants: Vec<Tenant> = registry.all().try_collect().await?;
        let mut rows = vec![];
        for tenant in tenants {
            let entry = registry.primary(tenant.id()).await?;
            let (open, used) = self
                .0
                .tenantry
                .resolver()
                .cached(&TenantRef::from(tenant.slug()))
                .map_or((0, 0), |db| db.connections());
            rows.push(minijinja::context! {
                slug => tenant.slug().as_str(), name => tenant.name(), status => tenant.status().as_str(),
                origin => self.origin_of(tenant.slug().as_str()),
                database => entry.as_ref().map(|e| e.database.to_string()),
                generation => entry.as_ref().map(|e| e.generation.0), open, used,
                verbs => verbs(tenant.status()),
            });
        }
        let servers: Vec<_> = self
            .0
            .tenantry
            .pool_stats()
            .into_iter()
            .map(|((host, port), stats)| {
                minijinja::context! { server => format!("{host}:{port}"), open => stats.open, budget => stats.budget }
            })
            .collect();
        let retiring = self.0.tenantry.retiring(20).await?;
        let retiring: Vec<_> = retiring.iter().map(|r| (r.user.role.to_string(), r.user.reason.clone())).collect();
        let (message, failed) = message.unzip();
        let context = minijinja::context! { rows, servers, retiring, csrf, message, failed };
        Ok(self.page(200, "admin.html", context)?)
    }

    /// Asks the operator to confirm that a tenant is archived.
    pub(crate) async fn confirm_archive(&self, tenant: Option<&Tenant>, slug: &str, form: &FormRequest) -> PageResult {
        let csrf = self.admin_session(form, |session| session.csrf.clone()).filter(|_| tenant.is_none());
        let Some(csrf) = csrf else { return Ok(WebResponse::see_other("/admin")) };
        match self.0.tenantry.registry().find(slug.into()).await? {
            Some(tenant) => {
                let (slug, name) = (tenant.slug().as_str(), tenant.name());
                Ok(self.page(200, "confirm.html", minijinja::context! { slug, name, csrf })?)
            }
            None => Ok(self.text(404, "Nothing here", "There is no such tenant.")),
        }
    }

    /// Runs an operation, and redirects to the list of tenants, which shows the result once. So a reload of the page does
    /// not repeat the operation.
    pub(crate) async fn admin_action(
        &self, tenant: Option<&Tenant>, slug: &str, verb: &str, form: &FormRequest,
    ) -> PageResult {
        let csrf = self.admin_session(form, |session| session.csrf.clone()).filter(|_| tenant.is_none());
        let csrf = csrf.ok_or_else(|| Problem::Page(WebResponse::see_other("/admin")))?;
        if form.is_foreign() || form.field("csrf") != csrf {
            return Ok(self.text(403, "Request refused", "The form did not come from this page. Please try again."));
        }
        if verb == "archive" && form.field("confirmed") != "yes" {
            return self.confirm_archive(tenant, slug, form).await;
        }
        let tenantry = &self.0.tenantry;
        let result = match verb {
            "rotate" => {
                tenantry.rotate(slug).reason("admin page").await.map(|r| format!("has login {} now", r.generation))
            }
            "suspend" => tenantry.suspend(slug).reason("admin page").await.map(|_| String::from("is suspended")),
            "activate" => tenantry.activate(slug).await.map(|_| String::from("is active")),
            "archive" => tenantry.archive(slug).await.map(|_| String::from("is archived")),
            "restore" => tenantry.restore(slug).await.map(|_| String::from("is active")),
            _ => return Ok(self.text(404, "Nothing here", "There is no such action.")),
        };
        let message = match result {
            Ok(change) => (format!("{slug} {change}."), false),
            Err(error) => (format!("{slug}: {error}."), true),
        };
        self.admin_session(form, |session| session.message = Some(message));
        Ok(WebResponse::see_other("/admin"))
    }
}

fn verbs(status: TenantStatus) -> &'static [&'static str] {
    match status {
        TenantStatus::Active => &["rotate", "suspend", "archive"],
        TenantStatus::Suspended => &["activate", "archive"],
        TenantStatus::Archived => &["restore"],
        _ => &[],
    }
}
