//! The settings of a test server, and its start with one of the three backends.
use std::path::PathBuf;
use std::sync::OnceLock;

use super::choice::{Choice, DATABASE_URL, Environment};
use super::error::{ContainerError, LocalError, NoServer, PrepareError};
use super::kept::{KeptBackend, KeptData};
use super::running::Running;
use super::session::{self, Session};
use super::tls::Certificate;
use super::{TestServer, container, language, local, url};
use crate::connect::find_inherited_variable;

/// Builder of a [`TestServer`]. The defaults: `max_connections` 300, no `fsync`, no TLS.
#[derive(Clone)]
pub struct TestServerBuilder {
    url_variable: &'static str,
    settings: Vec<(String, String)>,
    durable: bool,
    local_only: bool,
    encoding: &'static str,
    certificate: Option<Certificate>,
    data: Option<PathBuf>,
}

impl TestServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            url_variable: DATABASE_URL,
            settings: Vec::new(),
            durable: false,
            local_only: false,
            encoding: "UTF8",
            certificate: None,
            data: None,
        }
    }

    /// Sets the environment variable that may contain the server's URL. Default: [`DATABASE_URL`]; examples use
    /// [`EXAMPLE_DATABASE_URL`](super::EXAMPLE_DATABASE_URL).
    pub fn url_variable(mut self, name: &'static str) -> Self {
        self.url_variable = name;
        self
    }

    /// Adds a setting of `postgresql.conf`. The last value of a name counts. With a server named by URL,
    /// [`start`](Self::start) fails.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Whether commits are flushed to disk (`fsync`). Default: false, because tests do not need it; benchmarks do. It
    /// has no effect on a server named by URL.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Serves TLS with this certificate and key. With a server named by URL, [`start`](Self::start) fails.
    pub fn tls(mut self, certificate_pem: impl Into<String>, key_pem: impl Into<String>) -> Self {
        self.certificate = Some(Certificate::new(certificate_pem.into(), key_pem.into()));
        self
    }

    /// Uses the machine's own binaries, whatever [`BACKEND`](super::BACKEND) is: for tests that call
    /// [`TestServer::crash`].
    pub fn local_only(mut self) -> Self {
        self.local_only = true;
        self
    }

    /// Uses the machine's own binaries, as [`local_only`](Self::local_only) does, and creates the cluster with this
    /// default encoding, for example `SQL_ASCII`, and the locale `C`.
    pub fn local_with_encoding(mut self, encoding: &'static str) -> Self {
        self.encoding = encoding;
        self.local_only()
    }

    /// Keeps the server's data in this directory, so that the next start with the same directory continues with it. The
    /// port can be another one then. Default: the data is removed with the server. One process at a time can use the
    /// directory; [`TestServer::remove`] removes it. With a server named by URL it stays empty.
    pub fn keep_data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// Finds or starts the server. If the future is dropped, a server that was started is removed.
    ///
    /// # Errors
    /// [`NoServer`] says what is missing and how to provide it.
    pub async fn start(self) -> Result<TestServer, NoServer> {
        if let Some(variable) = find_inherited_variable() {
            return Err(NoServer::Environment { variable });
        }
        let environment = Environment::read(self.url_variable);
        let running = self.start_backend(&environment).await?;
        let kind = running.kind.to_string();
        self.prepare(running, &environment).await.map_err(|source| NoServer::Setup { kind, source })
    }

    async fn start_backend(&self, environment: &Environment) -> Result<Running, NoServer> {
        let kept = self.data.as_deref().map(KeptData::open).transpose()?;
        let choice = if self.local_only { Choice::Local } else { environment.choose()? };
        let running = match (choice, kept.as_ref().and_then(KeptData::backend)) {
            (Choice::Url(url), _) if self.settings.is_empty() && self.certificate.is_none() => {
                url::find(environment.url_variable, &url).await
            }
            (Choice::Url(_), _) => Err(NoServer::UrlTakesNoSettings { variable: environment.url_variable }),
            (Choice::Container, _) | (Choice::ContainerElseLocal, Some(KeptBackend::Container)) => {
                self.start_container(environment, kept.as_ref()).await.map_err(NoServer::Container)
            }
            (Choice::Local, _) | (Choice::ContainerElseLocal, Some(KeptBackend::Local)) => {
                self.start_local(environment, kept.as_ref()).await.map_err(NoServer::Local)
            }
            (Choice::ContainerElseLocal, None) => self.start_container_else_local(environment, kept.as_ref()).await,
        };
        Ok(Running { kept, ..running? })
    }

    /// After a container could not be started, this process does not try it again: a pull that cannot succeed takes up
    /// to a minute.
    async fn start_container_else_local(
        &self, environment: &Environment, kept: Option<&KeptData>,
    ) -> Result<Running, NoServer> {
        static FAILED: OnceLock<ContainerError> = OnceLock::new();
        if FAILED.get().is_none() {
            match self.start_container(environment, kept).await {
                Ok(running) => return Ok(running),
                Err(error) => {
                    tracing::warn!(%error, "no PostgreSQL container could be started; trying the local binaries");
                    let _ = FAILED.set(error);
                }
            }
        }
        let started = self.start_local(environment, kept).await;
        started.map_err(|local| match FAILED.get() {
            Some(container) => {
                NoServer::NoneOfThree { variable: environment.url_variable, container: container.clone(), local }
            }
            None => NoServer::Local(local),
        })
    }

    async fn start_container(
        &self, environment: &Environment, kept: Option<&KeptData>,
    ) -> Result<Running, ContainerError> {
        container::start(environment.image.as_deref(), kept, &self.arguments(environment)).await
    }

    async fn start_local(&self, environment: &Environment, kept: Option<&KeptData>) -> Result<Running, LocalError> {
        local::start(environment.pg_bin.as_deref(), self.encoding, kept, &self.arguments(environment)).await
    }

    /// `-c name=value …` for the server's command line. PostgreSQL uses the last value of a name, so the caller's
    /// settings replace the defaults.
    fn arguments(&self, environment: &Environment) -> Vec<String> {
        let durability: &[_] = if self.durable {
            &[("recovery_init_sync_method", "syncfs")]
        } else {
            &[("fsync", "off"), ("full_page_writes", "off")]
        };
        let defaults = [("max_connections", "300")].iter().chain(durability);
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let language = environment.lc_messages.as_deref().map(|locale| ("lc_messages", locale));
        defaults
            .copied()
            .chain(settings)
            .chain(language)
            .flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")])
            .collect()
    }

    /// Installs the certificate, reads the version, and checks the language.
    async fn prepare(self, running: Running, environment: &Environment) -> Result<TestServer, PrepareError> {
        if let Some(certificate) = &self.certificate {
            certificate.install(&running.admin).await.map_err(PrepareError::Tls)?;
        }
        let mut session = Session::open(&running.admin).await.map_err(PrepareError::Version)?;
        let (version, version_num) = session::read_version(&mut session).await.map_err(PrepareError::Version)?;
        if let Some(locale) = &environment.lc_messages {
            language::check(&mut session, locale).await?;
        }
        let Running { kind, admin, watcher, kept } = running;
        let server = TestServer { kind, admin, version, version_num, watcher, kept };
        tracing::info!(server = server.describe(), "test server is ready");
        Ok(server)
    }
}
