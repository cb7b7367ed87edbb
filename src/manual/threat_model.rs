//! Who may attack an installation, what this crate does against each, and what it does not.
//!
//! The crate protects tenants from each other, and protects their passwords. It does not replace a firewall, disk
//! encryption or the access rights of the landlord's database.
//!
//! # A tenant with SQL
//!
//! A tenant's user who can run any SQL as the tenant's login: by an injection into the application, or because the
//! password has leaked.
//!
//! | holds | does not hold |
//! |---|---|
//! | The login can connect only to the tenant's own database, and to databases that PUBLIC may enter. `set_up` closes the landlord's database, and with `close_shared(true)` also `postgres` and `template1`. | Without `close_shared` the login can enter `postgres` and `template1`, and read what every role may read there. |
//! | The names of databases and roles do not contain the tenant's slug. | PostgreSQL shows the names of all databases and roles to every login, so tenants can be counted. |
//! | A suspension, an archive and a purge do not depend on the tenant: logins are refused on the server, sessions are ended, and the result is read back. Locks that the tenant holds delay them and do not stop them. | A session on a standby that does not answer ends only when the standby answers. |
//! | CONNECTION LIMIT bounds the sessions of a login over all nodes. | CPU, disk and I/O of a server are shared. A tenant can make its neighbours slow. |
//! | A tenant can fill the server's notification queue. Nodes then read changes from a table. | |
//! | A hash of a password in `tenant_users` that needs more than 64 MiB or 16 passes is not computed. | A tenant with SQL can set the password of its own admins. |
//!
//! # An outsider on the web
//!
//! | holds | does not hold |
//! |---|---|
//! | A setup link is 190 random bits, works once, expires, and is stored as a hash. All invalid links get the same answer, and attempts are limited per client and per tenant. | A reader of the mail, or of an access log with paths, has the link. Limits count per process. |
//! | A link for an address works for the admin with exactly that address; only the case of ASCII letters does not count. Invisible characters in addresses are refused. | The application must mail a link to the address that it has stored, not to one that a visitor has typed. |
//! | A request that names its host twice is refused. A custom domain never gets requests for a suffix of `Identify::subdomain_of`; [`reserve_domain`](crate::Builder::reserve_domain) refuses such a domain. | `X-Forwarded-Host` and the client's address are believed behind a proxy, so the proxy must set them itself. Whether a custom domain belongs to the tenant is the application's check. |
//! | A burst of password posts computes four hashes at a time, in 76 MiB that are used again, and connects only under a worker permit of the server. | A flood of requests is not the crate's to stop. |
//!
//! # A reader of the landlord
//!
//! A role that can read the schema `tenantry`, and an attacker with a stolen backup of the landlord or of its whole
//! cluster.
//!
//! | holds | does not hold |
//! |---|---|
//! | Passwords of logins and links are sealed with AES-256-GCM under the application's keys. Without the keys they are noise. | Who the tenants are, where their databases are, their metadata, the requests of operations, the addresses of admins and of clients that followed links are in clear text. |
//! | The server stores SCRAM verifiers only, and this crate sends no password in a statement. A statement that is expected to fail contains no verifier, so it is not in the server's log. | A statement that sets a verifier is in the log if the server logs all statements; see [`roles`](super::roles). From a verifier, random passwords of 190 bits cannot be guessed. |
//! | A backup stays unreadable if its keys are destroyed, where each tenant has a key of its own: see [`KeyDisposal`](crate::vault::KeyDisposal). | With a [`LocalKeyring`](crate::vault::LocalKeyring) a purged tenant's secrets can be opened in an old backup as long as the key exists. |
//!
//! # A writer of the landlord
//!
//! A role that can write to the schema `tenantry`, and has no keys. **Write access to the landlord is nearly as much as
//! the application's own rights.** Grant it to the application only.
//!
//! | holds | does not hold |
//! |---|---|
//! | A sealed secret opens only under the id for which it was sealed. It cannot be moved to another tenant, login or version. | A writer can delete secrets, and put back an older record of the same id. |
//! | Host, port, TLS mode and root certificate of a server's row are authenticated with a key that only the key ring opens. A row that was changed is refused, with [`UntrustedAddress`](crate::error::UntrustedAddress), before a connection is opened. | A row can be put back to an older state that was authenticated. A writer who also deletes the key's records makes the landlord look like one of a version without codes; only [`require_signed_servers`](crate::Builder::require_signed_servers) refuses its rows then. |
//! | With [`allowed_hosts`](crate::Builder::allowed_hosts) and [`require_tls`](crate::Builder::require_tls) no password is sent to another host, or with weaker TLS, whatever the landlord says. This also covers the addresses that entries have of their own (standbys, entries without a server) and relocations. | **Without `allowed_hosts`, a writer can add a directory entry with a host of their own, or begin a relocation to it, and gets the password.** A standby's entry may name its own root certificate. |
//! | | A writer can make a tenant active that was suspended in the landlord, give a domain to another tenant, begin operations (a purge, for example), and set its own placement and entries: which tenant is on which database is not authenticated. |
//! | | A resolver that the application builds by itself over a [`PgTenantRegistry`](crate::registry::PgTenantRegistry) does not check codes. |
//!
//! # The network
//!
//! | holds | does not hold |
//! |---|---|
//! | [`TlsMode::VerifyFull`](crate::server::TlsMode) is the default for every host that is not on this machine, so a server must prove its name. | A mode below `VerifyCa` does not authenticate the server. sqlx 0.9 has no setting for it: it sends the password in clear text, or hashed with MD5, to a server that asks for it so, and accepts a server that asks for nothing. So the authentication of the server rests on TLS, on the row's code and on `allowed_hosts`, not on SCRAM. |
//! | | The connection to the landlord is the application's own pool, with the application's TLS settings. |
//!
//! # A stolen key
//!
//! Keys alone open nothing: the sealed records are in the landlord. With both, every password can be read. Replace the
//! key ([`rekey`](crate::rekey)), rotate all logins ([`Tenantry::rotate_all`](crate::Tenantry::rotate_all)) and the
//! provisioner's passwords ([`Tenantry::rotate_server`](crate::Tenantry::rotate_server)).
//!
//! A key is in the process's memory once, in the cipher of the key ring, and is overwritten when the ring is dropped. The
//! environment variable from which it was read stays readable for the process's user (`/proc/<pid>/environ`). Passwords
//! are in the memory of sqlx as long as their connection options are. Memory that is swapped or dumped is not protected.
//!
//! # An operator
//!
//! A person who can deploy the application, or is a superuser of the landlord's or a tenant server's cluster, can do
//! everything. The journal records what this crate was asked to do, and the reason that the caller gave. It is a table
//! that an operator can change.
