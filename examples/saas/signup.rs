//! The sign-up: a form starts a provisioning, and a page shows its progress from server-sent events.
use super::{App, FormRequest, PageResult, Problem};
use futures_util::{Stream, StreamExt};
use tenantry::OperationId;
use tenantry::Tenant;
use tenantry::error::{NameConflict, ProvisionError};
use tenantry::operation::{OperationState, OperationStatus};
use tenantry::web::WebResponse;

impl App {
    /// The sign-up form on the bare host, and a redirect to the notes on a tenant's host.
    pub(crate) fn front(&self, tenant: Option<&Tenant>) -> PageResult {
        match tenant {
            Some(_) => Ok(WebResponse::see_other("/notes")),
            None => self.signup_form(200, None, None),
        }
    }

    fn signup_form(&self, status: u16, form: Option<&FormRequest>, problem: Option<String>) -> PageResult {
        let field = |name| form.map(|form| form.field(name).to_owned()).unwrap_or_default();
        let (company, slug, email) = (field("company"), field("slug"), field("email"));
        let (suffix, port) = (&self.0.suffix, self.0.port);
        Ok(self.page(status, "signup.html", minijinja::context! { company, slug, email, suffix, port, problem })?)
    }

    pub(crate) async fn signup(&self, form: &FormRequest) -> PageResult {
        let show_again = |status, problem: &str| self.signup_form(status, Some(form), Some(problem.to_owned()));
        let (company, slug, email) = (form.field("company"), form.field("slug"), form.field("email"));
        if form.is_foreign() {
            return show_again(403, "The form did not come from this page. Please try again.");
        }
        if company.is_empty() || email.is_empty() {
            return show_again(422, "Please fill in all fields.");
        }
        let started = self.0.tenantry.provision(slug.to_ascii_lowercase()).name(company).admin(email).start().await;
        match started {
            Ok(id) => Ok(WebResponse::see_other(format!("/operations/{id}"))),
            Err(ProvisionError::SlugTaken { .. }) => show_again(409, "This address is taken."),
            Err(ProvisionError::Invalid { field, source, .. }) => {
                show_again(422, &format!("The {field} cannot be used: {source}."))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The state of a provisioning. Other operations are not found, because every visitor can open this page.
    async fn find_operation(&self, id: &str) -> Result<OperationState, Problem> {
        let not_found = || Problem::Page(self.text(404, "Nothing here", "There is no such sign-up."));
        let id: OperationId = id.parse().map_err(|_| not_found())?;
        self.0.tenantry.operations().get(id).await?.filter(|o| o.kind == "provision").ok_or_else(not_found)
    }

    pub(crate) async fn operation(&self, id: &str) -> PageResult {
        let state = self.find_operation(id).await?;
        let tenant = match state.subject.tenant() {
            Some(id) => self.0.tenantry.registry().find(id.into()).await?,
            None => None,
        };
        let percent = 100 * state.done / state.total.max(1);
        let problem = match state.status {
            OperationStatus::Undone | OperationStatus::Undoing | OperationStatus::Abandoned => {
                Some(failure_text(state.taken.as_ref()))
            }
            _ => None,
        };
        let (mut origin, mut link) = (None, None);
        if let (Some(tenant), OperationStatus::Done) = (&tenant, state.status) {
            // This example sends no mail, so the page shows the setup link.
            let undelivered = self.0.tenantry.tokens().undelivered(tenant.id()).await?;
            origin = Some(self.origin_of(tenant.slug().as_str()));
            link = undelivered.and_then(|link| Some(format!("{}{}", origin.as_deref()?, link.expose_path())));
        }
        let name = tenant.map(|tenant| tenant.name().to_owned());
        let (step, running) = (state.step, state.status == OperationStatus::Running);
        let context = minijinja::context! { id, name, step, percent, running, problem, link, origin };
        Ok(self.page(200, "operation.html", context)?)
    }

    /// Server-sent events of a provisioning: one `data` line per step, then the event `end`.
    pub(crate) async fn events(
        &self, id: &str,
    ) -> Result<impl Stream<Item = Result<String, std::convert::Infallible>> + Send + 'static + use<>, Problem> {
        let state = self.find_operation(id).await?;
        let events = self.0.tenantry.operations().events(state.id, 0);
        let lines = events.map(|event| match event {
            Ok(event) => {
                let percent = 100 * event.done / event.total.max(1);
                format!("data: {percent} {}\n\n", event.step)
            }
            // A comment line, which browsers ignore. At the event `end` the page reloads and reads the state again.
            Err(_) => String::from(": the landlord does not answer\n\n"),
        });
        let end = futures_util::stream::once(async { String::from("event: end\ndata: .\n\n") });
        Ok(lines.chain(end).map(Ok))
    }
}

/// The text that a user sees if the sign-up failed. It does not reveal the error itself.
fn failure_text(taken: Option<&NameConflict>) -> String {
    match taken {
        Some(NameConflict::Slug(_)) => String::from("This address was taken a moment ago."),
        _ => String::from("The sign-up did not work and left nothing behind. Please try again."),
    }
}
