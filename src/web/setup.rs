//! [`SetupRoutes`]: the HTTP side of both setup links, independent of the framework.
//!
//! `axum.rs` and `actix.rs` register the routes and call [`SetupRoutes::show`] for a GET and [`SetupRoutes::submit`]
//! for a POST. The facade does the work of a link.
//!
//! Invariants:
//! - A GET consumes nothing, so mail scanners and link previews do no harm. A POST does the work once.
//! - The page for a link that is not valid is the same whatever the reason.
//! - Every page is sent with headers that keep it out of caches, frames and referrers.
use super::{RequestView, WebResponse, html};
use crate::Tenantry;
use crate::setup_link::{RateLimiter, SetupLinkError};
use crate::store::tokens::{IssuedToken, TokenEventKind, TokenPurpose};
use crate::tenant::{Tenant, TenantId};
use secrecy::SecretString;
use std::net::IpAddr;
use std::{fmt, sync::Arc, time::Duration};
use zeroize::Zeroize;

/// Maximum size of a posted form, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024;
/// Maximum time to receive a posted form.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

type RenderPage = dyn Fn(&SetupPage<'_>) -> String + Send + Sync;
type ClientAddress = dyn Fn(&RequestView<'_>) -> Option<IpAddr> + Send + Sync;

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
    /// The page for a link that is not valid: unknown, expired, used, revoked or mistyped.
    Gone,
    /// The page for a request that has to be repeated later: too many attempts, or the landlord is unreachable.
    #[non_exhaustive]
    Later {
        /// Seconds until the next attempt may succeed.
        wait: u64,
    },
}

/// The routes of both setup links. Mount them with `.merge(..)` in axum and `.service(..)` in actix-web. The token
/// alone identifies the tenant, so mount them outside [`TenantLayer`](super::TenantLayer).
///
/// `GET` and `POST /setup/credentials/{token}`, `GET` and `POST /setup/password/{token}`, and `GET /setup/style.css`.
///
/// # Access logs
/// The token is part of the path, so a log of paths contains tokens. Log the route, `/setup/{purpose}/{token}`,
/// instead, or leave out paths below `/setup/`.
/// - axum with tower-http: by default the span of `TraceLayer` contains the whole URI. Give it a `make_span_with` that
///   reads axum's `MatchedPath` from the request's extensions. Or merge these routes after `.layer(TraceLayer::…)`,
///   because a layer covers only the routes that were added before it.
/// - actix-web: the default format of `middleware::Logger` contains `%r`, the request line. Give it
///   `.exclude_regex("^/setup/")`, or wrap only the scope of your other routes.
/// - A proxy in front of the program needs the same, for example nginx: `access_log off` in `location /setup/`.
///
/// [`Tokens::events`](crate::facade::Tokens::events) lists the uses of each link and the client's address, without
/// tokens.
#[derive(Clone)]
pub struct SetupRoutes(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    tenantry: Tenantry,
    pages: Arc<RenderPage>,
    client: Arc<ClientAddress>,
    next: String,
    by_client: Arc<RateLimiter<IpAddr>>,
    by_tenant: Arc<RateLimiter<TenantId>>,
}

/// Attempts that each client address, and the links of each tenant, have within [`WINDOW`].
const MAX_ATTEMPTS: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// `Retry-After` of a response when the landlord is unreachable or the link is in use.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl SetupRoutes {
    /// Creates the routes with the built-in pages. Each client address and each tenant has 60 attempts per minute; each
    /// node counts for itself. After a password is set, the page leads to `/login`.
    pub fn new(tenantry: &Tenantry) -> Self {
        Self(Arc::new(Inner {
            tenantry: tenantry.clone(),
            pages: Arc::new(html::render_page),
            client: Arc::new(|request| request.peer()),
            next: String::from("/login"),
            by_client: Arc::new(RateLimiter::new(MAX_ATTEMPTS, WINDOW)),
            by_tenant: Arc::new(RateLimiter::new(MAX_ATTEMPTS, WINDOW)),
        }))
    }
    fn modify(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }
    /// Replaces the built-in pages: the function returns the HTML of a page. It must escape the texts that it inserts.
    /// The content security policy allows style sheets and images only from the same origin, and no scripts.
    pub fn pages(self, pages: impl Fn(&SetupPage<'_>) -> String + Send + Sync + 'static) -> Self {
        self.modify(|inner| inner.pages = Arc::new(pages))
    }
    /// Path on the same host to which the page leads when the password is set; `/login` by default.
    pub fn next(self, path: impl Into<String>) -> Self {
        self.modify(|inner| inner.next = path.into())
    }
    /// Maximum attempts per minute of each client address, and at the links of each tenant; 60 by default.
    pub fn attempts(self, max_attempts: u32) -> Self {
        self.modify(|inner| {
            inner.by_client = Arc::new(RateLimiter::new(max_attempts, WINDOW));
            inner.by_tenant = Arc::new(RateLimiter::new(max_attempts, WINDOW));
        })
    }
    /// Reads the client's address from a request; by default it is the peer of the connection. Behind a proxy, read it
    /// from a header that the proxy sets itself: otherwise a client could choose its address and avoid the rate limit.
    pub fn client_address(self, client: impl Fn(&RequestView<'_>) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.modify(|inner| inner.client = Arc::new(client))
    }

    pub(super) fn client(&self, request: &RequestView<'_>) -> Option<IpAddr> {
        (self.0.client)(request)
    }

    /// Serves a GET: the page of a valid link.
    pub(super) async fn show(&self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>) -> WebResponse {
        match self.admit(purpose, token, client).await {
            Ok((tenant, issued)) => {
                self.0.tenantry.note_link(token, Some(TokenEventKind::Shown), client);
                self.form_page(purpose, &tenant, &issued, token, 200, None)
            }
            Err(page) => page,
        }
    }

    /// Serves a POST: follows the link. `body` is `Err` with an HTTP status if the form was too large, broke off or did
    /// not arrive in time.
    pub(super) async fn submit(
        &self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>, body: Result<&[u8], u16>,
    ) -> WebResponse {
        if let Err(400) = body {
            // Respond without any await: after a body that it cannot parse, actix-web does not wait for the handler.
            return self.page(400, &SetupPage::Later { wait: 1 });
        }
        let (tenant, issued) = match self.admit(purpose, token, client).await {
            Ok(found) => found,
            Err(page) => return page,
        };
        let body = match body {
            Ok(body) => body,
            Err(status) => {
                let problem = "The form was too large or did not arrive completely. Please try again.";
                return self.form_page(purpose, &tenant, &issued, token, status, Some(problem));
            }
        };
        let result = if *purpose == TokenPurpose::password() {
            let password = parse_password(body);
            let result = self.0.tenantry.follow_password_link(token, &password).await;
            result.map(|tenant| self.page(200, &SetupPage::Done { tenant: &tenant, next: &self.0.next }))
        } else {
            let result = self.0.tenantry.follow_credentials_link(token).await;
            result.map(|link| with_security_headers(WebResponse::see_other(link.expose_path())))
        };
        match result {
            Ok(page) => {
                self.0.tenantry.note_link(token, Some(TokenEventKind::Followed), client);
                page
            }
            Err(SetupLinkError::Password(error)) => {
                self.form_page(purpose, &tenant, &issued, token, 422, Some(&to_sentence(&error.to_string())))
            }
            Err(error) => self.failure_page(purpose, (&tenant, &issued, token), &error),
        }
    }

    /// The page for an operation that was refused or has failed.
    fn failure_page(
        &self, purpose: &TokenPurpose, (tenant, issued, token): (&Tenant, &IssuedToken, &str), error: &SetupLinkError,
    ) -> WebResponse {
        match error {
            SetupLinkError::NotValid => self.not_valid_page(),
            SetupLinkError::InUse { operation } => {
                tracing::warn!(%operation, "refused a password link that another request is using");
                let problem = "Another request is using this link with another password. \
                    Please wait a few seconds and try again.";
                let page = self.form_page(purpose, tenant, issued, token, 409, Some(problem));
                page.header("retry-after", RETRY_AFTER.as_secs().to_string())
            }
            SetupLinkError::Failed(failure) => {
                let (operation, error) = (failure.operation, crate::error::chain(error));
                tracing::error!(%operation, %error, "the operation of a setup link failed");
                let problem = format!("This did not work. Please try again. The reference is {operation}.");
                self.form_page(purpose, tenant, issued, token, 503, Some(&problem))
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
    fn try_later_page(&self, status: u16, wait: Duration) -> WebResponse {
        let wait = wait.as_secs().max(1);
        self.page(status, &SetupPage::Later { wait }).header("retry-after", wait.to_string())
    }

    /// Counts the attempt and finds the link and its tenant. `Err` is the page for a link that is not valid or a client
    /// that has made too many attempts.
    async fn admit(
        &self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>,
    ) -> Result<(Tenant, IssuedToken), WebResponse> {
        if let Some(Err(wait)) = client.map(|client| self.0.by_client.attempt(client)) {
            return Err(self.try_later_page(429, wait));
        }
        let is_built_in = *purpose == TokenPurpose::credentials() || *purpose == TokenPurpose::password();
        let unavailable = |error| {
            tracing::warn!(%error, "could not look up a setup link in the landlord; the user is asked to try again");
            self.try_later_page(503, RETRY_AFTER)
        };
        let issued = self.0.tenantry.tokens().look_up(purpose, token).await.map_err(unavailable)?;
        let Some(issued) = issued.filter(|_| is_built_in) else {
            self.0.tenantry.note_link(token, None, client);
            return Err(self.not_valid_page());
        };
        if let Err(wait) = self.0.by_tenant.attempt(issued.tenant) {
            return Err(self.try_later_page(429, wait));
        }
        let tenant = self.0.tenantry.registry().find(issued.tenant.into()).await.map_err(unavailable)?;
        tenant.map(|tenant| (tenant, issued)).ok_or_else(|| self.not_valid_page())
    }

    /// The form of a valid link, with the reason why the previous POST failed.
    fn form_page(
        &self, purpose: &TokenPurpose, tenant: &Tenant, issued: &IssuedToken, token: &str, status: u16,
        problem: Option<&str>,
    ) -> WebResponse {
        let action = &format!("/setup/{}/{token}", purpose.as_str());
        let page = if *purpose == TokenPurpose::password() {
            SetupPage::Password { tenant, email: &issued.email, action, problem }
        } else {
            SetupPage::Credentials { tenant, action, problem }
        };
        self.page(status, &page)
    }

    fn page(&self, status: u16, page: &SetupPage<'_>) -> WebResponse {
        with_security_headers(WebResponse::html(status, (self.0.pages)(page)))
    }
}

/// Adds the headers that keep a page out of caches, frames, search engines and the referrers that other sites log, and
/// that forbid scripts in it.
fn with_security_headers(page: WebResponse) -> WebResponse {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
        frame-ancestors 'none'; base-uri 'none'";
    page.header("cache-control", "no-store")
        .header("referrer-policy", "no-referrer")
        .header("x-frame-options", "DENY")
        .header("x-content-type-options", "nosniff")
        .header("x-robots-tag", "noindex")
        .header("content-security-policy", POLICY)
}

/// The style sheet of the built-in pages.
pub(super) fn style_sheet() -> WebResponse {
    WebResponse::of(200, "text/css; charset=utf-8", html::STYLE).header("cache-control", "public, max-age=3600")
}

/// The field `password` of a posted form. A missing field is an empty password, which the admin store refuses.
fn parse_password(body: &[u8]) -> SecretString {
    let found = form_urlencoded::parse(body).find(|(name, _)| name == "password");
    let mut text = found.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let password = SecretString::from(text.as_str());
    text.zeroize();
    password
}

/// Turns an error message into a sentence for a page.
fn to_sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| format!("{}{}.", first.to_uppercase(), chars.as_str())).unwrap_or_default()
}

impl fmt::Debug for SetupRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupRoutes(..)")
    }
}
