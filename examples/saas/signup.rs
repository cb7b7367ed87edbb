//! From a form to a tenant, with its progress on a page.
use super::{Answer, App, Problem, Seen};
use futures_util::{Stream, StreamExt};
use tenantry::OperationId;
use tenantry::Tenant;
use tenantry::error::{NameConflict, ProvisionError};
use tenantry::operation::{OperationState, OperationStatus};
use tenantry::web::WebResponse;

impl App {
    /// On the bare host the way in, on a tenant's host its notes.
    pub(crate) fn front(&self, tenant: Option<&Tenant>) -> Answer {
        match tenant {
            Some(_) => Ok(WebResponse::see_other("/notes")),
            None => self.signup_form(200, None, None),
        }
    }

    fn signup_form(&self, status: u16, seen: Option<&Seen>, problem: Option<String>) -> Answer {
        let field = |name| seen.map(|seen| seen.field(name).to_owned()).unwrap_or_default();
        let (company, slug, email) = (field("company"), field("slug"), field("email"));
        let (suffix, port) = (&self.0.suffix, self.0.port);
        Ok(self.page(status, "signup.html", minijinja::context! { company, slug, email, suffix, port, problem })?)
    }

    pub(crate) async fn signup(&self, seen: &Seen) -> Answer {
        let again = |status, problem: &str| self.signup_form(status, Some(seen), Some(problem.to_owned()));
        let (company, slug, email) = (seen.field("company"), seen.field("slug"), seen.field("email"));
        if seen.is_foreign() {
            return again(403, "The form did not come from this page. Please try again.");
        }
        if company.is_empty() || email.is_empty() {
            return again(422, "Please fill in all fields.");
        }
        let begun = self.0.tenantry.provision(slug.to_lowercase()).name(company).admin(email).start().await;
        match begun {
            Ok(id) => Ok(WebResponse::see_other(format!("/operations/{id}"))),
            Err(ProvisionError::SlugTaken { .. }) => again(409, "This address is taken."),
            Err(ProvisionError::Invalid { field, source, .. }) => {
                again(422, &format!("The {field} cannot be used: {source}."))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn state(&self, id: &str) -> Result<OperationState, Problem> {
        let gone = || Problem::Page(self.text(404, "Nothing here", "There is no such operation."));
        let id: OperationId = id.parse().map_err(|_| gone())?;
        self.0.tenantry.operations().get(id).await?.filter(|o| o.kind == "provision").ok_or_else(gone)
    }

    pub(crate) async fn operation(&self, id: &str) -> Answer {
        let state = self.state(id).await?;
        let tenant = match state.subject.tenant() {
            Some(id) => self.0.tenantry.registry().find(id.into()).await?,
            None => None,
        };
        let percent = 100 * state.done / state.total.max(1);
        let problem = match state.status {
            OperationStatus::Undone | OperationStatus::Undoing => Some(words(state.taken.as_ref())),
            _ => None,
        };
        let (mut origin, mut link) = (None, None);
        if let (Some(tenant), OperationStatus::Done) = (&tenant, state.status) {
            // In place of a mail.
            let undelivered = self.0.tenantry.tokens().undelivered(tenant.id()).await?;
            origin = Some(self.origin_of(tenant.slug().as_str()));
            link = undelivered.and_then(|link| Some(format!("{}{}", origin.as_deref()?, link.expose_path())));
        }
        let name = tenant.map(|tenant| tenant.name().to_owned());
        let (step, running) = (state.step, state.status == OperationStatus::Running);
        let context = minijinja::context! { id, name, step, percent, running, problem, link, origin };
        Ok(self.page(200, "operation.html", context)?)
    }

    /// Server-sent events: one line per step, and `end` when there is nothing to wait for.
    pub(crate) async fn events(
        &self, id: &str,
    ) -> Result<impl Stream<Item = Result<String, std::convert::Infallible>> + Send + 'static + use<>, Problem> {
        let state = self.state(id).await?;
        let events = self.0.tenantry.operations().events(state.id, 0);
        let lines = events.map(|event| match event {
            Ok(event) => {
                let percent = 100 * event.done / event.total.max(1);
                format!("data: {percent} {}\n\n", event.step)
            }
            // The page asks again.
            Err(_) => String::from(": the landlord does not answer\n\n"),
        });
        let end = futures_util::stream::once(async { String::from("event: end\ndata: .\n\n") });
        Ok(lines.chain(end).map(Ok))
    }
}

/// What a user may know of a failure.
fn words(taken: Option<&NameConflict>) -> String {
    match taken {
        Some(NameConflict::Slug(_)) => String::from("This address was taken a moment ago."),
        _ => String::from("It did not work, and nothing of it is left. Please try again."),
    }
}
