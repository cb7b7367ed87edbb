use std::io;
use std::path::PathBuf;

use super::choice::{BACKEND, IMAGE, LC_MESSAGES, PG_BIN};

/// Why there is no server to test with, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoServer {
    /// None of the three ways works.
    #[error(
        "no PostgreSQL to work with. Give one of these: \
         (1) {variable}=postgres://… with the URL of a superuser; \
         (2) Docker ({container}); \
         (3) PostgreSQL's server binaries, their directory in {PG_BIN} if they are not found ({local})"
    )]
    NoneOfThree {
        /// The variable that may hold a URL.
        variable: &'static str,
        /// What stood in the way of a container.
        container: ContainerError,
        /// What stood in the way of a local cluster.
        local: LocalError,
    },
    /// A backend was forced that does not exist.
    #[error("{BACKEND} is {value:?}; it takes url, container or local")]
    UnknownBackend {
        /// What the variable holds.
        value: String,
    },
    /// The URL was forced and is missing.
    #[error("{BACKEND} is url; set {variable} to the URL of a superuser")]
    UrlMissing {
        /// The variable that should hold the URL.
        variable: &'static str,
    },
    /// The URL cannot be read, or its server does not answer.
    #[error("the server in {variable} cannot be used; correct the URL or unset it")]
    Url {
        /// The variable that holds the URL.
        variable: &'static str,
        /// What is wrong.
        #[source]
        source: sqlx::Error,
    },
    /// Settings were asked for, and the server is not ours to change.
    #[error("this needs a server with settings of its own, and {variable} names one that is not ours; unset it")]
    UrlTakesNoSettings {
        /// The variable that holds the URL.
        variable: &'static str,
    },
    /// A container was forced.
    #[error("no PostgreSQL in a container, as {BACKEND} demands")]
    Container(#[source] ContainerError),
    /// A local cluster was forced.
    #[error("no PostgreSQL with the machine's own binaries, as {BACKEND} demands")]
    Local(#[source] LocalError),
    /// No standby of this server can be made.
    #[error("there is no standby of the server {kind}: {reason}")]
    NoStandby {
        /// Which server.
        kind: String,
        /// Why.
        reason: String,
    },
    /// The server runs and cannot be made ready for use.
    #[error("the server {kind} was started and cannot be used")]
    SetupLinks {
        /// Which server.
        kind: String,
        /// What is wrong.
        #[source]
        source: PrepareError,
    },
}

/// Why there is no container. A message names its cause, because two of these stand in one [`NoServer`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The `docker` command is missing or its daemon does not answer.
    #[error("Docker does not answer: {reason}")]
    NoDocker {
        /// What the command said.
        reason: String,
    },
    /// There is no image and none can be pulled.
    #[error("there is no image {image} and it cannot be pulled ({reason}); build one and name it in {IMAGE}")]
    NoImage {
        /// The image asked for.
        image: String,
        /// What the command said.
        reason: String,
    },
    /// The container does not come up.
    #[error("the container of image {image} does not start: {reason}")]
    Start {
        /// The image it should run.
        image: String,
        /// What Docker or the server said.
        reason: String,
    },
    /// The process that would clear up cannot be started.
    #[error("/bin/sh, which clears up afterwards, cannot be started: {0}")]
    Watcher(io::Error),
}

/// Why there is no local cluster. A message names its cause, because two of these stand in one [`NoServer`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// `initdb` and `postgres` are nowhere.
    #[error("no directory with initdb and postgres among {looked:?}")]
    NoBinaries {
        /// Where they were looked for.
        looked: Vec<PathBuf>,
    },
    /// PostgreSQL refuses to run as root, and there is no way to another account.
    #[error("as root it takes the account postgres or nobody, and setpriv or runuser to change to it")]
    NoAccount,
    /// The process that runs the server and clears up cannot be started.
    #[error("/bin/sh, which runs the server and clears up afterwards, cannot be started: {0}")]
    Watcher(io::Error),
    /// The server ended before it could be used.
    #[error("the server does not start: {log}")]
    Exited {
        /// The end of its log.
        log: String,
    },
    /// The server runs and takes no connection.
    #[error("the server took no connection within {seconds} s: {log}")]
    NotReady {
        /// How long it was waited for.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
}

/// Why a running server is not ready for tests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// It could not be asked for its version.
    #[error("its version cannot be read")]
    Version(#[source] sqlx::Error),
    /// The certificate could not be put in place.
    #[error("its TLS certificate cannot be put in place")]
    Tls(#[source] sqlx::Error),
    /// The language of its messages could not be found out.
    #[error("the language of its messages cannot be seen")]
    Language(#[source] sqlx::Error),
    /// It speaks English, and another language was asked for.
    #[error("{LC_MESSAGES} is {locale:?} and its messages are English: it has no translation for that")]
    Untranslated {
        /// What the variable holds.
        locale: String,
    },
}
