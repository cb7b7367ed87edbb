//! [`SetupRoutes`]: the HTTP side of both setup links, independent of the framework.
//!
//! An application builds and mounts it. `axum.rs` and `actix.rs` describe each request by the types of `request.rs`.
//! `handler.rs` decides about the request, `pages.rs` builds the response, and `html.rs` renders the built-in pages.
//! The facade does the work of a link.
//!
//! Invariant: attempts are counted in the facade, so that all routes of one process count together.
use super::RequestView;
use crate::Tenantry;
use std::net::IpAddr;
use std::{fmt, sync::Arc, time::Duration};

mod handler;
mod html;
mod pages;
mod request;
pub(super) use html::STYLE_PATH;
pub use pages::SetupPage;
pub(super) use request::{BodyError, LINK_PATH, SetupTarget};

type RenderPage = dyn Fn(&SetupPage<'_>) -> String + Send + Sync;
type ClientAddress = dyn Fn(&RequestView<'_>) -> Option<IpAddr> + Send + Sync;

/// The routes of the two kinds of setup link: a *credentials link*, which replaces the tenant's database login and
/// leads to a password link, and a *password link*, by which a tenant admin sets a new password. Mount them with
/// `.merge(..)` in axum and `.service(..)` in actix-web. The token alone identifies the tenant, so mount them outside
/// [`TenantLayer`](super::TenantLayer).
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
    max_attempts: u32,
}

/// Attempts that each client address, and the links of each tenant, have in a minute.
const MAX_ATTEMPTS: u32 = 60;
/// `Retry-After` of a response when the landlord is unreachable or the link is in use.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl SetupRoutes {
    /// Creates the routes with the built-in pages. Each client address and each tenant has 60 attempts per minute. All
    /// routes of one [`Tenantry`], such as those of each worker of an actix-web server, count together; each node counts
    /// for itself. After a password is set, the page leads to `/login`.
    pub fn new(tenantry: &Tenantry) -> Self {
        Self(Arc::new(Inner {
            tenantry: tenantry.clone(),
            pages: Arc::new(html::render_page),
            client: Arc::new(|request| request.peer()),
            next: String::from("/login"),
            max_attempts: MAX_ATTEMPTS,
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
    /// Maximum requests (GET or POST) to links per minute: from each client address, whether or not the token is valid,
    /// and to the links of each tenant; 60 by default. A further request gets status 429.
    pub fn attempts(self, max_attempts: u32) -> Self {
        self.modify(|inner| inner.max_attempts = max_attempts)
    }
    /// Reads the client's address from a request; by default it is the peer of the connection. Behind a proxy, read it
    /// from a header that the proxy sets itself: otherwise a client could choose its address and avoid the rate limit.
    pub fn client_address(self, client: impl Fn(&RequestView<'_>) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.modify(|inner| inner.client = Arc::new(client))
    }
}

impl fmt::Debug for SetupRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupRoutes(..)")
    }
}
