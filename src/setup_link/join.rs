//! Beginning or joining the operation of a password link. [`SetupLinks::begin_password`] is called for each post.
//!
//! Invariants:
//! - A link has at most one open operation, and an operation has at most one password: the first one that is sealed under
//!   the operation's id. No step changes it, so a recovery sets the same one.
//! - A caller gets "set" only for an operation whose sealed password it has posted. A caller with another password, or one
//!   that cannot compare because nothing is sealed yet, is refused with `InUse`.
//! - No password is part of the stored request, not even as a hash.
//!
//! What a second post finds after a crash, by the last thing that happened:
//! - *The intent is committed, nothing is sealed.* The operation cannot set anything. The post waits for recovery, which
//!   undoes it, and then begins an operation of its own; after ten seconds it is refused.
//! - *The password is sealed, or set, and the token is not used up.* Recovery goes on with the sealed password. The same
//!   password joins and gets the outcome; another one is refused. If recovery undoes the operation instead (the tenant is
//!   gone or suspended, the password breaks a rule), the sessions of its workers are ended first, so that none of them
//!   sets the old password later; then the link is good again, and the next post replaces the password.
//! - *The token is used up.* The link is not valid any more, whatever is posted.
use super::{SetupLinkError, SetupLinks, password};
use crate::error::{StoreError, VaultError};
use crate::operation::{OperationStatus, Subject};
use crate::store::admin::to_opaque_string;
use crate::store::journal::{Begun, Progress, Record};
use crate::store::tokens::TokenPurpose;
use crate::tenant::TenantId;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

/// The first wait for another post's password to be sealed.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What an open operation of the same link means for a post.
enum Rival {
    SamePassword,
    OtherPassword,
    /// No password is sealed: its first worker is about to seal one, or has died.
    NoPassword,
    /// It has used the token up.
    Finished,
}

impl SetupLinks {
    /// Commits the intent of a password link and seals the password, or joins the operation that has this password.
    pub(crate) async fn begin_password(&self, text: &str, password: &SecretString) -> Result<Begun, SetupLinkError> {
        let password = to_opaque_string(password).map_err(SetupLinkError::Password)?;
        let issued = self.look(&TokenPurpose::password(), text).await?;
        let subject = Subject::Link(issued.id.as_uuid());
        let (until, mut pause) = (Instant::now() + super::PATIENCE, FIRST_PAUSE);
        loop {
            let record = match self.begin(&*self.password, subject.clone(), &issued, text).await? {
                Begun::New(record) => {
                    self.seal(issued.tenant, &record, &password).await?;
                    return Ok(Begun::New(record));
                }
                Begun::Joined(record) => record,
                refused => return Ok(refused),
            };
            match self.rival(issued.tenant, &record, &password).await? {
                Rival::SamePassword => return Ok(Begun::Joined(record)),
                Rival::Finished => return Err(SetupLinkError::NotValid),
                Rival::NoPassword if Instant::now() < until => sleep(pause).await,
                Rival::NoPassword | Rival::OtherPassword => return Err(SetupLinkError::InUse { operation: record.id }),
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// A crash before this leaves an operation without a password, which sets nothing.
    async fn seal(&self, tenant: TenantId, record: &Record, password: &SecretString) -> Result<(), SetupLinkError> {
        let (id, writer) = (password::secret(tenant, record.id), record.fencing_token());
        let sealed = async {
            self.stores.vault.fence(writer.operation, writer.epoch).await?;
            self.stores.vault.put(&id, password, writer).await
        };
        match sealed.await {
            Ok(_) => Ok(()),
            // This worker was so slow that recovery has taken the operation over, and undoes it.
            Err(VaultError::Store(StoreError::Fenced)) => Err(SetupLinkError::InUse { operation: record.id }),
            Err(error) => {
                // Recovery need not wait for the lease to end. If this call fails too, it does.
                let _ = self.stores.journal.record(writer, &Progress::of(record)).await;
                Err(store_error(error).into())
            }
        }
    }

    async fn rival(&self, tenant: TenantId, record: &Record, password: &SecretString) -> Result<Rival, SetupLinkError> {
        match self.stores.vault.open(&password::secret(tenant, record.id)).await {
            Ok(sealed) if is_same(&sealed, password) => Ok(Rival::SamePassword),
            Ok(_) => Ok(Rival::OtherPassword),
            // The record was read before the vault: the operation may have ended and forgotten the password since.
            Err(VaultError::Missing(_)) => match self.stores.journal.read(record.id).await? {
                Some(now) if Self::is_used(&now) || now.status == OperationStatus::Done => Ok(Rival::Finished),
                _ => Ok(Rival::NoPassword),
            },
            Err(error) => Err(store_error(error).into()),
        }
    }
}

fn store_error(error: VaultError) -> StoreError {
    match error {
        VaultError::Store(error) => error,
        error => StoreError::unavailable(error),
    }
}

/// Compares MACs under a random key, so that the time tells nothing about the sealed password. A password that an earlier
/// version has sealed is not in its one form yet.
fn is_same(sealed: &SecretString, posted: &SecretString) -> bool {
    let sealed = to_opaque_string(sealed).unwrap_or_else(|_| sealed.clone());
    let key = Zeroizing::new(rand::rng().random::<[u8; 64]>());
    let mac = |text: &SecretString| {
        let mut mac = Hmac::<Sha256>::new((&*key).into());
        mac.update(text.expose_secret().as_bytes());
        mac
    };
    mac(&sealed).verify(&mac(posted).finalize().into_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_same_compares_whole_texts_in_one_form() {
        let same = |a: &str, b: &str| is_same(&SecretString::from(a), &SecretString::from(b));
        assert!(same("correct horse", "correct horse"));
        assert!(same("cafe\u{301}", "caf\u{e9}"), "sealed by an earlier version");
        for other in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!same("correct horse", other), "{other:?}");
        }
    }
}
