//! What both frameworks hand over of a request, beside the tenant.
use std::collections::HashMap;
use std::time::Duration;

/// A request without its framework.
pub(crate) struct Seen {
    cookies: String,
    /// Whether a browser says that another site's page has sent it.
    foreign: bool,
    form: HashMap<String, String>,
}

/// Most bytes of a form.
pub(crate) const FORM: usize = 64 * 1024;
/// How long it may take to come.
pub(crate) const FORM_TIME: Duration = Duration::from_secs(10);
/// How long what comes before it may take: else whoever connects and says nothing holds a connection for ever.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long until an answer begins, whatever it waits for.
pub(crate) const TIME: Duration = Duration::from_secs(30);

impl Seen {
    /// `header` finds a header's value by its name, in lower case.
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
    /// Without spaces at its ends.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.form.get(name).map(|value| value.trim()).unwrap_or_default()
    }
    /// Exactly as it was typed, as the form of the setup link takes it: spaces at its ends are part of a password.
    pub(crate) fn password(&self) -> &str {
        self.form.get("password").map(String::as_str).unwrap_or_default()
    }
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}
