//! The parts of a request that the handlers use, independent of the web framework, and the limits for requests.
use std::collections::HashMap;
use std::time::Duration;

/// Cookies and form fields of a request, and whether another site sent it.
pub(crate) struct FormRequest {
    cookies: String,
    /// Whether the browser's headers say that a page of another origin sent the request.
    foreign: bool,
    form: HashMap<String, String>,
}

/// Maximum size of a form, in bytes.
pub(crate) const FORM: usize = 64 * 1024;
/// Maximum time to receive a form.
pub(crate) const FORM_TIME: Duration = Duration::from_secs(10);
/// Maximum time to receive a request head. Without it, a client that connects and sends nothing would keep a connection
/// for ever.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(5);
/// Maximum time until a response begins.
pub(crate) const RESPONSE_TIME: Duration = Duration::from_secs(30);

impl FormRequest {
    /// Reads a request. `header` returns the value of a header, given its name in lower case.
    pub(crate) fn new<'a>(header: impl Fn(&'static str) -> Option<&'a str>, body: &[u8]) -> Self {
        let foreign = match (header("origin"), header("host")) {
            (Some(origin), host) => origin.split_once("://").map(|(_, at)| at) != host,
            (None, _) => header("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none"),
        };
        let pairs = form_urlencoded::parse(body);
        let form = pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Self { cookies: header("cookie").unwrap_or_default().into(), foreign, form }
    }
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }
    /// Value of a form field, trimmed; empty if the field is missing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.form.get(name).map(|value| value.trim()).unwrap_or_default()
    }
    /// Value of the field `password`, not trimmed: spaces at its ends are part of the password, and the page of the
    /// setup link keeps them too.
    pub(crate) fn password(&self) -> &str {
        self.form.get("password").map(String::as_str).unwrap_or_default()
    }
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}
