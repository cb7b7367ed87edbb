//! The pages of the setup links, if the host has none of its own.
use super::SetupPage;
use std::fmt::Write;

/// Where the default pages' look is.
pub(super) const STYLE_PATH: &str = "/setup/style.css";

pub(super) const STYLE: &str = include_str!("setup.css");

/// Text in place of markup.
fn escaped(text: &str) -> String {
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

pub(super) fn page(page: &SetupPage<'_>) -> String {
    let (title, body) = match page {
        SetupPage::Credentials { tenant, action, problem } => (
            format!("Set up {}", tenant.name()),
            format!(
                "<p>You are about to finish the set-up. This link works once.</p>{}\
                 <form method=\"post\" action=\"{}\"><button>Go on</button></form>",
                said(*problem),
                escaped(action)
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
                said(*problem),
                escaped(action),
                escaped(email)
            ),
        ),
        SetupPage::Done { next, .. } => (
            String::from("Your password is set"),
            format!("<p><a class=\"button\" href=\"{}\">Log in</a></p>", escaped(next)),
        ),
        SetupPage::Gone => (
            String::from("This link is not valid"),
            String::from("<p>It may have been used already, or have expired. Ask for a new one.</p>"),
        ),
        SetupPage::Later { wait } => {
            (String::from("Please try again"), format!("<p>This is possible again in {wait} seconds.</p>"))
        }
    };
    whole(&title, &body)
}

fn said(problem: Option<&str>) -> String {
    problem.map(|text| format!("<p class=\"problem\" role=\"alert\">{}</p>", escaped(text))).unwrap_or_default()
}

fn whole(title: &str, body: &str) -> String {
    let (title, mut html) = (escaped(title), String::new());
    // Writing to a String does not fail.
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
    fn a_name_is_text_and_no_markup() {
        let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Active);
        let tenant = tenant.with_name("<script>alert('x')</script>");
        let html = page(&SetupPage::Credentials { tenant: &tenant, action: "/setup/\"x", problem: Some("<b>") });
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("/setup/\"x"), "{html}");
    }
}
