use std::path::PathBuf;

use super::NoServer;

/// Variable with the URL of a server for tests, of a superuser.
pub const DATABASE_URL: &str = "TENANTRY_TEST_DATABASE_URL";
/// What examples read in place of [`DATABASE_URL`].
pub const EXAMPLE_DATABASE_URL: &str = "TENANTRY_DATABASE_URL";
/// Variable that forces `url`, `container` or `local`.
pub const BACKEND: &str = "TENANTRY_TEST_BACKEND";
/// Variable with the container image to run.
pub const IMAGE: &str = "TENANTRY_TEST_IMAGE";
/// Variable with the directory of PostgreSQL's server binaries.
pub const PG_BIN: &str = "TENANTRY_TEST_PG_BIN";
/// Variable with the locale of the server's messages, `de_DE.UTF-8` say: one that is not English.
pub const LC_MESSAGES: &str = "TENANTRY_TEST_LC_MESSAGES";

/// What the environment asks for.
pub(super) struct Wishes {
    pub(super) url_variable: &'static str,
    pub(super) url: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) image: Option<String>,
    pub(super) pg_bin: Option<PathBuf>,
    pub(super) lc_messages: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Url(String),
    Container,
    Local,
    ContainerElseLocal,
}

impl Wishes {
    pub(super) fn from_env(url_variable: &'static str) -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            url_variable,
            url: read(url_variable),
            backend: read(BACKEND),
            image: read(IMAGE),
            pg_bin: read(PG_BIN).map(PathBuf::from),
            lc_messages: read(LC_MESSAGES),
        }
    }

    pub(super) fn choose(&self) -> Result<Choice, NoServer> {
        match (self.backend.as_deref(), self.url.clone()) {
            (None | Some("url"), Some(url)) => Ok(Choice::Url(url)),
            (None, None) => Ok(Choice::ContainerElseLocal),
            (Some("url"), None) => Err(NoServer::UrlMissing { variable: self.url_variable }),
            (Some("container"), _) => Ok(Choice::Container),
            (Some("local"), _) => Ok(Choice::Local),
            (Some(other), _) => Err(NoServer::UnknownBackend { value: other.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(backend: Option<&str>, url: Option<&str>) -> Result<Choice, NoServer> {
        let (backend, url) = (backend.map(str::to_owned), url.map(str::to_owned));
        Wishes { url_variable: DATABASE_URL, url, backend, image: None, pg_bin: None, lc_messages: None }.choose()
    }

    #[test]
    fn a_url_goes_first_and_nothing_given_means_container_else_local() {
        assert_eq!(choose(None, Some("u")).unwrap(), Choice::Url("u".to_owned()));
        assert_eq!(choose(None, None).unwrap(), Choice::ContainerElseLocal);
    }

    #[test]
    fn a_forced_backend_is_the_only_one_tried() {
        assert_eq!(choose(Some("container"), Some("u")).unwrap(), Choice::Container);
        assert_eq!(choose(Some("local"), Some("u")).unwrap(), Choice::Local);
        assert!(matches!(choose(Some("url"), None), Err(NoServer::UrlMissing { .. })));
    }

    #[test]
    fn a_misspelt_backend_is_refused_by_name() {
        let error = choose(Some("docker"), None).unwrap_err().to_string();
        assert!(error.contains("docker") && error.contains(BACKEND), "{error}");
    }
}
