//! The reference: blocks b1 to b9 and c1 to c3 with the same connects, verifiers and migrations.
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

pub(crate) struct Bare {
    provisioner: PgConnectOptions,
    password: SecretString,
    admin: String,
    migrations: &'static Migrator,
}

impl Bare {
    /// With the provisioner's own login, as the library has it.
    pub(crate) async fn new(harness: &Harness, tenantry: &Tenantry, migrations: &'static Migrator) -> Self {
        let role = format!("{}_blue", harness.prefix());
        let id = CredentialId::provisioner(&"main".parse().unwrap(), &role.parse().unwrap(), 1);
        let password = tenantry.vault().open(&id).await.unwrap();
        let options = harness.server().admin_options().username(&role).password(password.expose_secret());
        let provisioner = options.database(&format!("{}_maintenance", harness.prefix())).disable_statement_logging();
        Self { provisioner, password, admin: format!("{}_admin", harness.prefix()), migrations }
    }

    pub(crate) async fn provision(&self, db: &str) {
        let mut cluster = self.provisioner.connect().await.unwrap();
        let (login, mig) = ("a password of thirty-two letters", "another one of thirty-two letter");
        run(&mut cluster, roles(db)).await;
        run(&mut cluster, format!("CREATE DATABASE {db} TEMPLATE template0 ALLOW_CONNECTIONS false")).await;
        run(&mut cluster, access(db)).await;
        self.schema(db).await;
        run(&mut cluster, login_sql(&format!("{db}_mig"), &format!("{db}_owner"), 3, &verifier(mig))).await;
        let mut migrator = self.connect(db, &format!("{db}_mig"), mig).await;
        run(&mut migrator, defaults(db)).await;
        run(&mut cluster, login_sql(&format!("{db}_v1"), &format!("{db}_app"), -1, &verifier(login))).await;
        let mut probe = self.connect(db, &format!("{db}_v1"), login).await;
        probe.execute("SELECT session_user, current_user, current_database()").await.unwrap();
        probe.close().await.unwrap();
        self.migrations.run(&mut migrator).await.unwrap();
        run(&mut migrator, format!("REVOKE INSERT, UPDATE, DELETE ON TABLE _sqlx_migrations FROM {db}_app")).await;
        migrator.close().await.unwrap();
        self.retire(&mut cluster, db, &format!("{db}_mig")).await;
        cluster.close().await.unwrap();
    }

    async fn connect(&self, db: &str, role: &str, password: &str) -> PgConnection {
        self.provisioner.clone().username(role).password(password).database(db).connect().await.unwrap()
    }

    async fn schema(&self, db: &str) {
        let admin = &self.admin;
        let inside = self.provisioner.clone().password(self.password.expose_secret()).database(db);
        let mut inside = inside.connect().await.unwrap();
        let b4 = format!(
            "BEGIN; GRANT {db}_owner TO {admin}; ALTER SCHEMA public OWNER TO {db}_owner;
             REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {db}_app;
             REVOKE {db}_owner FROM {admin}; COMMIT"
        );
        run(&mut inside, b4).await;
        inside.close().await.unwrap();
    }

    /// From login `n` to the next one: b7, probe, c1 to c3. How long it takes to the drop.
    #[allow(dead_code, reason = "each benchmark uses its part of this file")]
    pub(crate) async fn rotate(&self, db: &str, n: u32) -> Duration {
        let clock = Instant::now();
        let mut cluster = self.provisioner.connect().await.unwrap();
        let (old, new, login) = (format!("{db}_v{n}"), format!("{db}_v{}", n + 1), "a password of thirty-two letters");
        run(&mut cluster, login_sql(&new, &format!("{db}_app"), -1, &verifier(login))).await;
        let mut probe = self.connect(db, &new, login).await;
        probe.execute("SELECT session_user, current_user, current_database()").await.unwrap();
        probe.close().await.unwrap();
        self.retire(&mut cluster, db, &old).await;
        let took = clock.elapsed();
        cluster.close().await.unwrap();
        took
    }

    async fn retire(&self, cluster: &mut PgConnection, db: &str, login: &str) {
        run(cluster, format!("BEGIN; ALTER ROLE {login} NOLOGIN; GRANT {login} TO {}; COMMIT", self.admin)).await;
        let connecting = "SELECT DISTINCT l.pid, d.datname = $1 FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
            WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass
              AND (d.datname = $1 OR has_database_privilege('public', d.oid, 'CONNECT'))
              AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
        sqlx::query(connecting).bind(db).fetch_all(&mut *cluster).await.unwrap();
        let end = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = $1)";
        while !sqlx::query(end).bind(login).fetch_all(&mut *cluster).await.unwrap().is_empty() {}
        run(cluster, format!("DROP ROLE {login}")).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "names of the benchmark's own")]
async fn run(session: &mut PgConnection, sql: String) {
    session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

fn roles(db: &str) -> String {
    format!(
        "BEGIN; CREATE ROLE {db}_owner NOLOGIN; COMMENT ON ROLE {db}_owner IS 'bare';
         CREATE ROLE {db}_app NOLOGIN; COMMENT ON ROLE {db}_app IS 'bare'; COMMIT"
    )
}

fn access(db: &str) -> String {
    format!(
        "BEGIN; COMMENT ON DATABASE {db} IS 'bare'; REVOKE ALL ON DATABASE {db} FROM PUBLIC;
         GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {db} TO {db}_owner; GRANT CONNECT ON DATABASE {db} TO {db}_app;
         ALTER DATABASE {db} ALLOW_CONNECTIONS true; COMMIT"
    )
}

fn login_sql(login: &str, group: &str, limit: i32, verifier: &str) -> String {
    format!(
        "BEGIN; CREATE ROLE {login} LOGIN CONNECTION LIMIT {limit} PASSWORD '{verifier}';
         COMMENT ON ROLE {login} IS 'bare'; GRANT {group} TO {login}; ALTER ROLE {login} SET role = {group}; COMMIT"
    )
}

fn defaults(db: &str) -> String {
    let d = "ALTER DEFAULT PRIVILEGES";
    format!(
        "BEGIN; {d} GRANT USAGE ON SCHEMAS TO {db}_app;
         {d} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {db}_app; {d} GRANT USAGE, SELECT ON SEQUENCES TO {db}_app;
         {d} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; {d} GRANT EXECUTE ON FUNCTIONS TO {db}_app;
         {d} REVOKE USAGE ON TYPES FROM PUBLIC; {d} GRANT USAGE ON TYPES TO {db}_app; COMMIT"
    )
}

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
