//! Determines the address to which a directory entry is connected.
//!
//! The layers above read an entry and its server's row, and connect only to the entry that [`DatabaseServer::locate`]
//! returns.
//!
//! Invariant: an entry that names a server is never connected to at its own host and port, unless it is a replica.
use super::{DatabaseServer, TlsMode};
use crate::directory::{DatabaseKind, TenantDatabase};

impl DatabaseServer {
    /// Replaces the entry's host, port and root certificate with those of this server, and its TLS mode with the
    /// stricter one of both. The entry's own certificate does not count, because the server's row is authenticated and
    /// the entry is not. A replica keeps its host, its port and the settings that it has; only absent settings are
    /// taken from this server.
    ///
    /// The result is for connecting only. It must never be stored, because host and port are part of the entry's key.
    pub(crate) fn locate(&self, mut entry: TenantDatabase) -> TenantDatabase {
        let settings = &mut entry.settings;
        if entry.kind == DatabaseKind::Replica {
            settings.tls.get_or_insert(self.tls_for(&entry.host));
            settings.root_certificate = settings.root_certificate.take().or_else(|| self.root_certificate.clone());
            return entry;
        }
        settings.tls = Some(settings.tls.unwrap_or(self.tls).stricter(self.tls));
        settings.root_certificate = self.root_certificate.clone();
        entry.host.clone_from(&self.host);
        entry.port = self.port;
        entry
    }

    /// The TLS mode for a standby of this server at `host`: this server's mode if it was set explicitly, that is,
    /// differs from the default for its host; otherwise the default for `host`.
    pub(crate) fn tls_for(&self, host: &str) -> TlsMode {
        if self.tls == TlsMode::default_for(&self.host) { TlsMode::default_for(host) } else { self.tls }
    }

    /// Whether this is the server's current address. After a failover it is the address of the promoted standby, whose
    /// entry must no longer be treated as a replica.
    pub(crate) fn is_at(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::CredentialId;
    use crate::server::ServerNames;
    use crate::tenant::TenantId;

    fn server() -> DatabaseServer {
        let names = ServerNames::with_prefix("tenantry").unwrap();
        DatabaseServer::new("main".parse().unwrap(), "db2.internal", 6432, names)
    }

    fn entry(tls: Option<TlsMode>) -> TenantDatabase {
        let (tenant, database, login) = (TenantId::new(), "d".parse().unwrap(), "l".parse().unwrap());
        let credential = CredentialId::login(tenant, &database, &login, 1);
        let mut entry = TenantDatabase::primary(tenant, "localhost", 5432, database, login, credential);
        entry.settings.tls = tls;
        entry.settings.root_certificate = Some("old".into());
        entry
    }

    #[test]
    fn locate_replaces_the_address_with_that_of_the_server() {
        let server = DatabaseServer { root_certificate: Some("new".into()), ..server() };
        for (own, expected) in [
            (None, TlsMode::VerifyFull),
            (Some(TlsMode::Prefer), TlsMode::VerifyFull),
            (Some(TlsMode::VerifyFull), TlsMode::VerifyFull),
        ] {
            let located = server.locate(entry(own));
            assert_eq!((located.host.as_str(), located.port), ("db2.internal", 6432));
            assert_eq!(located.settings.tls, Some(expected), "{own:?}");
            assert_eq!(located.settings.root_certificate.as_deref(), Some("new"));
            assert_eq!(server.locate(located.clone()), located, "locate must be idempotent");
        }
        let plain = DatabaseServer { tls: TlsMode::Prefer, ..server };
        assert_eq!(
            plain.locate(entry(Some(TlsMode::Require))).settings.tls,
            Some(TlsMode::Require),
            "the entry's stricter TLS mode must win over the server's"
        );
    }

    #[test]
    fn locate_keeps_the_address_of_a_replica() {
        let replica = TenantDatabase::replica_of(&entry(None), "db3.internal", 5433);
        let located = server().locate(replica);
        assert_eq!((located.host.as_str(), located.port), ("db3.internal", 5433));
        assert_eq!(located.settings.tls, Some(TlsMode::VerifyFull));
        assert_eq!(located.settings.root_certificate.as_deref(), Some("old"), "the replica's certificate must stay");
        let explicit = DatabaseServer { tls: TlsMode::Require, ..server() };
        assert_eq!(explicit.tls_for("db3.internal"), TlsMode::Require, "an explicit mode of the server must be used");
    }
}
