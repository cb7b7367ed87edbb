//! Errors for a missing test server. Every message says what is missing and how to provide it.
use std::io;
use std::path::PathBuf;

use super::choice::{BACKEND, IMAGE, LC_MESSAGES, PG_BIN};

/// The error for a test server that could not be found or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoServer {
    /// Neither a URL, nor a container, nor a local cluster is available.
    #[error(
        "no PostgreSQL server is available. Provide one of these: \
         (1) {variable}=postgres://… with the URL of a superuser; \
         (2) Docker ({container}); \
         (3) PostgreSQL's server binaries ({local})"
    )]
    NoneOfThree {
        /// Name of the environment variable that may contain a URL.
        variable: &'static str,
        /// The error from starting a container.
        container: ContainerError,
        /// The error from starting a local cluster.
        local: LocalError,
    },
    /// The environment names a backend that does not exist.
    #[error("{BACKEND} is {value:?}; set it to url, container or local")]
    UnknownBackend {
        /// Value of the environment variable.
        value: String,
    },
    /// The backend `url` was forced, and there is no URL.
    #[error("{BACKEND} is url; set {variable} to the URL of a superuser")]
    UrlMissing {
        /// Name of the environment variable that should contain the URL.
        variable: &'static str,
    },
    /// The URL cannot be parsed, or the server does not accept the connection.
    #[error("the server in {variable} cannot be used; correct the URL or unset it")]
    Url {
        /// Name of the environment variable that contains the URL.
        variable: &'static str,
        /// The error of the parser or of the connection.
        #[source]
        source: sqlx::Error,
    },
    /// As [`Url`](Self::Url), and the user name or the password in the URL has a character that must be escaped there.
    #[error(
        "the server in {variable} cannot be used; write {escape} instead of {character} in the user name or password \
         of the URL"
    )]
    UrlCharacter {
        /// Name of the environment variable that contains the URL.
        variable: &'static str,
        /// The character.
        character: char,
        /// The percent-encoded form of the character.
        escape: &'static str,
        /// The error of the parser or of the connection.
        #[source]
        source: sqlx::Error,
    },
    /// An environment variable would change every connection to the server.
    #[error("sqlx takes the variable {variable} into every connection and cannot unset it; unset it for the tests")]
    Environment {
        /// Name of the variable.
        variable: &'static str,
    },
    /// The builder has settings or a certificate, and a server named by URL cannot be reconfigured.
    #[error("this test needs special server settings, and the server in {variable} cannot be reconfigured; unset it")]
    UrlTakesNoSettings {
        /// Name of the environment variable that contains the URL.
        variable: &'static str,
    },
    /// A container was demanded, by the environment or by the data that a builder keeps, and it failed.
    #[error("a PostgreSQL container is required, and none could be started")]
    Container(#[source] ContainerError),
    /// A local cluster was demanded, by the environment or by the builder, and it failed.
    #[error("a local PostgreSQL cluster is required, and it could not be started")]
    Local(#[source] LocalError),
    /// The directory of [`keep_data`](super::TestServerBuilder::keep_data) cannot be used.
    #[error("the data directory {} cannot be used: {reason}", .directory.display())]
    KeptData {
        /// The directory.
        directory: PathBuf,
        /// The reason.
        reason: String,
    },
    /// This kind of server cannot have a standby.
    #[error("no standby of the server {kind} can be started: {reason}")]
    NoStandby {
        /// Description of the server.
        kind: String,
        /// The reason.
        reason: String,
    },
    /// The server accepts connections, and its preparation failed.
    #[error("the server {kind} runs, but it could not be prepared for tests")]
    Setup {
        /// Description of the server.
        kind: String,
        /// The step of the preparation that failed.
        #[source]
        source: PrepareError,
    },
}

/// The error for a container that could not be started. The message includes the cause, because
/// [`NoServer::NoneOfThree`] shows it together with a [`LocalError`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The `docker` command is missing or its daemon does not answer.
    #[error("Docker does not answer: {reason}")]
    NoDocker {
        /// Error of the `docker` command.
        reason: String,
    },
    /// The image does not exist locally and cannot be pulled.
    #[error("the image {image} does not exist and cannot be pulled ({reason}); build one and set {IMAGE} to its name")]
    NoImage {
        /// Name of the image.
        image: String,
        /// Error of the `docker` command.
        reason: String,
    },
    /// The container does not start, or its server does not accept connections.
    #[error("the container of image {image} does not start: {reason}")]
    Start {
        /// Name of the image.
        image: String,
        /// Error of Docker or of the connection.
        reason: String,
    },
    /// The process that removes the container later cannot be started.
    #[error("/bin/sh, which removes the container later, cannot be started: {reason}")]
    Watcher {
        /// Error of the operating system.
        reason: String,
    },
}

/// The error for a local cluster that could not be started. The message includes the cause, because
/// [`NoServer::NoneOfThree`] shows it together with a [`ContainerError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// No searched directory contains `initdb` and `postgres`.
    #[error(
        "there are none in {}; install them (Debian, Ubuntu: apt install postgresql; Fedora: dnf install \
         postgresql-server; macOS: brew install postgresql@17), or set {PG_BIN} to the directory of initdb",
        .looked.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(":")
    )]
    NoBinaries {
        /// The searched directories.
        looked: Vec<PathBuf>,
    },
    /// This process runs as root, which PostgreSQL refuses, and it cannot change to another account.
    #[error("PostgreSQL does not run as root; create the account postgres, and install setpriv or runuser")]
    NoAccount,
    /// The account that runs the server cannot write to the directory for the cluster.
    #[error("the account {account} cannot write to {}; use a directory that it can write to (TMPDIR)", .directory.display())]
    Directory {
        /// Name of the account.
        account: String,
        /// The directory.
        directory: PathBuf,
    },
    /// The cluster in a kept data directory still runs: the process that started it has ended, and its server has not.
    #[error("the server in {} did not stop within 60 s after its process had ended; try again", .directory.display())]
    StillRunning {
        /// The directory of the cluster.
        directory: PathBuf,
    },
    /// The process that runs the server and removes it later cannot be started.
    #[error("/bin/sh, which runs the server and removes it later, cannot be started: {0}")]
    Watcher(io::Error),
    /// The server ended before it accepted a connection.
    #[error("the server does not start: {log}")]
    Exited {
        /// Last lines of the server's log.
        log: String,
    },
    /// The server runs and does not accept connections.
    #[error("the server did not accept a connection within {seconds} s: {log}")]
    NotReady {
        /// Time limit that has passed, in seconds.
        seconds: u64,
        /// Last lines of the server's log.
        log: String,
    },
}

/// The error for a running server that could not be prepared for tests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The version of the server could not be read.
    #[error("the server's version cannot be read")]
    Version(#[source] sqlx::Error),
    /// The TLS certificate could not be installed.
    #[error("the TLS certificate cannot be installed on the server")]
    Tls(#[source] sqlx::Error),
    /// The check of the server's message language failed.
    #[error("the language of the server's messages cannot be determined")]
    Language(#[source] sqlx::Error),
    /// Another language was demanded, and the server's messages are English.
    #[error("{LC_MESSAGES} is {locale:?}, but the server's messages are English; install its translations")]
    Untranslated {
        /// Value of the environment variable.
        locale: String,
    },
}
