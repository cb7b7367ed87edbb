//! Addresses in the landlord that were changed without the key ring: no password is sent to them.
//!
//! The rogue server of these tests asks for the password in clear text and stores what it receives.
use crate::auditor;
use crate::provision::migrated;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::directory::TenantDatabase;
use tenantry::error::{ResolveError, UntrustedAddress};
use tenantry::registry::TenantRegistry;
use tenantry::server::TlsMode;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that speaks as much of PostgreSQL's protocol as a client needs to send its password.
struct Rogue {
    port: u16,
    accepted: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Rogue {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, received) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let accepted = Arc::<AtomicUsize>::default();
        let (count, store) = (accepted.clone(), received.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let store = store.clone();
                tokio::spawn(async move {
                    let mut all = vec![];
                    let mut buffer = [0u8; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        all.extend_from_slice(&buffer[..read]);
                        store.lock().unwrap().push(all.clone());
                        // An SSLRequest has eight bytes and is answered with one. A startup message is answered with
                        // AuthenticationCleartextPassword.
                        let answer: &[u8] = if all.len() == 8 { b"N" } else { b"R\0\0\0\x08\0\0\0\x03" };
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, accepted, received }
    }
    fn connections(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

/// A node over the harness's landlord, without a set-up: the rows of servers stay as they are.
async fn node(harness: &Harness, configure: impl FnOnce(tenantry::Builder) -> tenantry::Builder) -> Tenantry {
    let builder = Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone());
    configure(migrated(builder)).acquire_timeout(Duration::from_secs(5)).build().await.unwrap()
}

async fn run(harness: &Harness, sql: &'static str) {
    harness.landlord().execute(sql).await.unwrap();
}

async fn lead_to(harness: &Harness, rogue: &Rogue) {
    let lead = "UPDATE tenantry.database_servers SET host = '127.0.0.1', port = $1, tls = 'disable'";
    sqlx::query(lead).bind(i32::from(rogue.port)).execute(harness.landlord()).await.unwrap();
}

/// Makes the landlord look like one of a version without authentication codes.
async fn forget_codes(harness: &Harness) {
    run(harness, "UPDATE tenantry.database_servers SET address_mac = NULL").await;
    run(harness, "DELETE FROM tenantry.credentials WHERE role = 'server addresses'").await;
}

async fn works(node: &Tenantry) -> bool {
    match node.resolve("acme").await {
        Ok(db) => db.execute("SELECT 1").await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_row_that_was_led_to_a_rogue_server_sends_it_nothing() {
    let (harness, rogue) = (Harness::start().await.unwrap(), Rogue::start().await);
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    // The rogue server gets a password from a client that connects to it.
    let options =
        auditor::login(&tenantry, "acme").await.host("127.0.0.1").port(rogue.port).password("canary-password");
    let victim = tokio::time::timeout(Duration::from_secs(2), options.connect()).await;
    assert!(!matches!(victim, Ok(Ok(_))));
    let seen = String::from_utf8_lossy(&rogue.received.lock().unwrap().concat()).into_owned();
    assert!(seen.contains("canary-password"), "the rogue server of this test asks for no password");
    let of_victim = rogue.connections();

    let link = tenantry.tokens().issue_password("acme", "ada@acme.example").await.unwrap();
    lead_to(&harness, &rogue).await;
    let other_node = node(&harness, |b| b).await;
    tenantry.resolver().invalidate_all();
    for node in [&tenantry, &other_node] {
        let error = node.resolve("acme").await.map(drop).unwrap_err();
        let is_changed = matches!(error, ResolveError::Untrusted(UntrustedAddress::Changed { .. }));
        assert!(is_changed, "resolve of a tenant on a server whose row was changed: {error:?}");
        assert!(node.suspend("acme").await.is_err());
        assert!(node.rotate_server("main").await.is_err());
        assert!(node.provision("umbrella").await.is_err());
        let text = secrecy::ExposeSecret::expose_secret(link.token().expose()).to_owned();
        assert!(node.follow_password_link(&text, &"correct horse battery".into()).await.is_err());
        assert!(!node.servers().list().await.unwrap()[0].ready, "a server that is not trusted is listed as ready");
    }
    assert_eq!(rogue.connections(), of_victim, "something has connected to the rogue server");
}

#[tokio::test]
async fn server_row_is_refused_after_a_change_of_any_part_of_its_address_and_usable_when_restored() {
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap().provision("acme").await.unwrap();
    for change in [
        "UPDATE tenantry.database_servers SET host = 'localhost.'",
        "UPDATE tenantry.database_servers SET port = port - 1",
        "UPDATE tenantry.database_servers SET tls = 'disable'",
        "UPDATE tenantry.database_servers SET root_certificate = ''",
        "UPDATE tenantry.database_servers SET address_mac = 'AAAA'",
        "UPDATE tenantry.database_servers SET address_mac = NULL",
    ] {
        run(&harness, "CREATE TABLE before AS SELECT * FROM tenantry.database_servers").await;
        run(&harness, change).await;
        let error = node(&harness, |b| b).await.resolve("acme").await.map(drop).unwrap_err();
        assert!(matches!(error, ResolveError::Untrusted(_)), "{change}: {error:?}");
        run(
            &harness,
            "UPDATE tenantry.database_servers s SET host = b.host, port = b.port, tls = b.tls,
                root_certificate = b.root_certificate, address_mac = b.address_mac FROM before b; DROP TABLE before",
        )
        .await;
        assert!(works(&node(&harness, |b| b).await).await, "{change}: the restored row is still refused");
    }
}

#[tokio::test]
async fn server_row_with_a_code_is_refused_while_the_key_is_missing() {
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap().provision("acme").await.unwrap();
    run(&harness, "DELETE FROM tenantry.credentials WHERE role = 'server addresses'").await;
    let error = node(&harness, |b| b).await.resolve("acme").await.map(drop).unwrap_err();
    assert!(matches!(error, ResolveError::Untrusted(UntrustedAddress::Changed { .. })), "{error:?}");
}

#[tokio::test]
async fn set_up_with_the_right_address_repairs_a_changed_row() {
    let (harness, rogue) = (Harness::start().await.unwrap(), Rogue::start().await);
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    lead_to(&harness, &rogue).await;
    tenantry.servers().set_up("main", harness.server().admin_options()).await.unwrap();
    assert!(works(&node(&harness, |b| b).await).await, "the repaired server is refused");
    assert_eq!(rogue.connections(), 0);
}

#[tokio::test]
async fn landlord_of_a_version_without_codes_works_until_rekey_signs_it() {
    let (harness, rogue) = (Harness::start().await.unwrap(), Rogue::start().await);
    harness.tenantry(migrated).await.unwrap().provision("acme").await.unwrap();
    forget_codes(&harness).await;
    assert!(works(&node(&harness, |b| b).await).await, "rows without codes are refused before the first code");
    let strict = node(&harness, |b| b.require_signed_servers(true)).await;
    let error = strict.resolve("acme").await.map(drop).unwrap_err();
    assert!(matches!(error, ResolveError::Untrusted(UntrustedAddress::Unsigned { .. })), "{error:?}");
    node(&harness, |b| b).await.rekey().await.unwrap();
    assert!(works(&node(&harness, |b| b.require_signed_servers(true)).await).await, "rekey has signed no row");
    run(&harness, "UPDATE tenantry.database_servers SET address_mac = NULL").await;
    lead_to(&harness, &rogue).await;
    let node = node(&harness, |b| b).await;
    node.rekey().await.unwrap();
    assert!(!works(&node).await, "rekey has signed the row of a rogue server");
    assert_eq!(rogue.connections(), 0);
}

/// A row that cannot be parsed has got no code. If the installation were sealed, the row would be refused once it is
/// corrected.
#[tokio::test]
async fn rekey_seals_no_landlord_with_an_unreadable_server() {
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap().provision("acme").await.unwrap();
    forget_codes(&harness).await;
    run(&harness, "UPDATE tenantry.database_servers SET labels = '1e400'").await;
    node(&harness, |b| b).await.rekey().await.unwrap();
    run(&harness, "UPDATE tenantry.database_servers SET labels = '{}'").await;
    let tenantry = node(&harness, |b| b).await;
    assert!(works(&tenantry).await, "the corrected row is refused, because rekey has sealed the landlord without it");
    tenantry.rekey().await.unwrap();
    assert!(works(&node(&harness, |b| b.require_signed_servers(true)).await).await, "rekey has not signed the row");
}

#[tokio::test]
async fn relocate_signs_the_new_address() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (host, port) =
        (harness.server().admin_options().get_host().to_owned(), harness.server().admin_options().get_port());
    let other = if host == "localhost" { "127.0.0.1" } else { "localhost" };
    tenantry.servers().relocate("main", other, port).old_is_fenced().await.unwrap();
    assert!(works(&node(&harness, |b| b.require_signed_servers(true)).await).await);
}

#[tokio::test]
async fn own_addresses_of_entries_must_be_allowed_hosts() {
    let (harness, rogue) = (Harness::start().await.unwrap(), Rogue::start().await);
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let host = harness.server().admin_options().get_host().to_owned();
    let other = if host == "localhost" { "127.0.0.1" } else { "localhost" };
    let primary = tenantry.registry().primary(acme).await.unwrap().unwrap();
    let mut replica = TenantDatabase::replica_of(&primary, other, rogue.port);
    replica.settings.tls = Some(TlsMode::Disable);
    tenantry.registry_writer().put_database(None, &replica, None).await.unwrap();
    let allowed = node(&harness, |b| b.allowed_hosts([host.clone()])).await;
    let db = allowed.resolve("acme").await.unwrap();
    db.read().execute("SELECT 1").await.expect("reads go to the primary if the standby is not trusted");
    let suspended = tokio::time::timeout(Duration::from_secs(3), allowed.suspend("acme").into_future()).await;
    drop(suspended);
    // An entry that names no server any more.
    run(&harness, "DELETE FROM tenantry.tenant_databases WHERE kind = 'replica'").await;
    let detach = "UPDATE tenantry.tenant_databases SET server = NULL, host = $1, port = $2";
    sqlx::query(detach).bind(other).bind(i32::from(rogue.port)).execute(harness.landlord()).await.unwrap();
    run(&harness, "UPDATE tenantry.tenants SET status = 'active'").await;
    let error = node(&harness, |b| b.allowed_hosts([host])).await.resolve("acme").await.map(drop).unwrap_err();
    assert!(matches!(error, ResolveError::Untrusted(UntrustedAddress::Host { .. })), "{error:?}");
    assert_eq!(rogue.connections(), 0, "something has connected to a host that is not allowed");
}

#[tokio::test]
async fn weaker_tls_mode_than_required_is_refused_before_anything_is_written() {
    let harness = Harness::start().await.unwrap();
    let strict = node(&harness, |b| b.require_tls(TlsMode::VerifyFull)).await;
    let admin = harness.server().admin_options().host("127.0.0.1");
    let address = strict.servers().set_up("main", admin).prefix(harness.prefix()).address("db.example", 5432);
    let error = address.tls(TlsMode::Disable).await.map(drop).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("Tls") && text.contains("db.example"), "{text}");
    assert!(strict.servers().list().await.unwrap().is_empty(), "a server with a weak TLS mode is registered");
    let mut session: PgConnection = harness.server().admin_options().connect().await.unwrap();
    let roles = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1 || '_blue')";
    let made: i64 = sqlx::query_scalar(roles).bind(harness.prefix()).fetch_one(&mut session).await.unwrap();
    assert_eq!(made, 0);
    session.close().await.unwrap();
}
