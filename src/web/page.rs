/// An answer that both frameworks can give.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebResponse {
    /// The HTTP status.
    pub status: u16,
    /// Name and value. One that is no header is left out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl WebResponse {
    /// HTML, as it is: escape what is not yours.
    pub fn html(status: u16, body: impl Into<String>) -> Self {
        Self::of(status, "text/html; charset=utf-8", body)
    }
    /// Plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::of(status, "text/plain; charset=utf-8", body)
    }
    /// 303: the answer is there, to be got.
    pub fn see_other(location: impl Into<String>) -> Self {
        Self::text(303, "").header("location", location)
    }
    pub(super) fn of(status: u16, kind: &str, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("content-type".into(), kind.into())], body: body.into() }
    }
    /// One more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
