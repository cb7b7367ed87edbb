//! A request of the setup routes, as both adapters describe it to [`SetupRoutes::handle`].
//!
//! The adapters register [`LINK_PATH`] and [`STYLE_PATH`](super::STYLE_PATH) for every method, and name the path of a
//! request by a [`SetupTarget`].
//!
//! Invariant: nothing here depends on the framework, and nothing waits.
use super::SetupRoutes;
use crate::web::RequestView;
use std::net::IpAddr;

/// Path of both links. axum and actix-web have the same syntax for its parameters.
pub(in crate::web) const LINK_PATH: &str = "/setup/{purpose}/{token}";

/// What the path of a request names.
pub(in crate::web) enum SetupTarget {
    /// The style sheet of the built-in pages.
    StyleSheet,
    /// A link, with the parameters of [`LINK_PATH`] in decoded form.
    Link { purpose: String, token: String },
}

/// The method of a request, as far as the routes distinguish it.
pub(super) enum Method {
    /// GET, or HEAD: the framework leaves out the body of its response.
    Get,
    Post,
    Other,
}

/// A request without its body.
pub(in crate::web) struct SetupHead {
    pub(super) target: SetupTarget,
    pub(super) method: Method,
    /// Address of the client, if it is known. `None` for the style sheet.
    pub(super) client: Option<IpAddr>,
}

/// Why a posted form was not received.
#[derive(Clone, Copy)]
pub(in crate::web) enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off or is not valid HTTP.
    Broken,
    /// It did not arrive in time.
    Timeout,
}

impl BodyError {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Broken => 400,
            Self::Timeout => 408,
        }
    }
}

impl SetupRoutes {
    /// Reads what [`handle`](Self::handle) needs of a request. It is a call of its own because a [`RequestView`] cannot
    /// be kept while a future waits.
    pub(in crate::web) fn read_head(&self, target: SetupTarget, request: &RequestView<'_>) -> SetupHead {
        let method = match request.method() {
            "GET" | "HEAD" => Method::Get,
            "POST" => Method::Post,
            _ => Method::Other,
        };
        let client = match target {
            SetupTarget::Link { .. } => (self.0.client)(request),
            SetupTarget::StyleSheet => None,
        };
        SetupHead { target, method, client }
    }
}
