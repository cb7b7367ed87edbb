//! The responses of the setup routes: pages, their status and their headers.
//!
//! `handler.rs` decides which page a request gets. [`SetupRoutes::pages`] can replace the HTML of each.
//!
//! Invariants:
//! - The page for a link that is not valid is the same whatever the reason.
//! - Every page is sent with headers that keep it out of caches, frames and referrers.
use super::{RETRY_AFTER, SetupRoutes};
use crate::setup_link::{FoundLink, SetupLinkError};
use crate::store::tokens::TokenPurpose;
use crate::tenant::Tenant;
use crate::web::WebResponse;
use std::time::Duration;

/// A page of the setup links, with the data that it shows. [`SetupRoutes::pages`] renders it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupPage<'a> {
    /// The page of a credentials link: one button that posts an empty form to `action`.
    #[non_exhaustive]
    Credentials {
        /// Tenant that is set up.
        tenant: &'a Tenant,
        /// Path of the link, to which the form is posted.
        action: &'a str,
        /// Text for the user: why the previous POST failed. The link is still valid.
        problem: Option<&'a str>,
    },
    /// The page of a password link: a form that posts the field `password` to `action`.
    #[non_exhaustive]
    Password {
        /// Tenant of the admin.
        tenant: &'a Tenant,
        /// E-mail address of the tenant admin whose password is set.
        email: &'a str,
        /// Path of the link, to which the form is posted.
        action: &'a str,
        /// Text for the user: why the previous password was not set. The link is still valid.
        problem: Option<&'a str>,
    },
    /// The page after a password was set.
    #[non_exhaustive]
    Done {
        /// Tenant of the admin.
        tenant: &'a Tenant,
        /// Path of the login page: see [`SetupRoutes::next`].
        next: &'a str,
    },
    /// The page for a link that is not valid: unknown, expired, used, revoked or mistyped. It is sent with status 404.
    Gone,
    /// The page for a request that has to be repeated later. It is sent with one of these statuses:
    ///
    /// - 429: the client or the tenant has made too many attempts.
    /// - 503: the landlord is unreachable, another operation of the tenant has not ended, the tenant is not active, or
    ///   [`Tenantry::close`](crate::Tenantry::close) was called in this process.
    /// - 400: the body of the request broke off or is not valid HTTP.
    #[non_exhaustive]
    Later {
        /// Seconds until the next attempt may succeed.
        wait: u64,
    },
}

impl SetupRoutes {
    /// The page for an operation that was refused or has failed.
    pub(super) fn failure_page(&self, link: &FoundLink<'_>, error: &SetupLinkError) -> WebResponse {
        match error {
            SetupLinkError::NotValid => self.not_valid_page(),
            SetupLinkError::Password(error) => self.form_page(link, 422, Some(&to_sentence(&error.to_string()))),
            SetupLinkError::InUse { operation } => {
                tracing::warn!(%operation, "refused a password link that another request is using");
                let problem = "Another request is using this link with another password. \
                    Please wait a few seconds and try again.";
                let page = self.form_page(link, 409, Some(problem));
                page.header("retry-after", RETRY_AFTER.as_secs().to_string())
            }
            SetupLinkError::Failed(failure) => {
                let (operation, error) = (failure.operation, crate::error::chain(error));
                tracing::error!(%operation, %error, "the operation of a setup link failed");
                let problem = format!("This did not work. Please try again. The reference is {operation}.");
                self.form_page(link, 503, Some(&problem))
            }
            error => {
                let error = crate::error::chain(error);
                tracing::warn!(%error, "a setup link could not be followed now; the user is asked to try again");
                self.try_later_page(503, RETRY_AFTER)
            }
        }
    }

    /// The page for a link that is not valid, the same for every reason.
    pub(super) fn not_valid_page(&self) -> WebResponse {
        self.page(404, &SetupPage::Gone)
    }

    /// The page that asks the user to try again after `wait`.
    pub(super) fn try_later_page(&self, status: u16, wait: Duration) -> WebResponse {
        let wait = wait.as_secs().max(1);
        self.page(status, &SetupPage::Later { wait }).header("retry-after", wait.to_string())
    }

    /// The form of a valid link, with the reason why the previous POST failed.
    pub(super) fn form_page(&self, link: &FoundLink<'_>, status: u16, problem: Option<&str>) -> WebResponse {
        let FoundLink { issued, tenant, text } = link;
        let action = &format!("/setup/{}/{text}", issued.purpose.as_str());
        let page = if issued.purpose == TokenPurpose::password() {
            SetupPage::Password { tenant, email: &issued.email, action, problem }
        } else {
            SetupPage::Credentials { tenant, action, problem }
        };
        self.page(status, &page)
    }

    /// A page as [`SetupRoutes::pages`] renders it.
    pub(super) fn page(&self, status: u16, page: &SetupPage<'_>) -> WebResponse {
        with_security_headers(WebResponse::html(status, (self.0.pages)(page)))
    }
}

/// The response to a method that a path does not have: no body, and the methods that the path has.
pub(super) fn method_not_allowed(allow: &str) -> WebResponse {
    WebResponse { status: 405, headers: vec![(String::from("allow"), String::from(allow))], body: String::new() }
}

/// Adds the headers that keep a page out of caches, frames, search engines and the referrers that other sites log, and
/// that forbid scripts in it.
pub(super) fn with_security_headers(page: WebResponse) -> WebResponse {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
        frame-ancestors 'none'; base-uri 'none'";
    page.header("cache-control", "no-store")
        .header("referrer-policy", "no-referrer")
        .header("x-frame-options", "DENY")
        .header("x-content-type-options", "nosniff")
        .header("x-robots-tag", "noindex")
        .header("content-security-policy", POLICY)
}

/// Turns an error message into a sentence for a page.
fn to_sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| format!("{}{}.", first.to_uppercase(), chars.as_str())).unwrap_or_default()
}
