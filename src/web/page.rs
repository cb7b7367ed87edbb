//! [`WebResponse`]: an HTTP response that both frameworks can send.
//!
//! Rejections, the pages of the setup links and `TenantLayer::on_reject` produce it. `axum.rs` and `actix.rs` convert
//! it.
//!
//! Invariant: a header that is not valid HTTP never makes a response fail in axum; it is left out.

/// An HTTP response that axum and actix-web can both send.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebResponse {
    /// The HTTP status.
    pub status: u16,
    /// Names and values of the headers. axum leaves out a pair that is not valid HTTP.
    pub headers: Vec<(String, String)>,
    /// The body, UTF-8.
    pub body: String,
}

impl WebResponse {
    /// An HTML response. `body` is sent unchanged, so escape user input in it.
    pub fn html(status: u16, body: impl Into<String>) -> Self {
        Self::of(status, "text/html; charset=utf-8", body)
    }
    /// A plain-text response.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::of(status, "text/plain; charset=utf-8", body)
    }
    /// A redirect with status 303, which the browser follows with GET.
    pub fn see_other(location: impl Into<String>) -> Self {
        Self::text(303, "").header("location", location)
    }
    pub(super) fn of(status: u16, kind: &str, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("content-type".into(), kind.into())], body: body.into() }
    }
    /// Adds a header. Headers of the same name are kept.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
