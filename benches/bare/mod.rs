//! The reference of the benchmarks `provision` and `rotate`: the SQL statements of these operations and nothing else.
//!
//! [`Bare`] makes the same connections, computes the same SCRAM verifiers and applies the same migrations as the
//! library. It keeps no journal, takes no locks and checks nothing, so the ratio shows the cost of these.
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use std::time::{Duration, Instant};
use tenantry::secret::CredentialId;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

/// Provisions databases and rotates their logins with plain statements. It uses the library's provisioner login.
pub(crate) struct Bare {
    provisioner: PgConnectOptions,
    password: SecretString,
    admin: String,
    migrations: &'static Migrator,
}

impl Bare {
    /// Reads the provisioner's password from the vault, so that both sides connect as the same role.
    pub(crate) async fn new(harness: &Harness, tenantry: &Tenantry, migrations: &'static Migrator) -> Self {
        let role = format!("{}_blue", harness.prefix());
        let id = CredentialId::provisioner(&"main".parse().unwrap(), &role.parse().unwrap(), 1);
        let password = tenantry.vault().open(&id).await.unwrap();
        let options = harness.server().admin_options().username(&role).password(password.expose_secret());
        let provisioner = options.database(&format!("{}_maintenance", harness.prefix())).disable_statement_logging();
        // Encrypted if the server offers it, as the connections that the crate opens to a loopback address.
        let provisioner = provisioner.ssl_mode(sqlx::postgres::PgSslMode::Prefer);
        Self { provisioner, password, admin: format!("{}_admin", harness.prefix()), migrations }
    }

    /// Creates roles and database, sets privileges, creates the login `<db>_v1`, and applies the migrations.
    pub(crate) async fn provision(&self, db: &str) {
        let mut cluster = self.provisioner.connect().await.unwrap();
        let (login, mig) = ("a password of thirty-two letters", "another one of thirty-two letter");
        execute(&mut cluster, roles_sql(db)).await;
        execute(&mut cluster, format!("CREATE DATABASE {db} TEMPLATE template0 ALLOW_CONNECTIONS false")).await;
        execute(&mut cluster, access_sql(db)).await;
        self.prepare_schema(db).await;
        execute(&mut cluster, login_sql(&format!("{db}_mig"), &format!("{db}_owner"), 3, &verifier(mig))).await;
        let mut migrator = self.connect(db, &format!("{db}_mig"), mig).await;
        execute(&mut migrator, default_privileges_sql(db)).await;
        execute(&mut cluster, login_sql(&format!("{db}_v1"), &format!("{db}_app"), -1, &verifier(login))).await;
        let mut probe = self.connect(db, &format!("{db}_v1"), login).await;
        probe.execute("SELECT session_user, current_user, current_database()").await.unwrap();
        probe.close().await.unwrap();
        self.migrations.run(&mut migrator).await.unwrap();
        execute(&mut migrator, format!("REVOKE INSERT, UPDATE, DELETE ON TABLE _sqlx_migrations FROM {db}_app")).await;
        migrator.close().await.unwrap();
        self.retire_login(&mut cluster, db, &format!("{db}_mig")).await;
        cluster.close().await.unwrap();
    }

    async fn connect(&self, db: &str, role: &str, password: &str) -> PgConnection {
        self.provisioner.clone().username(role).password(password).database(db).connect().await.unwrap()
    }

    /// Gives the schema `public` to the tenant's owner role, in a session of the tenant's database.
    async fn prepare_schema(&self, db: &str) {
        let admin = &self.admin;
        let inside = self.provisioner.clone().password(self.password.expose_secret()).database(db);
        let mut inside = inside.connect().await.unwrap();
        let sql = format!(
            "BEGIN; GRANT {db}_owner TO {admin}; ALTER SCHEMA public OWNER TO {db}_owner;
             REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {db}_app;
             REVOKE {db}_owner FROM {admin}; COMMIT"
        );
        execute(&mut inside, sql).await;
        inside.close().await.unwrap();
    }

    /// Rotates from login `n` to the next one: creates the new login, connects with it once, and retires the old one.
    /// Returns the time until the old login is dropped.
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) async fn rotate(&self, db: &str, n: u32) -> Duration {
        let clock = Instant::now();
        let mut cluster = self.provisioner.connect().await.unwrap();
        let (old, new, login) = (format!("{db}_v{n}"), format!("{db}_v{}", n + 1), "a password of thirty-two letters");
        execute(&mut cluster, login_sql(&new, &format!("{db}_app"), -1, &verifier(login))).await;
        let mut probe = self.connect(db, &new, login).await;
        probe.execute("SELECT session_user, current_user, current_database()").await.unwrap();
        probe.close().await.unwrap();
        self.retire_login(&mut cluster, db, &old).await;
        let took = clock.elapsed();
        cluster.close().await.unwrap();
        took
    }

    /// Refuses new sessions of the login (NOLOGIN), terminates its sessions, and drops it.
    async fn retire_login(&self, cluster: &mut PgConnection, db: &str, login: &str) {
        execute(cluster, format!("BEGIN; ALTER ROLE {login} NOLOGIN; GRANT {login} TO {}; COMMIT", self.admin)).await;
        let connecting = "SELECT DISTINCT l.pid, d.datname = $1 FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
            WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass
              AND (d.datname = $1 OR has_database_privilege('public', d.oid, 'CONNECT'))
              AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
        sqlx::query(connecting).bind(db).fetch_all(&mut *cluster).await.unwrap();
        let end = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = $1)";
        while !sqlx::query(end).bind(login).fetch_all(&mut *cluster).await.unwrap().is_empty() {}
        execute(cluster, format!("DROP ROLE {login}")).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "all names in the SQL are constants of the benchmark")]
async fn execute(session: &mut PgConnection, sql: String) {
    session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// Creates the group roles `<db>_owner` and `<db>_app`.
fn roles_sql(db: &str) -> String {
    format!(
        "BEGIN; CREATE ROLE {db}_owner NOLOGIN; COMMENT ON ROLE {db}_owner IS 'bare';
         CREATE ROLE {db}_app NOLOGIN; COMMENT ON ROLE {db}_app IS 'bare'; COMMIT"
    )
}

/// Lets the tenant's roles connect to the database, and no other role.
fn access_sql(db: &str) -> String {
    format!(
        "BEGIN; COMMENT ON DATABASE {db} IS 'bare'; REVOKE ALL ON DATABASE {db} FROM PUBLIC;
         GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {db} TO {db}_owner; GRANT CONNECT ON DATABASE {db} TO {db}_app;
         ALTER DATABASE {db} ALLOW_CONNECTIONS true; COMMIT"
    )
}

/// Creates a login that acts as the group role.
fn login_sql(login: &str, group: &str, limit: i32, verifier: &str) -> String {
    format!(
        "BEGIN; CREATE ROLE {login} LOGIN CONNECTION LIMIT {limit} PASSWORD '{verifier}';
         COMMENT ON ROLE {login} IS 'bare'; GRANT {group} TO {login}; ALTER ROLE {login} SET role = {group}; COMMIT"
    )
}

/// Default privileges of the objects that migrations create.
fn default_privileges_sql(db: &str) -> String {
    let d = "ALTER DEFAULT PRIVILEGES";
    format!(
        "BEGIN; {d} GRANT USAGE ON SCHEMAS TO {db}_app;
         {d} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {db}_app; {d} GRANT USAGE, SELECT ON SEQUENCES TO {db}_app;
         {d} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; {d} GRANT EXECUTE ON FUNCTIONS TO {db}_app;
         {d} REVOKE USAGE ON TYPES FROM PUBLIC; {d} GRANT USAGE ON TYPES TO {db}_app; COMMIT"
    )
}

/// SCRAM-SHA-256 verifier with 4096 iterations, as the library computes it.
fn verifier(password: &str) -> String {
    let (salt, mut salted) = ([9u8; 16], [0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, 4096, &mut salted);
    let mac = |message: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&salted).unwrap();
        mac.update(message);
        mac.finalize().into_bytes()
    };
    let encode = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    let stored = encode(&Sha256::digest(mac(b"Client Key")));
    format!("SCRAM-SHA-256$4096:{}${stored}:{}", encode(&salt), encode(&mac(b"Server Key")))
}
