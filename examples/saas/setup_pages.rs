//! The pages of the setup links, with the layout of all other pages.
use super::App;
use tenantry::web::SetupPage;

impl App {
    /// HTML of a page of a setup link.
    pub(super) fn setup_page(&self, page: &SetupPage<'_>) -> String {
        let context = match *page {
            SetupPage::Credentials { tenant, action, problem, .. } => {
                minijinja::context! { kind => "credentials", company => tenant.name(), action, problem }
            }
            SetupPage::Password { tenant, email, action, problem, .. } => {
                minijinja::context! { kind => "password", company => tenant.name(), email, action, problem }
            }
            SetupPage::Done { tenant, next, .. } => {
                minijinja::context! { kind => "done", company => tenant.name(), next }
            }
            SetupPage::Later { wait, .. } => minijinja::context! { kind => "later", seconds => wait },
            _ => minijinja::context! { kind => "gone" },
        };
        let page = self.0.pages.get_template("setup.html").and_then(|template| template.render(context));
        page.unwrap_or_else(|error| error.to_string())
    }
}
