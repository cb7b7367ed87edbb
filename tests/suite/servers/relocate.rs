//! `servers().relocate()`: what it verifies before it stores the new address of a server.
//!
//! The test server is reached as `127.0.0.1` and as `localhost`: two addresses of the same cluster.
use super::again::servers_with_outage;
use super::bare;
use crate::engine::failing::{Lost, Outage};
use crate::lanes::Stopped;
use crate::provision::{migrated, statement_of};
use futures_util::StreamExt;
use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor, PgConnection};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tenantry::error::{ClusterError, RelocateError, ResolveError, ServerSetupError};
use tenantry::names::ServerName;
use tenantry::registry::{Change, PgChanges, PgTenantRegistry, ServerRegistry};
use tenantry::resolver::PooledResolver;
use tenantry::server::{DatabaseServer, TlsMode};
use tenantry::testing::proxy::{Director, Point, Proxy, Verdict};
use tenantry::testing::{Harness, TestServer};
use tenantry::{ConnectionResolver, Tenantry, sqlx};
use tokio::net::TcpListener;

/// The stored row of the server `main`.
async fn stored(harness: &Harness) -> DatabaseServer {
    let registry = PgTenantRegistry::new(harness.landlord().clone());
    let name: ServerName = "main".parse().unwrap();
    registry.server(&name).await.unwrap().expect("a server").server
}

/// An installation whose server `main` is set up at 127.0.0.1, and the server's port.
async fn at_loopback() -> (Harness, Tenantry, u16) {
    let harness = Harness::start().await.unwrap();
    let builder = Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone());
    let tenantry = migrated(builder).build().await.unwrap();
    let set_up = tenantry.servers().set_up("main", admin(&harness)).prefix(harness.prefix());
    set_up.await.unwrap();
    let port = admin(&harness).get_port();
    assert_eq!(stored(&harness).await.host, "127.0.0.1");
    (harness, tenantry, port)
}

/// The superuser at 127.0.0.1. Without this, a container would be reached by its name.
fn admin(harness: &Harness) -> PgConnectOptions {
    harness.server().admin_options().host("127.0.0.1")
}

/// A superuser's session in the maintenance database of this installation.
async fn maintenance(harness: &Harness) -> PgConnection {
    let database = format!("{}_maintenance", harness.prefix());
    harness.server().admin_options().database(&database).connect().await.unwrap()
}

/// How many operations the journal has, open or ended.
async fn operations(harness: &Harness) -> i64 {
    const ALL: &str = "SELECT count(*) FROM tenantry.operations";
    sqlx::query_scalar(ALL).fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test]
async fn set_up_with_another_address_is_refused_before_it_connects() {
    let (harness, tenantry, port) = at_loopback().await;
    let (before, operations_before) = (stored(&harness).await, operations(&harness).await);
    let set_up = |admin: PgConnectOptions| tenantry.servers().set_up("main", admin).weight(7);
    let results = [
        set_up(admin(&harness).host("localhost")).await.map(drop),
        // Nothing listens on this port. If set_up connected, the error would be a connection error.
        set_up(admin(&harness).port(1)).await.map(drop),
        set_up(admin(&harness)).address("localhost", port).script().await.map(drop),
        set_up(admin(&harness)).address("localhost", port).confirm().await.map(drop),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(&error, ServerSetupError::Moved { .. }), "{error:?}");
        assert!(error.to_string().contains("relocate()"), "{error}");
    }
    assert_eq!(stored(&harness).await, before);
    assert_eq!(operations(&harness).await, operations_before, "no operation was begun");
    set_up(admin(&harness)).await.expect("a repeated set-up at the stored address failed");
}

#[tokio::test]
async fn relocate_refuses_while_the_old_address_takes_writes() {
    let (harness, tenantry, port) = at_loopback().await;
    let before = stored(&harness).await;
    let error = tenantry.servers().relocate("main", "localhost", port).await.unwrap_err();
    assert!(matches!(&error, RelocateError::OldAnswers { host, .. } if host == "127.0.0.1"), "{error:?}");
    assert_eq!(stored(&harness).await, before);
    assert!(
        tenantry.operations().open().await.unwrap().is_empty(),
        "a refused relocation still occupies the server's lane"
    );
    let moved = tenantry.servers().relocate("main", "localhost", port).old_is_fenced().await.unwrap();
    assert_eq!((moved.server.host.as_str(), moved.is_same_cluster_seen), ("localhost", true));
    let mut expected = before;
    expected.host = "localhost".into();
    expected.address_mac = stored(&harness).await.address_mac;
    assert_eq!(stored(&harness).await, expected);
    let unknown = tenantry.servers().relocate("other", "localhost", port).await.unwrap_err();
    assert!(matches!(unknown, RelocateError::Unknown { .. }), "{unknown:?}");
}

#[tokio::test]
async fn relocate_refuses_an_old_address_that_cannot_be_judged() {
    let (harness, tenantry, port) = at_loopback().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closing_port = listener.local_addr().unwrap().port();
    let acceptor = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let by_hand = sqlx::query("UPDATE tenantry.database_servers SET port = $1").bind(i32::from(closing_port));
    by_hand.execute(harness.landlord()).await.unwrap();
    harness.sign_servers(&tenantry).await.unwrap();
    let error = tenantry.servers().relocate("main", "127.0.0.1", port).await.unwrap_err();
    assert!(matches!(&error, RelocateError::OldUnseen { port, .. } if *port == closing_port), "{error:?}");
    assert_eq!(stored(&harness).await.port, closing_port);
    acceptor.abort();
    assert!(acceptor.await.is_err());
    tenantry
        .servers()
        .relocate("main", "127.0.0.1", port)
        .await
        .expect("relocate failed although nothing listens at the old address");
    assert_eq!(stored(&harness).await.port, port);
}

#[tokio::test]
async fn relocate_refuses_a_cluster_without_the_mark() {
    let (harness, tenantry, port) = at_loopback().await;
    let before = stored(&harness).await;
    let other = TestServer::builder().start().await.unwrap();
    let elsewhere = other.admin_options().get_port();
    let error = tenantry.servers().relocate("main", "127.0.0.1", elsewhere).old_is_fenced().await.unwrap_err();
    let RelocateError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, ClusterError::Connect { .. }), "{source:?}");

    let mut session = maintenance(&harness).await;
    let relocate = || tenantry.servers().relocate("main", "localhost", port).old_is_fenced();
    for wrong in [
        "UPDATE public.tenantry_mark SET server = 'other'",
        "DELETE FROM public.tenantry_mark",
        "DROP TABLE public.tenantry_mark",
    ] {
        session.execute(wrong).await.unwrap();
        let error = relocate().await.unwrap_err();
        assert!(matches!(&error, RelocateError::NoMark { .. }), "{wrong}: {error:?}");
        assert!(error.to_string().contains("set_up()"), "{error}");
    }
    assert_eq!(stored(&harness).await, before);
    tenantry.servers().set_up("main", admin(&harness)).await.expect("set_up did not write the mark again");
    relocate().await.unwrap();
}

#[tokio::test]
async fn relocate_refuses_another_system_identifier_unless_replaced() {
    let (harness, tenantry, port) = at_loopback().await;
    let real = stored(&harness).await.system_identifier.expect("set_up stored no system identifier");
    let another = "UPDATE tenantry.database_servers SET system_identifier = system_identifier - 1";
    harness.landlord().execute(another).await.unwrap();
    let relocate = || tenantry.servers().relocate("main", "localhost", port).old_is_fenced();
    let error = relocate().await.unwrap_err();
    assert!(matches!(error, RelocateError::OtherCluster { found, .. } if found == real), "{error:?}");
    assert_eq!(stored(&harness).await.host, "127.0.0.1");
    let moved = relocate().replaced().await.unwrap();
    assert!(!moved.is_same_cluster_seen);
    assert_eq!(stored(&harness).await.system_identifier, Some(real));

    harness.landlord().execute("UPDATE tenantry.database_servers SET system_identifier = NULL").await.unwrap();
    let back = tenantry.servers().relocate("main", "127.0.0.1", port).old_is_fenced();
    assert!(!back.await.expect("relocate failed although no system identifier is stored").is_same_cluster_seen);
    assert_eq!(
        stored(&harness).await.system_identifier,
        Some(real),
        "the first relocation did not store the system identifier"
    );
}

#[tokio::test]
async fn relocate_refuses_an_identifier_that_it_may_not_read() {
    let (harness, tenantry, port) = at_loopback().await;
    let mut session = maintenance(&harness).await;
    session.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC").await.unwrap();
    let relocate = || tenantry.servers().relocate("main", "localhost", port).old_is_fenced();
    let error = relocate().await.unwrap_err();
    assert!(matches!(error, RelocateError::IdentifierUnseen { .. }), "{error:?}");
    assert!(!relocate().replaced().await.unwrap().is_same_cluster_seen);
    assert_eq!(stored(&harness).await.system_identifier, None);
}

#[tokio::test]
async fn resolve_uses_a_stricter_tls_mode_of_the_server() {
    let (harness, tenantry, port) = at_loopback().await;
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("SELECT 1 FROM notes").await.unwrap();
    let relocate = tenantry.servers().relocate("main", "127.0.0.1", port).tls(TlsMode::Require);
    let error = relocate.await.unwrap_err();
    assert!(
        matches!(error, RelocateError::Unreachable { .. }),
        "relocate accepted a TLS mode that the server does not offer: {error:?}"
    );
    // Written directly, because relocate refuses it for a server without TLS.
    harness.landlord().execute("UPDATE tenantry.database_servers SET tls = 'require'").await.unwrap();
    harness.sign_servers(&tenantry).await.unwrap();
    tenantry.resolver().invalidate_all();
    let db = tenantry.resolve("acme").await.unwrap();
    let error = db.execute("SELECT 1").await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn resolve_fails_and_names_the_server_when_it_is_not_registered() {
    let (harness, tenantry, _) = at_loopback().await;
    tenantry.provision("acme").await.unwrap();
    let alone = PooledResolver::builder(tenantry.registry(), tenantry.vault()).build();
    let error = alone.resolve("acme".into()).await.unwrap_err();
    assert!(matches!(&error, ResolveError::UnknownServer { server, .. } if server.as_str() == "main"), "{error:?}");
    harness.landlord().execute("DELETE FROM tenantry.placements").await.unwrap();
    harness.landlord().execute("DELETE FROM tenantry.database_servers").await.unwrap();
    let error = tenantry.resolve("acme").await.unwrap_err();
    assert!(matches!(&error, ResolveError::UnknownServer { .. }), "{error:?}");
    assert!(error.to_string().contains("main"), "{error}");
    let error = tenantry.migration_status("acme").await.unwrap_err();
    assert!(
        matches!(&error, tenantry::error::ChangeError::UnknownServer { server, .. } if server == "main"),
        "{error:?}"
    );
}

/// Before this migration, each entry contained a copy of the TLS settings of its server.
#[tokio::test]
async fn schema_migration_removes_copied_tls_settings_from_entries() {
    const COPY: &str = include_str!("../../../src/store/schema/migrations/5_server_address.sql");
    let update = COPY.find("UPDATE tenantry.tenant_databases d").unwrap();
    let update = &COPY[update..][..COPY[update..].find(';').unwrap()];
    let (harness, tenantry, _) = at_loopback().await;
    for slug in ["copy", "own"] {
        tenantry.provision(slug).await.unwrap();
    }
    let own = "UPDATE tenantry.tenant_databases d SET settings = CASE t.slug WHEN 'copy' THEN '{\"tls\": \"prefer\"}'
        ELSE '{\"tls\": \"verify_ca\", \"search_path\": [\"x\"]}' END::jsonb FROM tenantry.tenants t WHERE t.id = d.tenant_id";
    harness.landlord().execute(own).await.unwrap();
    harness.landlord().execute(statement_of(update.to_owned())).await.unwrap();
    const SETTINGS: &str = "SELECT t.slug, d.settings::text FROM tenantry.tenant_databases d
        JOIN tenantry.tenants t ON t.id = d.tenant_id ORDER BY 1";
    let settings: Vec<(String, String)> = sqlx::query_as(SETTINGS).fetch_all(harness.landlord()).await.unwrap();
    assert_eq!(settings[0].1, "{}");
    assert!(settings[1].1.contains("verify_ca"), "{settings:?}");
}

#[tokio::test]
async fn relocate_refuses_a_server_whose_set_up_is_incomplete() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = admin(&harness);
    tenantry.servers().set_up("main", admin.clone()).prefix(harness.prefix()).script().await.unwrap();
    let error = tenantry.servers().relocate("main", "localhost", admin.get_port()).await.unwrap_err();
    assert!(matches!(error, RelocateError::NotReady { .. }), "{error:?}");
    let other = tenantry.servers().set_up("main", admin.clone().host("localhost")).prefix(harness.prefix());
    other.await.expect("set_up with another address failed although the server was not ready yet");
}

/// An application with its own registry has no entries in the landlord. The relocation must notify such tenants by
/// their placement.
#[tokio::test]
async fn relocate_notifies_tenants_without_an_entry_in_the_landlord() {
    let (harness, tenantry, port) = at_loopback().await;
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    harness.landlord().execute("DELETE FROM tenantry.tenant_databases").await.unwrap();
    let mut changes = PgChanges::new(harness.landlord().clone()).follow();
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(20), changes.next()).await.expect("a change").unwrap();
    assert_eq!(next().await, Change::Missed);
    tenantry.servers().relocate("main", "localhost", port).old_is_fenced().await.unwrap();
    assert_eq!(next().await, Change::Tenant(acme));
}

/// From its n-th write on the journal fails, as after a crash of the process. `old_is_fenced` is part of the stored
/// request, so recovery has it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relocate_interrupted_at_any_write_is_completed_by_recovery() {
    let (harness, tenantry, port) = at_loopback().await;
    for n in 1.. {
        let host = if n % 2 == 1 { "localhost" } else { "127.0.0.1" };
        let (servers, journal) =
            servers_with_outage(&harness, &tenantry, Outage::of(n..u32::MAX, Lost::Call).only("record"));
        let interrupted = servers.relocate("main", host, port).old_is_fenced().await;
        if journal.hit().is_empty() {
            interrupted.expect("relocate failed without an outage");
            assert!(n > 3, "a relocation writes at least three records, but only {} were interrupted", n - 1);
            break;
        }
        assert!(interrupted.is_err(), "relocate succeeded although the journal failed from write {n} on");
        let begun = Instant::now();
        while !tenantry.operations().open().await.unwrap().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "interrupted at write {n}: still open after 60 s");
            tenantry.operations().recover().await.unwrap();
        }
        assert_eq!(
            stored(&harness).await.host,
            host,
            "interrupted at write {n}: recovery did not store the new address"
        );
        tenantry
            .servers()
            .set_up("main", admin(&harness).host(host))
            .await
            .expect("the server's lane is not free after recovery");
    }
}

/// Provisionings that died at each point where a step was done but not recorded yet. Then the server is relocated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_provisionings_are_completed_after_a_relocation() {
    let (harness, tenantry, port) = at_loopback().await;
    let stopped = join_all((2..24).map(async |n| {
        let slug = format!("record-{n}");
        Some((slug.clone(), Stopped::at(&harness, &tenantry, slug, "record", n).await?))
    }));
    let stopped: Vec<_> = stopped.await.into_iter().flatten().collect();
    assert!(stopped.len() > 10, "only {} provisionings were stopped", stopped.len());
    tenantry.servers().relocate("main", "localhost", port).old_is_fenced().await.unwrap();
    let mut slugs = vec![];
    for (slug, worker) in stopped {
        worker.dies(harness.landlord()).await;
        slugs.push(slug);
    }
    let begun = Instant::now();
    while !tenantry.operations().open().await.unwrap().is_empty() {
        let open = tenantry.operations().open().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(120), "operations are still open after 120 s: {open:?}");
        tenantry.operations().recover().await.unwrap();
    }
    const UNDONE: &str = "SELECT request->>'slug' || ' ' || step || ': ' || outputs::text FROM tenantry.operations WHERE status = 'undone'";
    let undone: Vec<Option<String>> = sqlx::query_scalar(UNDONE).fetch_all(harness.landlord()).await.unwrap();
    assert!(undone.is_empty(), "operations were undone instead of completed: {undone:?}");
    for slug in slugs {
        let db = tenantry.resolve(slug.as_str()).await.unwrap_or_else(|e| panic!("{slug}: {e}"));
        db.execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap_or_else(|e| panic!("{slug}: {e}"));
    }
}

struct ForwardAll;
#[async_trait::async_trait]
impl Director for ForwardAll {
    async fn at(&self, _: Point) -> Verdict {
        Verdict::Forward
    }
}

/// The first worker of a rotation logs in while its intent is committed. If the server's address changes at that
/// moment, the worker must not act in the session that it has opened at the old address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_drops_a_session_that_was_opened_at_an_address_that_is_no_longer_stored() {
    let (harness, tenantry, port) = at_loopback().await;
    tenantry.provision("acme").await.unwrap();
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port)), ForwardAll).await.unwrap();
    const SET_PORT: &str = "UPDATE tenantry.database_servers SET port = $1, address_mac = $2";
    let code = stored(&harness).await.address_mac;
    sqlx::query(SET_PORT).bind(i32::from(proxy.port())).bind(&code).execute(harness.landlord()).await.unwrap();
    harness.sign_servers(&tenantry).await.unwrap();
    // The intent waits for this lock; the worker's session is opened meanwhile.
    let mut lock = harness.landlord().begin().await.unwrap();
    lock.execute("LOCK TABLE tenantry.operations IN SHARE MODE").await.unwrap();
    let caller = tenantry.clone();
    let rotation = tokio::spawn(async move { caller.rotate("acme").grace(Duration::ZERO).await });
    const OPENED: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'tenantry/%/1')";
    let mut inside = maintenance(&harness).await;
    let limit = Instant::now() + Duration::from_secs(30);
    while !sqlx::query_scalar::<_, bool>(OPENED).fetch_one(&mut inside).await.unwrap() {
        assert!(Instant::now() < limit, "the rotation opened no session while its intent was committed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::query(SET_PORT).bind(i32::from(port)).bind(&code).execute(&mut *lock).await.unwrap();
    proxy.cut_all();
    lock.commit().await.unwrap();
    rotation.await.unwrap().unwrap();
    let epoch = sqlx::query_scalar(
        "SELECT epoch FROM tenantry.epochs JOIN tenantry.operations ON id = operation WHERE kind = 'rotate'",
    );
    let epoch: i64 = epoch.fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(epoch, 1, "the worker used the session at the old address and had to start again under a new epoch");
    proxy.stop().await;
}
