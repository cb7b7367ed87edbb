//! [`Session`]: what every command needs: the facade, the terminal, and the answers of the configuration.
use super::environment::Environment;
use super::progress::Progress;
use crate::facade::Tenantry;
use tokio::sync::Notify;

/// One run of the program.
pub(super) struct Session {
    pub(super) tenantry: Tenantry,
    pub(super) landlord: sqlx::PgPool,
    /// The landlord's address for people, without its password.
    pub(super) target: String,
    pub(super) environment: Environment,
    /// Name of the program with the words before the command, for what a person can type next.
    pub(super) program: String,
    /// Whether the application itself has mounted the commands, so that its steps and settings take part.
    pub(super) is_application: bool,
    /// Whether the program has the migrations of the tenants' databases. An application is assumed to have them.
    pub(super) has_migrations: bool,
    pub(super) assume_yes: bool,
    pub(super) as_json: bool,
    pub(super) progress: Progress,
    pub(super) begun: Notify,
}

impl Session {
    /// From now on Ctrl-C does not end the process at once: the operation that runs ends its step first. Called when
    /// nothing is asked any more and something is about to be changed.
    pub(super) fn catch_interrupts(&self) {
        self.begun.notify_one();
    }
}
