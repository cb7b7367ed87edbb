//! The two setup links. A GET shows a page and consumes nothing; a POST does the work, once.
use super::{RequestView, WebResponse, html};
use crate::Tenantry;
use crate::setup_link::{RateLimiter, SetupLinkError};
use crate::store::tokens::{IssuedToken, TokenEventKind, TokenPurpose};
use crate::tenant::{Tenant, TenantId};
use secrecy::SecretString;
use std::net::IpAddr;
use std::{fmt, sync::Arc, time::Duration};
use zeroize::Zeroize;

/// Most bytes of a posted form.
pub(super) const BODY: usize = 16 * 1024;
/// How long it may take to come.
pub(super) const BODY_TIME: Duration = Duration::from_secs(10);

type Pages = dyn Fn(&SetupPage<'_>) -> String + Send + Sync;
type Client = dyn Fn(&RequestView<'_>) -> Option<IpAddr> + Send + Sync;

/// What a page of the links shows.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupPage<'a> {
    /// One button, which posts an empty form to `action`.
    #[non_exhaustive]
    Credentials {
        /// Whose.
        tenant: &'a Tenant,
        /// The link itself.
        action: &'a str,
        /// Why the last try did not succeed; the link is as good as before.
        problem: Option<&'a str>,
    },
    /// A form that posts `password` to `action`.
    #[non_exhaustive]
    Password {
        /// Whose.
        tenant: &'a Tenant,
        /// Whose password.
        email: &'a str,
        /// The link itself.
        action: &'a str,
        /// Why the last one was not taken.
        problem: Option<&'a str>,
    },
    /// The password is set.
    #[non_exhaustive]
    Done {
        /// Whose.
        tenant: &'a Tenant,
        /// Where to log in.
        next: &'a str,
    },
    /// Unknown, expired, used, revoked, mistyped: one page for all of them.
    Gone,
    /// Too many attempts, or something does not answer.
    #[non_exhaustive]
    Later {
        /// Seconds.
        wait: u64,
    },
}

/// The two setup links, ready to mount: axum by `.merge(..)`, actix-web by `.service(..)`. They find their tenant by the token
/// alone, so mount them outside [`TenantLayer`](super::TenantLayer).
///
/// `GET` and `POST /setup/credentials/{token}`, `GET` and `POST /setup/password/{token}`, and `GET /setup/style.css`.
///
/// # Access logs
/// The token stands in the path, so whatever writes paths down writes tokens down: log the route, `/setup/{purpose}/{token}`,
/// or cut what is below `/setup/` off.
/// - axum with tower-http: the span of `TraceLayer` holds the whole URI by default. Give it a `make_span_with` that takes
///   axum's `MatchedPath` from the request's extensions, or merge these routes after `.layer(TraceLayer::…)`: a layer covers
///   only the routes that were there before it.
/// - actix-web: the default format of `middleware::Logger` has `%r`, the request line. Give it
///   `.exclude_regex("^/setup/")`, or wrap the scope of your other routes alone.
/// - what stands before the program (nginx, a balancer): the same once more, `access_log off` in `location /setup/`.
///
/// [`Tokens::events`](crate::facade::Tokens::events) tells who came with which link, without any token.
#[derive(Clone)]
pub struct SetupRoutes(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    tenantry: Tenantry,
    pages: Arc<Pages>,
    client: Arc<Client>,
    next: String,
    by_client: Arc<RateLimiter<IpAddr>>,
    by_tenant: Arc<RateLimiter<TenantId>>,
}

/// Attempts of one client, and at one tenant's links, in a minute.
const ATTEMPTS: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// After what time a post that could not be served is worth another try.
const RETRY: Duration = Duration::from_secs(5);

impl SetupRoutes {
    /// With pages of the library's own, 60 attempts a minute for each client address and for each tenant (in this process:
    /// each node counts for itself), and `/login` to go on to.
    pub fn new(tenantry: &Tenantry) -> Self {
        Self(Arc::new(Inner {
            tenantry: tenantry.clone(),
            pages: Arc::new(html::page),
            client: Arc::new(|request| request.peer()),
            next: String::from("/login"),
            by_client: Arc::new(RateLimiter::new(ATTEMPTS, WINDOW)),
            by_tenant: Arc::new(RateLimiter::new(ATTEMPTS, WINDOW)),
        }))
    }
    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }
    /// The host's own look. Escape what is not yours; a style sheet must come from the same origin. The headers stay the
    /// library's.
    pub fn pages(self, pages: impl Fn(&SetupPage<'_>) -> String + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.pages = Arc::new(pages))
    }
    /// Where to go on when the password is set, on the same host; `/login` by default.
    pub fn next(self, path: impl Into<String>) -> Self {
        self.change(|inner| inner.next = path.into())
    }
    /// Most attempts a minute, of each client address and at each tenant's links.
    pub fn attempts(self, most: u32) -> Self {
        self.change(|inner| {
            inner.by_client = Arc::new(RateLimiter::new(most, WINDOW));
            inner.by_tenant = Arc::new(RateLimiter::new(most, WINDOW));
        })
    }
    /// Who asks, behind a proxy: from a header that the proxy sets itself. By default the other end of the connection.
    pub fn client_address(self, client: impl Fn(&RequestView<'_>) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.client = Arc::new(client))
    }

    pub(super) fn client(&self, request: &RequestView<'_>) -> Option<IpAddr> {
        (self.0.client)(request)
    }

    /// What a GET answers.
    pub(super) async fn show(&self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>) -> WebResponse {
        match self.admitted(purpose, token, client).await {
            Ok((tenant, issued)) => {
                self.0.tenantry.note_link(token, Some(TokenEventKind::Shown), client);
                self.form(purpose, &tenant, &issued, token, 200, None)
            }
            Err(page) => page,
        }
    }

    /// What a POST answers. `Err`: the status for a body that was too large, broke off, or did not come.
    pub(super) async fn act(
        &self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>, body: Result<&[u8], u16>,
    ) -> WebResponse {
        if let Err(400) = body {
            // Answered at once: actix-web waits for nobody once it has lost its way in a body.
            return self.page(400, &SetupPage::Later { wait: 1 });
        }
        let (tenant, issued) = match self.admitted(purpose, token, client).await {
            Ok(found) => found,
            Err(page) => return page,
        };
        let body = match body {
            Ok(body) => body,
            Err(status) => {
                let problem = "The form was too large, or did not arrive. Please try again.";
                return self.form(purpose, &tenant, &issued, token, status, Some(problem));
            }
        };
        let done = if *purpose == TokenPurpose::password() {
            let password = password(body);
            let set = self.0.tenantry.follow_password_link(token, &password).await;
            set.map(|tenant| self.page(200, &SetupPage::Done { tenant: &tenant, next: &self.0.next }))
        } else {
            let followed = self.0.tenantry.follow_credentials_link(token).await;
            followed.map(|form| shielded(WebResponse::see_other(form.expose_path())))
        };
        match done {
            Ok(page) => {
                self.0.tenantry.note_link(token, Some(TokenEventKind::Followed), client);
                page
            }
            Err(SetupLinkError::Password(error)) => {
                self.form(purpose, &tenant, &issued, token, 422, Some(&sentence(&error.to_string())))
            }
            Err(error) => self.failed(purpose, (&tenant, &issued, token), &error),
        }
    }

    fn failed(&self, purpose: &TokenPurpose, of: (&Tenant, &IssuedToken, &str), error: &SetupLinkError) -> WebResponse {
        let (tenant, issued, token) = of;
        match error {
            SetupLinkError::NotValid => self.gone(),
            SetupLinkError::InUse { operation } => {
                tracing::warn!(%operation, "a password link is used twice at once, with different passwords");
                let problem = "This link is being used at the moment, with another password. \
                    Please wait a few seconds and try again.";
                let page = self.form(purpose, tenant, issued, token, 409, Some(problem));
                page.header("retry-after", RETRY.as_secs().to_string())
            }
            SetupLinkError::Failed(failure) => {
                tracing::error!(operation = %failure.operation, error = %crate::error::chain(error), "a setup link failed");
                let problem = format!("This did not work. Please try again; the reference is {}.", failure.operation);
                self.form(purpose, tenant, issued, token, 503, Some(&problem))
            }
            error => {
                tracing::warn!(error = %crate::error::chain(error), "a setup link has to wait");
                self.later(503, RETRY)
            }
        }
    }

    /// One page for every text that is no good link.
    pub(super) fn gone(&self) -> WebResponse {
        self.page(404, &SetupPage::Gone)
    }

    fn later(&self, status: u16, wait: Duration) -> WebResponse {
        let wait = wait.as_secs().max(1);
        self.page(status, &SetupPage::Later { wait }).header("retry-after", wait.to_string())
    }

    async fn admitted(
        &self, purpose: &TokenPurpose, token: &str, client: Option<IpAddr>,
    ) -> Result<(Tenant, IssuedToken), WebResponse> {
        if let Some(Err(wait)) = client.map(|client| self.0.by_client.attempt(client)) {
            return Err(self.later(429, wait));
        }
        let known = *purpose == TokenPurpose::credentials() || *purpose == TokenPurpose::password();
        let unavailable = |error| {
            tracing::warn!(%error, "the landlord does not answer to a setup link");
            self.later(503, RETRY)
        };
        let issued = self.0.tenantry.tokens().look(purpose, token).await.map_err(unavailable)?;
        let Some(issued) = issued.filter(|_| known) else {
            self.0.tenantry.note_link(token, None, client);
            return Err(self.gone());
        };
        if let Err(wait) = self.0.by_tenant.attempt(issued.tenant) {
            return Err(self.later(429, wait));
        }
        let tenant = self.0.tenantry.registry().find(issued.tenant.into()).await.map_err(unavailable)?;
        tenant.map(|tenant| (tenant, issued)).ok_or_else(|| self.gone())
    }

    fn form(
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
        shielded(WebResponse::html(status, (self.0.pages)(page)))
    }
}

/// What keeps a link's page out of caches, frames, other sites' logs, and scripts.
fn shielded(page: WebResponse) -> WebResponse {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
        frame-ancestors 'none'; base-uri 'none'";
    page.header("cache-control", "no-store")
        .header("referrer-policy", "no-referrer")
        .header("x-frame-options", "DENY")
        .header("x-content-type-options", "nosniff")
        .header("x-robots-tag", "noindex")
        .header("content-security-policy", POLICY)
}

/// The look of the library's own pages.
pub(super) fn style() -> WebResponse {
    WebResponse::of(200, "text/css; charset=utf-8", html::STYLE).header("cache-control", "public, max-age=3600")
}

/// The field of the form; empty if it is not there.
fn password(body: &[u8]) -> SecretString {
    let found = form_urlencoded::parse(body).find(|(name, _)| name == "password");
    let mut text = found.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let password = SecretString::from(text.as_str());
    text.zeroize();
    password
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str())).unwrap_or_default()
}

impl fmt::Debug for SetupRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupRoutes(..)")
    }
}
