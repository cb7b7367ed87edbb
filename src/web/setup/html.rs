//! The built-in pages of the setup links, which an application can replace by `SetupRoutes::pages`.
//!
//! Invariants:
//! - Every text of a tenant or a user is escaped.
//! - The pages have no script and no inline style, because their content security policy forbids both.
use super::SetupPage;
use crate::web::WebResponse;
use std::fmt::Write;

/// Path of the built-in pages' style sheet.
pub(in crate::web) const STYLE_PATH: &str = "/setup/style.css";

const STYLE: &str = include_str!("setup.css");

/// The style sheet of the built-in pages.
pub(super) fn style_sheet() -> WebResponse {
    WebResponse::of(200, "text/css; charset=utf-8", STYLE).header("cache-control", "public, max-age=3600")
}

/// Escapes text for HTML, also within a quoted attribute.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Renders a page as a whole HTML document.
pub(super) fn render_page(page: &SetupPage<'_>) -> String {
    let (title, body) = match page {
        SetupPage::Credentials { tenant, action, problem } => (
            format!("Set up {}", tenant.name()),
            format!(
                "<p>Continue to choose a password. This link works once.</p>{}\
                 <form method=\"post\" action=\"{}\"><button>Continue</button></form>",
                problem_html(*problem),
                escape(action)
            ),
        ),
        SetupPage::Password { tenant, email, action, problem } => (
            format!("A password for {}", tenant.name()),
            format!(
                "{}<form method=\"post\" action=\"{}\">\
                 <label for=\"email\">E-mail</label>\
                 <input id=\"email\" type=\"email\" value=\"{}\" autocomplete=\"username\" readonly>\
                 <label for=\"password\">New password</label>\
                 <input id=\"password\" name=\"password\" type=\"password\" minlength=\"12\" required autofocus \
                 autocomplete=\"new-password\"><p class=\"hint\">At least 12 characters.</p>\
                 <button>Set the password</button></form>",
                problem_html(*problem),
                escape(action),
                escape(email)
            ),
        ),
        SetupPage::Done { next, .. } => (
            String::from("Your password is set"),
            format!("<p><a class=\"button\" href=\"{}\">Log in</a></p>", escape(next)),
        ),
        SetupPage::Gone => (
            String::from("This link is not valid"),
            String::from("<p>It may have been used already, or have expired. Ask for a new one.</p>"),
        ),
        SetupPage::Later { wait } => {
            (String::from("Please try again"), format!("<p>You can try again in {wait} seconds.</p>"))
        }
    };
    document_html(&title, &body)
}

fn problem_html(problem: Option<&str>) -> String {
    problem.map(|text| format!("<p class=\"problem\" role=\"alert\">{}</p>", escape(text))).unwrap_or_default()
}

fn document_html(title: &str, body: &str) -> String {
    let (title, mut html) = (escape(title), String::new());
    // Writing to a `String` cannot fail.
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <link rel=\"stylesheet\" href=\"{}\"></head><body><main><h1>{title}</h1>{body}</main></body></html>",
        STYLE_PATH
    );
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{Tenant, TenantId, TenantStatus};

    #[test]
    fn render_page_escapes_names_paths_and_problems() {
        let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Active);
        let tenant = tenant.with_name("<script>alert('x')</script>");
        let html = render_page(&SetupPage::Credentials { tenant: &tenant, action: "/setup/\"x", problem: Some("<b>") });
        assert!(
            !html.contains("<script") && !html.contains("<b>") && !html.contains("/setup/\"x"),
            "unescaped text in {html}"
        );
    }
}
