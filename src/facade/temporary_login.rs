//! The methods that give a person a login of their own for minutes, and end it.
use super::{Call, Tenantry};
use crate::error::ChangeError;
use crate::operation::OperationId;
use crate::operations::temporary_login::IssueLogin;
use crate::tenant::TenantRef;
use std::time::Duration;

impl Call<IssueLogin> {
    /// How long the login lives: 1 second to 24 hours, by default
    /// [15 minutes](crate::temporary_login::LIFETIME). Another value fails the call as
    /// [`Lifetime`](ChangeError::Lifetime).
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.verb.lifetime = lifetime;
        self
    }
    /// Lets the login write. By default its transactions are read-only (`default_transaction_read_only`). That prevents
    /// accidents and is not a right: the person can turn it off with one statement.
    pub fn writable(mut self) -> Self {
        self.verb.read_only = false;
        self
    }
}

impl Tenantry {
    /// Creates a login for a person in the tenant's database, with the rights of the application's login, at most two
    /// sessions, and an expiry. Use [`reason`](Call::reason) to record who asked for it and why.
    ///
    /// At its expiry PostgreSQL refuses the password, and a node that [`run`](Self::run)s ends its sessions and drops it
    /// within seconds. A suspension, an archive and a purge end it at once. An activation does not bring it back.
    ///
    /// The operation is of the change lane: while a migration or a rotation of the tenant runs, the call fails as
    /// [`Busy`](ChangeError::Busy).
    ///
    /// # Errors
    /// [`Lifetime`](ChangeError::Lifetime), [`Unknown`](ChangeError::Unknown), [`Status`](ChangeError::Status) if the
    /// tenant is not active. [`PasswordNotStored`](ChangeError::PasswordNotStored) if an earlier call with the same key
    /// has got the login.
    ///
    /// # Cancel safety
    /// Only the awaited call gets the password. If its future is dropped after the intent was committed, the login is
    /// not created, or it expires without being used. The same applies to [`start`](Call::start), which returns no
    /// password.
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry) -> Result<(), Box<dyn std::error::Error>> {
    /// let login = tenantry.temporary_login("acme").reason("ada: ticket 17").await?;
    /// println!("connect to {}:{} as {} until {}", login.host, login.port, login.login, login.expires_at);
    /// tenantry.end_temporary_login(login.operation).await?;
    /// # Ok(()) }
    /// ```
    pub fn temporary_login<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<IssueLogin> {
        Call::new(self, &self.inner.temporary_logins.for_one_call(), IssueLogin::new(tenant.into()))
    }
    /// Ends the sessions of a temporary login and drops it before its expiry. `operation` is
    /// [`TemporaryLogin::operation`](crate::temporary_login::TemporaryLogin::operation). A login that is dropped already
    /// is no error.
    ///
    /// # Errors
    /// [`NoTemporaryLogin`](ChangeError::NoTemporaryLogin), [`Busy`](ChangeError::Busy) while the login is being created,
    /// [`LoginNotDropped`](ChangeError::LoginNotDropped) if it could not be dropped; then the nodes try again.
    ///
    /// # Cancel safety
    /// If the future is dropped, the login may be refused and not dropped yet. It is dropped at its expiry.
    pub async fn end_temporary_login(&self, operation: OperationId) -> Result<(), ChangeError> {
        self.inner.temporary_logins.end(operation).await
    }
}
