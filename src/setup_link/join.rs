//! Begins or joins the operation of a password link. The facade calls [`SetupLinks::begin_password`] for each POST.
//!
//! Invariants:
//! - A link has at most one open operation. An operation has at most one password, the first one that is sealed under
//!   the operation's id. No step changes it, so recovery sets the same one.
//! - A caller learns that its password was set only if it has posted the password that the operation has sealed. A
//!   caller with another password gets `InUse`. A caller that finds no sealed password within ten seconds gets `InUse`
//!   too, because its password cannot be compared.
//! - The stored request does not contain the password, not even as a hash.
//!
//! If the process crashes while it serves a POST, a second POST finds one of these states:
//! - *The intent is committed, nothing is sealed.* The operation cannot set a password. The POST waits until recovery
//!   has undone it and then begins its own operation. After ten seconds it is refused.
//! - *The password is sealed or set, and the token is not used up.* Recovery continues with the sealed password. A POST
//!   with the same password joins and gets the outcome; another password is refused. Recovery undoes the operation
//!   instead if the tenant is deleted or suspended, or if the password breaks a rule. It then first ends the sessions
//!   of the operation's workers, so that none of them sets the old password later. After that the link is valid again.
//! - *The token is used up.* The link is not valid any more, with any password.
use super::{FoundLink, NormalizedPassword, SetupLinkError, SetupLinks, password};
use crate::error::{StoreError, VaultError};
use crate::operation::{OperationStatus, Subject};
use crate::saga::Started;
use crate::store::journal::{Progress, Record};
use crate::tenant::TenantId;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First and longest pause while another POST has begun the operation and has not sealed its password.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// State of the link's open operation, as seen by a POST that did not begin it.
enum OpenOperation {
    /// It has sealed the password of this POST.
    SamePassword,
    /// It has sealed another password.
    OtherPassword,
    /// It has sealed no password: its first worker is about to do so, or has died.
    NoPassword,
    /// It has used the token up.
    Finished,
}

impl SetupLinks {
    /// Commits the intent of a password link and seals the password, or joins the open operation if that has the same
    /// password. While the open operation has no password, it waits for at most ten seconds.
    pub(crate) async fn begin_password(
        &self, link: &FoundLink<'_>, password: &NormalizedPassword,
    ) -> Result<Started, SetupLinkError> {
        let mut link = link.clone();
        let (tenant, subject) = (link.issued.tenant, Subject::Link(link.issued.id.as_uuid()));
        let (deadline, mut pause) = (Instant::now() + super::BUSY_TIMEOUT, FIRST_PAUSE);
        loop {
            let record = match self.begin(&self.password, subject.clone(), &link).await? {
                Started::New(operation) => {
                    self.seal(tenant, operation.record(), password).await?;
                    return Ok(Started::New(operation));
                }
                Started::Joined(record) => record,
            };
            match self.inspect_open(tenant, &record, password).await? {
                OpenOperation::SamePassword => return Ok(Started::Joined(record)),
                OpenOperation::Finished => return Err(SetupLinkError::NotValid),
                OpenOperation::NoPassword if Instant::now() < deadline => sleep(pause).await,
                OpenOperation::NoPassword | OpenOperation::OtherPassword => {
                    return Err(SetupLinkError::InUse { operation: record.id });
                }
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            link.reload_tenant(&self.stores).await?;
        }
    }

    /// Seals the password under the operation's id. A crash before that leaves an operation without a password, which
    /// recovery undoes.
    async fn seal(
        &self, tenant: TenantId, record: &Record, password: &NormalizedPassword,
    ) -> Result<(), SetupLinkError> {
        let (id, writer) = (password::new_password_id(tenant, record.id), record.fencing_token());
        let sealed = async {
            self.stores.vault.fence(writer.operation, writer.epoch).await?;
            self.stores.vault.put(&id, password.text(), writer).await
        };
        match sealed.await {
            Ok(_) => Ok(()),
            // This worker was so slow that its lease expired. Recovery has taken the operation over and undoes it.
            Err(VaultError::Store(StoreError::Fenced)) => Err(SetupLinkError::InUse { operation: record.id }),
            Err(error) => {
                // Release the lease, so that recovery can undo the operation at once. If this call fails too, recovery
                // waits until the lease expires.
                let _ = self.stores.journal.record(writer, &Progress::of(record)).await;
                Err(StoreError::from(error).into())
            }
        }
    }

    async fn inspect_open(
        &self, tenant: TenantId, record: &Record, password: &NormalizedPassword,
    ) -> Result<OpenOperation, SetupLinkError> {
        match self.stores.vault.open(&password::new_password_id(tenant, record.id)).await {
            Ok(sealed) if password.is_same_as(&sealed) => Ok(OpenOperation::SamePassword),
            Ok(_) => Ok(OpenOperation::OtherPassword),
            // The record was read before the vault. The operation may have ended since then and deleted the password.
            Err(VaultError::Missing(_)) => match self.stores.journal.read(record.id).await? {
                Some(current) if Self::is_used(&current) || current.status == OperationStatus::Done => {
                    Ok(OpenOperation::Finished)
                }
                _ => Ok(OpenOperation::NoPassword),
            },
            Err(error) => Err(StoreError::from(error).into()),
        }
    }
}
