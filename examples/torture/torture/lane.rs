//! A lane: two servers, the proxies in front of them, and the driver's own nodes. A lane performs one run at a time.
//!
//! The child connects only through the proxies. The driver's nodes and the auditor bypass the landlord's proxy, and the
//! proxies never inject a fault into their statements.
use super::AnyError;
use super::director::{StatementTracker, Via};
use super::saga::Saga;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, SqlSafeStr};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tenantry::testing::proxy::Proxy;
use tenantry::testing::{TestServer, connect_options};
use tenantry::vault::LocalKeyring;
use tenantry::{Builder, Tenantry, sqlx};

pub(crate) const PREFIX: &str = "torture";
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// Versions of the application, which differ in their migrations.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    /// Has the first migration only.
    Old,
    /// Has both migrations.
    New,
    /// Its second migration fails.
    Broken,
}
impl Program {
    pub(crate) fn for_saga(saga: Saga) -> Self {
        if saga.is_broken() { Self::Broken } else { Self::New }
    }
    fn migrations(self) -> &'static Migrator {
        const NOTES: &str = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, text text NOT NULL)";
        const DONE: &str = "ALTER TABLE notes ADD COLUMN done boolean NOT NULL DEFAULT false";
        const BROKEN: &str = "ALTER TABLE there_is_no_such_table ADD COLUMN x int";
        let texts: &[&'static str] = match self {
            Self::Old => &[NOTES],
            Self::New => &[NOTES, DONE],
            Self::Broken => &[NOTES, BROKEN],
        };
        let one = |(at, text): (usize, &&'static str)| {
            Migration::new(at as i64 + 1, "m".into(), MigrationType::Simple, text.into_sql_str(), false)
        };
        Box::leak(Box::new(Migrator::with_migrations(texts.iter().enumerate().map(one).collect())))
    }
}

/// The settings that the child and the driver's nodes share.
pub(crate) fn builder(landlord: PgPool, keys: &str, program: Program) -> Result<Builder, AnyError> {
    let builder = Tenantry::builder(landlord).keys(LocalKeyring::from_text(keys)?);
    let builder = builder.tenant_migrations(program.migrations()).lease(LEASE).attempts(3);
    Ok(builder.backoff(Duration::from_millis(20), Duration::from_millis(500)))
}

/// Servers, proxies and nodes.
pub(crate) struct Lane {
    pub(crate) near: TestServer,
    pub(crate) far: TestServer,
    proxies: Vec<Proxy>,
    pub(crate) tracker: StatementTracker,
    pub(crate) landlord: PgPool,
    pub(crate) keys: String,
    pub(crate) password: String,
    pub(crate) landlord_port: u16,
    /// A node of the new program. It prepares, recovers and checks, and no fault is injected into its statements.
    pub(crate) rescuer: Tenantry,
    /// A node of the old program, to prepare a migration.
    pub(crate) old: Tenantry,
}

impl Lane {
    /// Starts the two servers. The near server has the landlord and tenants, the far server has only tenants.
    pub(crate) async fn open() -> Result<Self, AnyError> {
        let (near, far) = (start_server().await?, start_server().await?);
        let tracker = StatementTracker::default();
        let mut proxies = vec![];
        for (server, via) in [(&near, Via::Landlord), (&near, Via::Near), (&far, Via::Far)] {
            proxies.push(Proxy::start(address(server), tracker.director(via)).await?);
        }
        let password = random_key();
        let landlord = create_landlord(&near, &password).await?;
        tenantry::schema::install(&landlord).await?;
        install_write_triggers(&landlord).await?;
        let keys = format!("k1:{},k2:{}", random_key(), random_key());
        let rescuer = builder(landlord.clone(), &keys, Program::New)?.build().await?;
        let old = builder(landlord.clone(), &keys, Program::Old)?.build().await?;
        for (name, server, proxy) in [("near", &near, &proxies[1]), ("far", &far, &proxies[2])] {
            let admin = server.admin_options().host("127.0.0.1").port(proxy.port());
            rescuer.servers().set_up(name, admin).prefix(PREFIX).capacity(1_000_000).await?;
        }
        for server in ["near", "far"] {
            rescuer.provision(format!("neighbour-{server}")).server(server).await?;
        }
        let landlord_port = proxies[0].port();
        Ok(Self { near, far, proxies, tracker, landlord, keys, password, landlord_port, rescuer, old })
    }
    /// The same keys in reverse order, so that the other one is primary.
    pub(crate) fn other_keys(&self) -> String {
        let (first, second) = self.keys.split_once(',').unwrap_or_default();
        format!("{second},{first}")
    }
    /// Connect options of the server admin of the near server.
    pub(crate) fn dba_options(&self) -> PgConnectOptions {
        dba_options(self.near_port(), &self.password)
    }
    pub(crate) fn near_port(&self) -> u16 {
        self.proxies[1].port()
    }
    pub(crate) fn server(&self, name: &str) -> &TestServer {
        if name == "far" { &self.far } else { &self.near }
    }
    pub(crate) async fn close(self) -> Result<(), AnyError> {
        self.rescuer.close().await;
        self.old.close().await;
        self.landlord.close().await;
        for proxy in self.proxies {
            proxy.stop().await;
        }
        self.near.stop().await?;
        Ok(self.far.stop().await?)
    }
}

async fn start_server() -> Result<TestServer, AnyError> {
    let settings = [
        ("log_statement", "all"),
        ("log_line_prefix", "%m [%p] %a "),
        ("max_prepared_transactions", "10"),
        ("wal_level", "logical"),
    ];
    let builder = settings.into_iter().fold(TestServer::builder().durable(true), |b, (n, v)| b.setting(n, v));
    Ok(builder.local_only().start().await?)
}

fn address(server: &TestServer) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, server.admin_options().get_port()).into()
}

/// Connect options of the server admin of the near server, through the proxy at this port.
pub(crate) fn dba_options(port: u16, password: &str) -> PgConnectOptions {
    connect_options("127.0.0.1", port, "torture_dba", password, "postgres")
}

/// Sets up a server with its own prefix.
pub(crate) async fn set_up(tenantry: &Tenantry, name: &str, dba: PgConnectOptions) -> Result<(), AnyError> {
    tenantry.servers().set_up(name, dba).prefix(format!("torture_{name}")).await?;
    Ok(())
}

/// 32 random bytes in base64: a key or a password.
fn random_key() -> String {
    data_encoding::BASE64.encode(&rand::random::<[u8; 32]>())
}

async fn create_landlord(server: &TestServer, password: &str) -> Result<PgPool, AnyError> {
    let mut admin = server.admin_options().connect().await?;
    #[expect(clippy::disallowed_methods, reason = "the password is base64, and the rest is fixed")]
    let role = sqlx::AssertSqlSafe(format!("CREATE ROLE torture_landlord LOGIN PASSWORD '{password}'"));
    admin.execute(role).await?;
    admin.execute("CREATE DATABASE torture_landlord OWNER torture_landlord").await?;
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let role = sqlx::AssertSqlSafe(format!("CREATE ROLE torture_dba SUPERUSER LOGIN PASSWORD '{password}'"));
    admin.execute(role).await?;
    let options: PgConnectOptions = server.admin_options().username("torture_landlord").password(password);
    let options = options.database("torture_landlord").application_name("torture rescuer");
    Ok(PgPoolOptions::new().max_connections(6).acquire_timeout(Duration::from_secs(20)).connect_lazy_with(options))
}

/// Installs triggers that record the `application_name` of every write to the landlord. The auditor reads them to find
/// writes of a child that had lost its lease.
async fn install_write_triggers(landlord: &PgPool) -> Result<(), AnyError> {
    const WATCH: &str = "CREATE SCHEMA torture;
        CREATE TABLE torture.writes (n bigint GENERATED ALWAYS AS IDENTITY, who text, what text);
        CREATE FUNCTION torture.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO torture.writes (who, what)
                VALUES (current_setting('application_name'), TG_OP || ' ' || TG_TABLE_NAME);
            RETURN NULL;
        END $$;
        DO $$ DECLARE t text; BEGIN
            FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'tenantry' LOOP
                EXECUTE format('CREATE TRIGGER torture AFTER INSERT OR UPDATE OR DELETE ON tenantry.%I
                    FOR EACH ROW EXECUTE FUNCTION torture.note()', t);
            END LOOP;
        END $$";
    landlord.execute(WATCH).await?;
    Ok(())
}

/// Opens a superuser's session that bypasses the proxies.
pub(crate) async fn superuser(server: &TestServer) -> Result<PgConnection, AnyError> {
    Ok(server.admin_options().application_name("torture auditor").connect().await?)
}
