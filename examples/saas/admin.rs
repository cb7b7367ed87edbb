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

impl App {
    /// The CSRF token of the operator's session, if the request has the operator's cookie.
    fn admin_csrf(&self, form: &FormRequest) -> Option<String> {
        let admin = self.0.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, csrf) = admin.as_ref()?;
        (form.cookie(COOKIE) == Some(value)).then(|| csrf.clone())
    }

    pub(crate) async fn admin(&self, tenant: Option<&Tenant>, form: &FormRequest) -> PageResult {
        if tenant.is_some() {
            return Ok(self.text(404, "Nothing here", "Tenants are administered on the bare host."));
        }
        match self.admin_csrf(form) {
            Some(csrf) => self.admin_page(200, &csrf, None).await,
            None => Ok(self.page(200, "admin_login.html", minijinja::context! {})?),
        }
    }

    pub(crate) fn admin_login(&self, tenant: Option<&Tenant>, form: &FormRequest) -> PageResult {
        let is_valid = !form.is_foreign() && tenant.is_none() && form.password() == self.0.admin_password;
        if !is_valid {
            let problem = "This is not the password that was printed when the program started.";
            return Ok(self.page(401, "admin_login.html", minijinja::context! { problem })?);
        }
        let value = random();
        *self.0.admin.lock().unwrap_or_else(PoisonError::into_inner) = Some((value.clone(), random()));
        Ok(WebResponse::see_other("/admin").header("set-cookie", cookie(COOKIE, &value, 3600)))
    }

    async fn admin_page(&self, status: u16, csrf: &str, message: Option<String>) -> PageResult {
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
        let context = minijinja::context! { rows, servers, retiring, csrf, message };
        Ok(self.page(status, "admin.html", context)?)
    }

    pub(crate) async fn admin_action(
        &self, tenant: Option<&Tenant>, slug: &str, verb: &str, form: &FormRequest,
    ) -> PageResult {
        let csrf = self.admin_csrf(form).filter(|_| tenant.is_none());
        let csrf = csrf.ok_or_else(|| Problem::Page(WebResponse::see_other("/admin")))?;
        if form.is_foreign() || form.field("csrf") != csrf {
            return Ok(self.text(403, "Request refused", "The form did not come from this page. Please try again."));
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
        let (status, message) = match result {
            Ok(change) => (200, format!("{slug} {change}.")),
            Err(error) => (if error.retry_after().is_some() { 503 } else { 409 }, format!("{slug}: {error}.")),
        };
        self.admin_page(status, &csrf, Some(message)).await
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
