//! Where a directory entry leads. The layers above read an entry and its server's row, and connect only to what
//! [`DatabaseServer::locate`] returns.
//!
//! Invariant: an entry that names a server is never reached at its own host and port, unless it is a replica.
use super::{DatabaseServer, TlsMode};
use crate::directory::{DatabaseKind, TenantDatabase};

impl DatabaseServer {
    /// The entry as it is reached: at this server's address, with this server's certificate. TLS settings of the entry's
    /// own count where they demand more. A replica keeps its host and port, and what the host set for it; only what the
    /// host did not set comes from the row.
    ///
    /// The result is for connecting only. It is never written back: host and port are part of the entry's key.
    pub(crate) fn locate(&self, mut entry: TenantDatabase) -> TenantDatabase {
        let settings = &mut entry.settings;
        if entry.kind == DatabaseKind::Replica {
            settings.tls.get_or_insert(self.tls_for(&entry.host));
            settings.root_certificate = settings.root_certificate.take().or_else(|| self.root_certificate.clone());
            return entry;
        }
        settings.tls = Some(settings.tls.unwrap_or(self.tls).stricter(self.tls));
        settings.root_certificate = self.root_certificate.clone().or(settings.root_certificate.take());
        entry.host.clone_from(&self.host);
        entry.port = self.port;
        entry
    }

    /// The TLS mode for a standby of this server: the row's if the host chose it, else the default for that host name.
    pub(crate) fn tls_for(&self, host: &str) -> TlsMode {
        if self.tls == TlsMode::default_for(&self.host) { TlsMode::default_for(host) } else { self.tls }
    }

    /// Whether this is the server's own address. After a failover the entry of the promoted standby is no replica any more.
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
    fn locate_takes_the_address_of_the_row() {
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
            assert_eq!(server.locate(located.clone()), located, "a second time changes nothing");
        }
        let plain = DatabaseServer { tls: TlsMode::Prefer, ..server };
        assert_eq!(
            plain.locate(entry(Some(TlsMode::Require))).settings.tls,
            Some(TlsMode::Require),
            "a host may demand more"
        );
    }

    #[test]
    fn locate_leaves_a_replica_where_it_is() {
        let replica = TenantDatabase::replica_of(&entry(None), "db3.internal", 5433);
        let located = server().locate(replica);
        assert_eq!((located.host.as_str(), located.port), ("db3.internal", 5433));
        assert_eq!(located.settings.tls, Some(TlsMode::VerifyFull));
        assert_eq!(located.settings.root_certificate.as_deref(), Some("old"), "what the host set stays");
        let chosen = DatabaseServer { tls: TlsMode::Require, ..server() };
        assert_eq!(chosen.tls_for("db3.internal"), TlsMode::Require, "what the host chose for the server");
    }
}
