//! Which test server the environment asks for: its variables, and the order in which the backends are tried.
use std::path::PathBuf;

use super::NoServer;

/// Environment variable with the URL of a superuser on the server that tests use.
pub const DATABASE_URL: &str = "TENANTRY_TEST_DATABASE_URL";
/// Environment variable that examples read instead of [`DATABASE_URL`].
pub const EXAMPLE_DATABASE_URL: &str = "TENANTRY_DATABASE_URL";
/// Environment variable that forces one backend: `url`, `container` or `local`.
pub const BACKEND: &str = "TENANTRY_TEST_BACKEND";
/// Environment variable with the container image to run. Default: `tenantry-postgres:17` if it exists, else
/// `postgres:17`.
pub const IMAGE: &str = "TENANTRY_TEST_IMAGE";
/// Environment variable with the directory that contains `initdb` and `postgres`.
pub const PG_BIN: &str = "TENANTRY_TEST_PG_BIN";
/// Environment variable with the locale of the server's messages, for example `de_DE.UTF-8`. It must not be English.
pub const LC_MESSAGES: &str = "TENANTRY_TEST_LC_MESSAGES";

/// The values of the environment variables. An empty variable counts as unset.
pub(super) struct Environment {
    pub(super) url_variable: &'static str,
    pub(super) url: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) image: Option<String>,
    pub(super) pg_bin: Option<PathBuf>,
    pub(super) lc_messages: Option<String>,
}

/// The backend to use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Url(String),
    Container,
    Local,
    ContainerElseLocal,
}

impl Environment {
    pub(super) fn read(url_variable: &'static str) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            url_variable,
            url: variable(url_variable),
            backend: variable(BACKEND),
            image: variable(IMAGE),
            pg_bin: variable(PG_BIN).map(PathBuf::from),
            lc_messages: variable(LC_MESSAGES),
        }
    }

    /// Chooses the backend. A forced backend is the only one; otherwise a URL is preferred.
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
        Environment { url_variable: DATABASE_URL, url, backend, image: None, pg_bin: None, lc_messages: None }.choose()
    }

    #[test]
    fn url_is_preferred_and_an_empty_environment_means_container_else_local() {
        assert_eq!(choose(None, Some("u")).unwrap(), Choice::Url("u".to_owned()));
        assert_eq!(choose(None, None).unwrap(), Choice::ContainerElseLocal);
    }

    #[test]
    fn forced_backend_is_chosen_even_if_a_url_is_set() {
        assert_eq!(choose(Some("container"), Some("u")).unwrap(), Choice::Container);
        assert_eq!(choose(Some("local"), Some("u")).unwrap(), Choice::Local);
        assert!(matches!(choose(Some("url"), None), Err(NoServer::UrlMissing { .. })));
    }

    #[test]
    fn unknown_backend_is_an_error_that_names_the_value_and_the_variable() {
        let error = choose(Some("docker"), None).unwrap_err().to_string();
        assert!(
            error.contains("docker") && error.contains(BACKEND),
            "the error lacks the value or the variable: {error}"
        );
    }
}
