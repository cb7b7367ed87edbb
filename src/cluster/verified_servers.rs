//! [`VerifiedServers`]: a server registry whose rows are authenticated with a key that only the key ring opens.
//!
//! A role that can write to the landlord, and has no keys, could otherwise change a server's address to that of a rogue
//! server and wait until this process logs in there. The facade puts this registry between the stores and everything that
//! connects to a server, so no code can read an address that was not checked.
//!
//! Invariants:
//! - A row's code covers name, host, port, TLS mode and root certificate. It is HMAC-SHA-256 under a random key, which is
//!   a sealed secret of the landlord. A key management service need not be able to compute codes.
//! - A row whose code is wrong is never returned as usable. A row without a code is usable only until the installation
//!   is *sealed*: until a second copy of the key is stored, which happens when every row has a code. So a crash between
//!   the first code and the last one shuts nothing out.
use crate::error::{KeyError, Rows, StoreError, UntrustedAddress, VaultError};
use crate::names::{DatabaseName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::secret::CredentialId;
use crate::server::{AddressPolicy, DatabaseServer, ServerStatus};
use crate::store::registry::{Placement, ServerLoad, ServerRegistry};
use crate::store::vault::VaultWriter;
use crate::tenant::TenantId;
use async_trait::async_trait;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long "this landlord has no key yet" is believed. Until the installation is sealed each read of a row would
/// otherwise read the vault too.
const UNSEALED_FOR: Duration = Duration::from_secs(5);

/// A server registry that checks every row that it returns, and authenticates every row that it writes.
#[derive(Clone)]
pub(crate) struct VerifiedServers {
    inner: Arc<dyn ServerRegistry>,
    vault: Arc<dyn VaultWriter>,
    policy: AddressPolicy,
    seal: Arc<Mutex<Option<(Seal, Instant)>>>,
}

/// What the vault has of the key that authenticates rows.
#[derive(Clone)]
enum Seal {
    /// No key: an older version has written all rows.
    None,
    /// The key. Some rows may have no code yet.
    Open(SecretString),
    /// The key. Every row has a code.
    Closed(SecretString),
}

impl Seal {
    fn key(&self) -> Option<&SecretString> {
        match self {
            Self::None => None,
            Self::Open(key) | Self::Closed(key) => Some(key),
        }
    }
}

impl VerifiedServers {
    pub(crate) fn new(inner: Arc<dyn ServerRegistry>, vault: Arc<dyn VaultWriter>, policy: AddressPolicy) -> Self {
        Self { inner, vault, policy, seal: Arc::default() }
    }
    /// The same registry under another policy.
    pub(crate) fn with_policy(&self, policy: AddressPolicy) -> Self {
        Self { policy, ..self.clone() }
    }
    /// What the application requires of addresses.
    pub(crate) fn policy(&self) -> &AddressPolicy {
        &self.policy
    }

    /// Reads a row as it is, for a set-up, whose caller states the address. The flag is whether the row may be used.
    pub(crate) async fn read_unchecked(&self, name: &ServerName) -> Result<Option<(DatabaseServer, bool)>, StoreError> {
        let Some(load) = self.inner.server(name).await? else { return Ok(None) };
        let is_trusted = self.check(&load.server).await?.is_ok();
        Ok(Some((load.server, is_trusted)))
    }

    /// Reads all rows as they are, for an examination. The flag of each is whether it may be used.
    pub(crate) async fn list_unchecked(&self) -> Result<Rows<(DatabaseServer, bool)>, StoreError> {
        let Rows { readable, unreadable } = self.inner.servers().await?;
        let mut rows = Rows { readable: Vec::with_capacity(readable.len()), unreadable };
        for ServerLoad { server, .. } in readable {
            let is_trusted = match self.check(&server).await {
                // The key of the codes cannot be opened, so no row can be checked.
                Err(StoreError::Untrusted(_)) => false,
                checked => checked?.is_ok(),
            };
            rows.readable.push((server, is_trusted));
        }
        Ok(rows)
    }

    /// Gives every row a code, if this landlord has no sealed key, and then stores the second copy of the key, unless a
    /// row cannot be parsed. Rows of a sealed installation are left alone: one without a code there was not written by
    /// tenantry. Idempotent.
    pub(crate) async fn sign_all(&self, writer: FencingToken) -> Result<(), StoreError> {
        if let Seal::Closed(_) = self.read_seal().await? {
            return Ok(());
        }
        let key = self.ensure_key(writer).await?;
        for ServerLoad { server, .. } in self.inner.servers().await?.log_unreadable() {
            if server.address_mac.is_none() {
                let signed = DatabaseServer { address_mac: Some(code(&key, &server)), ..server.clone() };
                self.inner.put_server(Some(&server), &signed, Some(writer)).await?;
            }
        }
        self.close_if_complete(&key, writer).await
    }

    /// Gives every row the code of the address that it has now. For tests that write addresses as they are.
    #[cfg(feature = "testing")]
    pub(crate) async fn sign_as_stored(&self) -> Result<(), StoreError> {
        let Some(key) = self.read_seal().await?.key().cloned() else { return Ok(()) };
        for ServerLoad { server, .. } in self.inner.servers().await? {
            let signed = DatabaseServer { address_mac: Some(code(&key, &server)), ..server.clone() };
            self.inner.put_server(Some(&server), &signed, None).await?;
        }
        Ok(())
    }

    /// Stores the second copy of the key once every row has a code.
    async fn close_if_complete(&self, key: &SecretString, writer: FencingToken) -> Result<(), StoreError> {
        let rows = self.inner.servers().await?;
        // A row that cannot be parsed may be without a code, and would not be trusted once it is corrected.
        match rows.unreadable.is_empty() && rows.iter().all(|load| load.server.address_mac.is_some()) {
            true => self.close_seal(key, writer).await,
            false => Ok(()),
        }
    }

    async fn close_seal(&self, key: &SecretString, writer: FencingToken) -> Result<(), StoreError> {
        let stored = self.vault.put(&CredentialId::address_key(2), key, writer).await;
        stored.map_err(StoreError::from)?;
        self.remember(Seal::Closed(key.clone()));
        Ok(())
    }

    /// The key; a new one if the vault has none. Of two writers, the vault keeps the key of the first.
    async fn ensure_key(&self, writer: FencingToken) -> Result<SecretString, StoreError> {
        let seal = self.read_seal().await?;
        if let Some(key) = seal.key() {
            return Ok(key.clone());
        }
        let mut bytes = Zeroizing::new([0u8; 32]);
        rand::rng().fill(&mut bytes[..]);
        let new = SecretString::from(BASE64.encode(&bytes[..]));
        let key = self.vault.put(&CredentialId::address_key(1), &new, writer).await;
        let key = key.map_err(StoreError::from)?;
        self.remember(Seal::Open(key.clone()));
        Ok(key)
    }

    async fn read_seal(&self) -> Result<Seal, StoreError> {
        let known = self.seal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some((seal @ Seal::Closed(_), _)) => return Ok(seal),
            Some((seal, at)) if at.elapsed() < UNSEALED_FOR => return Ok(seal),
            _ => {}
        }
        let seal = match self.open_key(2).await? {
            Some(key) => Seal::Closed(key),
            None => self.open_key(1).await?.map_or(Seal::None, Seal::Open),
        };
        self.remember(seal.clone());
        Ok(seal)
    }

    async fn open_key(&self, copy: i64) -> Result<Option<SecretString>, StoreError> {
        match self.vault.open(&CredentialId::address_key(copy)).await {
            Err(VaultError::Missing(_)) => Ok(None),
            Err(VaultError::DoesNotOpen(_) | VaultError::Key(KeyError::Unknown(_) | KeyError::WrongBytes(_))) => {
                Err(StoreError::Untrusted(UntrustedAddress::NoKey))
            }
            opened => Ok(Some(opened.map_err(StoreError::from)?)),
        }
    }

    fn remember(&self, seal: Seal) {
        *self.seal.lock().unwrap_or_else(PoisonError::into_inner) = Some((seal, Instant::now()));
    }

    /// Checks a row: the application's policy, and the row's code.
    async fn check(&self, server: &DatabaseServer) -> Result<Result<(), UntrustedAddress>, StoreError> {
        if let Err(refused) = self.policy.check(&server.host, server.tls) {
            return Ok(Err(refused));
        }
        let mut seal = self.read_seal().await?;
        if seal.key().is_none() && server.address_mac.is_some() {
            // Another node has written the first key since this one has looked.
            *self.seal.lock().unwrap_or_else(PoisonError::into_inner) = None;
            seal = self.read_seal().await?;
        }
        let name = || server.name.clone();
        Ok(match (&server.address_mac, &seal) {
            (Some(_), Seal::None) => Err(UntrustedAddress::Changed { server: name() }),
            (Some(mac), Seal::Open(key) | Seal::Closed(key)) if !is_code(key, server, mac) => {
                Err(UntrustedAddress::Changed { server: name() })
            }
            (Some(_), _) => Ok(()),
            (None, Seal::Closed(_)) => Err(UntrustedAddress::Unsigned { server: name() }),
            (None, _) if self.policy.signed_only => Err(UntrustedAddress::Unsigned { server: name() }),
            (None, _) => Ok(()),
        })
    }

    async fn require_trusted(&self, server: &DatabaseServer) -> Result<(), StoreError> {
        self.check(server).await?.map_err(StoreError::Untrusted)
    }
}

/// The code of a row: HMAC-SHA-256 over a label and the length-prefixed fields, in base64. Rows in the landlord have
/// such codes, so the computation must not change.
fn code(key: &SecretString, server: &DatabaseServer) -> String {
    BASE64.encode(&mac(key, server).finalize().into_bytes())
}

/// Whether this is the row's code. The comparison takes the same time for every code.
fn is_code(key: &SecretString, server: &DatabaseServer, stored: &str) -> bool {
    BASE64.decode(stored.as_bytes()).is_ok_and(|stored| mac(key, server).verify_slice(&stored).is_ok())
}

fn mac(key: &SecretString, server: &DatabaseServer) -> Hmac<Sha256> {
    // The key has 44 characters. Padding it with zeros to the block size is what HMAC does (RFC 2104).
    let mut block = Zeroizing::new([0u8; 64]);
    block.iter_mut().zip(key.expose_secret().bytes()).for_each(|(to, byte)| *to = byte);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    let certificate = server.root_certificate.as_deref();
    let presence = if certificate.is_some() { "some" } else { "none" };
    let port = server.port.to_string();
    let fields = [server.name.as_str(), &server.host, &port, server.tls.as_str(), presence];
    mac.update(b"tenantry server address v1");
    for field in fields.into_iter().chain(certificate) {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field.as_bytes());
    }
    mac
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ServerRegistry for VerifiedServers {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        self.inner.fence(operation, epoch).await
    }
    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.inner.installation().await
    }
    async fn server(&self, name: &ServerName) -> Result<Option<ServerLoad>, StoreError> {
        let Some(load) = self.inner.server(name).await? else { return Ok(None) };
        self.require_trusted(&load.server).await?;
        Ok(Some(load))
    }
    /// A row that is not trusted is in the list as a server that is not ready, so that nothing connects to it and the
    /// others stay usable.
    async fn servers(&self) -> Result<Rows<ServerLoad>, StoreError> {
        let mut loads = self.inner.servers().await?;
        for load in &mut loads.readable {
            if let Err(error) = self.check(&load.server).await? {
                tracing::error!(server = %load.server.name, %error, "a server is not used");
                load.server.status = ServerStatus::SettingUp;
            }
        }
        Ok(loads)
    }
    /// An operation gives the row a code, and seals the installation if this was the last row without one. A write
    /// outside of operations leaves the code as it is.
    async fn put_server(
        &self, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        self.policy.check(&server.host, server.tls).map_err(StoreError::Untrusted)?;
        let Some(writer) = writer else { return self.inner.put_server(expected, server, None).await };
        let key = self.ensure_key(writer).await?;
        let signed = DatabaseServer { address_mac: Some(code(&key, server)), ..server.clone() };
        self.inner.put_server(expected, &signed, Some(writer)).await?;
        match self.read_seal().await? {
            Seal::Closed(_) => Ok(()),
            _ => self.close_if_complete(&key, writer).await,
        }
    }
    async fn remove_server(&self, name: &ServerName, writer: Option<FencingToken>) -> Result<(), StoreError> {
        self.inner.remove_server(name, writer).await
    }
    async fn placement(&self, tenant: TenantId) -> Result<Option<Placement>, StoreError> {
        self.inner.placement(tenant).await
    }
    async fn placement_and_server(&self, tenant: TenantId) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
        let Some((placement, server)) = self.inner.placement_and_server(tenant).await? else { return Ok(None) };
        self.require_trusted(&server).await?;
        Ok(Some((placement, server)))
    }
    async fn placements_on(
        &self, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
    ) -> Result<Rows<Placement>, StoreError> {
        self.inner.placements_on(server, after, limit).await
    }
    async fn reserve(&self, placement: &Placement, writer: FencingToken) -> Result<(), StoreError> {
        self.inner.reserve(placement, writer).await
    }
    async fn release(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        self.inner.release(tenant, writer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{ServerNames, TlsMode};

    #[test]
    fn code_is_wrong_for_another_name_host_port_tls_mode_certificate_or_key() {
        let names = ServerNames::with_prefix("tenantry").unwrap();
        let server = DatabaseServer::new("main".parse().unwrap(), "db1.internal", 5432, names);
        let key = SecretString::from("k".repeat(44));
        let stored = code(&key, &server);
        assert!(is_code(&key, &server, &stored));
        for changed in [
            DatabaseServer { name: "spare".parse().unwrap(), ..server.clone() },
            DatabaseServer { host: "db2.internal".into(), ..server.clone() },
            DatabaseServer { port: 5433, ..server.clone() },
            DatabaseServer { tls: TlsMode::Disable, ..server.clone() },
            DatabaseServer { root_certificate: Some(String::new()), ..server.clone() },
        ] {
            assert!(!is_code(&key, &changed, &stored), "the code is right for another server: {changed:?}");
        }
        assert!(!is_code(&SecretString::from("l".repeat(44)), &server, &stored), "the code is right under another key");
    }
}
