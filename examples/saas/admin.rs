//! What the operator sees and does, on the bare host.
use super::session::{cookie, random};
use super::{Answer, App, Problem, Seen};
use std::sync::PoisonError;
use tenantry::registry::TenantRegistryExt;
use tenantry::tenant::TenantStatus;
use tenantry::web::WebResponse;
use tenantry::{Tenant, TenantRef};

const COOKIE: &str = "admin";

impl App {
    /// The token against forged forms, if this is the administrator.
    fn admin_csrf(&self, seen: &Seen) -> Option<String> {
        let admin = self.0.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, csrf) = admin.as_ref()?;
        (seen.cookie(COOKIE) == Some(value)).then(|| csrf.clone())
    }

    pub(crate) async fn admin(&self, tenant: Option<&Tenant>, seen: &Seen) -> Answer {
        if tenant.is_some() {
            return Ok(self.text(404, "Nothing here", "Tenants are administered on the bare host."));
        }
        match self.admin_csrf(seen) {
            Some(csrf) => self.admin_page(200, &csrf, None).await,
            None => Ok(self.page(200, "admin_login.html", minijinja::context! {})?),
        }
    }

    pub(crate) fn admin_login(&self, tenant: Option<&Tenant>, seen: &Seen) -> Answer {
        let right = !seen.is_foreign() && tenant.is_none() && seen.password() == self.0.admin_password;
        if !right {
            let problem = "This is not the password that was printed at the start.";
            return Ok(self.page(401, "admin_login.html", minijinja::context! { problem })?);
        }
        let value = random();
        *self.0.admin.lock().unwrap_or_else(PoisonError::into_inner) = Some((value.clone(), random()));
        Ok(WebResponse::see_other("/admin").header("set-cookie", cookie(COOKIE, &value, 3600)))
    }

    async fn admin_page(&self, status: u16, csrf: &str, said: Option<String>) -> Answer {
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
        let context = minijinja::context! { rows, servers, retiring, csrf, said };
        Ok(self.page(status, "admin.html", context)?)
    }

    pub(crate) async fn admin_act(&self, tenant: Option<&Tenant>, slug: &str, verb: &str, seen: &Seen) -> Answer {
        let csrf = self.admin_csrf(seen).filter(|_| tenant.is_none());
        let csrf = csrf.ok_or_else(|| Problem::Page(WebResponse::see_other("/admin")))?;
        if seen.is_foreign() || seen.field("csrf") != csrf {
            return Ok(self.text(403, "Not this way", "The form did not come from this page. Please try again."));
        }
        let tenantry = &self.0.tenantry;
        let done = match verb {
            "rotate" => {
                tenantry.rotate(slug).reason("admin page").await.map(|r| format!("has login {} now", r.generation))
            }
            "suspend" => tenantry.suspend(slug).reason("admin page").await.map(|_| String::from("is suspended")),
            "activate" => tenantry.activate(slug).await.map(|_| String::from("is active")),
            "archive" => tenantry.archive(slug).await.map(|_| String::from("is archived")),
            "restore" => tenantry.restore(slug).await.map(|_| String::from("is active")),
            _ => return Ok(self.text(404, "Nothing here", "There is no such verb.")),
        };
        let (status, said) = match done {
            Ok(what) => (200, format!("{slug} {what}.")),
            Err(error) => (if error.retry_after().is_some() { 503 } else { 409 }, format!("{slug}: {error}.")),
        };
        self.admin_page(status, &csrf, Some(said)).await
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
