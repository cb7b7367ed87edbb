use super::choice::{Choice, DATABASE_URL, Wishes};
use super::error::{NoServer, PrepareError};
use super::running::Running;
use super::session::{self, Session};
use super::tls::Certificate;
use super::{TestServer, container, language, local, url};

/// Settings of a [`TestServer`].
#[derive(Clone)]
pub struct TestServerBuilder {
    url_variable: &'static str,
    settings: Vec<(String, String)>,
    durable: bool,
    local: bool,
    certificate: Option<Certificate>,
}

impl TestServerBuilder {
    pub(super) fn new() -> Self {
        Self { url_variable: DATABASE_URL, settings: Vec::new(), durable: false, local: false, certificate: None }
    }

    /// The variable that may hold the server's URL; examples say
    /// [`EXAMPLE_DATABASE_URL`](super::EXAMPLE_DATABASE_URL).
    pub fn url_variable(mut self, name: &'static str) -> Self {
        self.url_variable = name;
        self
    }

    /// A setting of `postgresql.conf`. The last one of a name counts. Not for a server named by URL.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Whether commits are flushed to disk (`fsync`), as benchmarks want; off unless said otherwise. A
    /// server named by URL does as it is set.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Serves TLS with this certificate and key. Not for a server named by URL.
    pub fn tls(mut self, certificate_pem: impl Into<String>, key_pem: impl Into<String>) -> Self {
        self.certificate = Some(Certificate::new(certificate_pem.into(), key_pem.into()));
        self
    }

    /// The machine's own binaries, whatever [`BACKEND`](super::BACKEND) says: for tests that crash the server.
    pub fn local_only(mut self) -> Self {
        self.local = true;
        self
    }

    /// Finds or starts the server. If the future is dropped, nothing stays behind.
    pub async fn start(self) -> Result<TestServer, NoServer> {
        let wishes = Wishes::from_env(self.url_variable);
        let running = self.run(&wishes).await?;
        let kind = running.kind.to_string();
        self.prepare(running, &wishes).await.map_err(|source| NoServer::SetupLinks { kind, source })
    }

    async fn run(&self, wishes: &Wishes) -> Result<Running, NoServer> {
        if self.local {
            return self.local(wishes).await.map_err(NoServer::Local);
        }
        match wishes.choose()? {
            Choice::Url(url) if self.settings.is_empty() && self.certificate.is_none() => {
                url::find(wishes.url_variable, &url).await
            }
            Choice::Url(_) => Err(NoServer::UrlTakesNoSettings { variable: wishes.url_variable }),
            Choice::Container => self.container(wishes).await.map_err(NoServer::Container),
            Choice::Local => self.local(wishes).await.map_err(NoServer::Local),
            Choice::ContainerElseLocal => self.container_else_local(wishes).await,
        }
    }

    async fn container_else_local(&self, wishes: &Wishes) -> Result<Running, NoServer> {
        let container = match self.container(wishes).await {
            Ok(running) => return Ok(running),
            Err(error) => error,
        };
        tracing::warn!(%container, "no container, trying the machine's own PostgreSQL");
        let variable = wishes.url_variable;
        self.local(wishes).await.map_err(|local| NoServer::NoneOfThree { variable, container, local })
    }

    async fn container(&self, wishes: &Wishes) -> Result<Running, super::ContainerError> {
        container::start(wishes.image.as_deref(), &self.arguments(wishes)).await
    }

    async fn local(&self, wishes: &Wishes) -> Result<Running, super::LocalError> {
        local::start(wishes.pg_bin.as_deref(), &self.arguments(wishes)).await
    }

    /// `-c name=value …` for the server's command line, where the last one of a name counts.
    fn arguments(&self, wishes: &Wishes) -> Vec<String> {
        let durability: &[_] = if self.durable {
            &[("recovery_init_sync_method", "syncfs")]
        } else {
            &[("fsync", "off"), ("full_page_writes", "off")]
        };
        let ours = [("max_connections", "300")].iter().chain(durability);
        let theirs = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let language = wishes.lc_messages.as_deref().map(|locale| ("lc_messages", locale));
        ours.copied()
            .chain(theirs)
            .chain(language)
            .flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")])
            .collect()
    }

    async fn prepare(self, running: Running, wishes: &Wishes) -> Result<TestServer, PrepareError> {
        if let Some(certificate) = &self.certificate {
            certificate.install(&running.admin).await.map_err(PrepareError::Tls)?;
        }
        let mut session = Session::open(&running.admin).await.map_err(PrepareError::Version)?;
        let (version, version_num) = session::version(&mut session).await.map_err(PrepareError::Version)?;
        if let Some(locale) = &wishes.lc_messages {
            language::check(&mut session, locale).await?;
        }
        let Running { kind, admin, watcher } = running;
        let server = TestServer { kind, admin, version, version_num, watcher };
        tracing::info!(server = server.describe(), "test server is ready");
        Ok(server)
    }
}
