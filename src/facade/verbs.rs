//! The options of single kinds of [`Call`], in addition to those that all calls have.
use super::Call;
use crate::operations::lifecycle::{Archive, Purge};
use crate::operations::provision::Provision;
use serde::Serialize;
use std::time::Duration;

impl Call<Provision> {
    fn set(mut self, set: impl FnOnce(Provision) -> Provision) -> Self {
        self.verb = set(std::mem::take(&mut self.verb));
        self
    }
    /// Display name of the tenant; the slug if none is given.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.set(|p| p.name(name))
    }
    /// E-mail address of the tenant's first admin. The operation adds the admin to the tenant's user table and issues a
    /// setup link for the address.
    pub fn admin(self, email: impl Into<String>) -> Self {
        self.set(|p| p.admin(email))
    }
    /// A domain that identifies the tenant, besides its slug.
    pub fn domain(self, domain: impl Into<String>) -> Self {
        self.set(|p| p.domain(domain))
    }
    /// JSON that the registry stores with the tenant: at most 64 KiB and 100 levels, without NUL. It is read back equal.
    /// It must not contain a secret.
    pub fn metadata(self, metadata: serde_json::Value) -> Self {
        self.set(|p| p.metadata(metadata))
    }
    /// Input for the application's own steps of this operation: at most 1 MiB of JSON and 100 levels, without NUL. It is
    /// stored in the journal, so it must not contain a secret.
    pub fn input<T: Serialize>(self, input: &T) -> Self {
        self.set(|p| p.input(input))
    }
    /// Name of the server for the tenant's database, in place of the choice of the placement function.
    pub fn server(self, name: impl Into<String>) -> Self {
        self.set(|p| p.server(name))
    }
}

impl Call<Archive> {
    /// How long the data is kept, counted from now; 30 days by default. A fraction of a second is rounded up.
    pub fn keep_for(mut self, duration: Duration) -> Self {
        self.verb.keep_for(duration);
        self
    }
}

impl Call<Purge> {
    /// Destroys the data now, even if the tenant is not archived or the deadline of its archive has not passed.
    pub fn force(mut self) -> Self {
        self.verb.force();
        self
    }
}
