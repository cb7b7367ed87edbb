//! Each damage alone: it is found, nothing else is found, and it is repaired, or the finding says why it is not.
use super::fleet::{self, Before, Damage, Drift, Names};
use std::collections::{BTreeMap, BTreeSet};
use tenantry::doctor::Code;
use tenantry::testing::Harness;
use tenantry::{Builder, TenantId, sqlx};

use Before::{Archived, Suspended};
use Damage::{Inside, Landlord, Server};

/// All damages of one tenant.
pub(crate) const DRIFTS: &[Drift] = &[
    // Isolation
    Drift::new(
        "suspended-login",
        &[Code::ClosedTenantOpen],
        &[Server(|n| format!("ALTER ROLE \"{}\" LOGIN", n.login))],
    )
    .of(Suspended),
    Drift::new(
        "suspended-public",
        &[Code::ClosedTenantOpen],
        &[Server(|n| format!("GRANT CONNECT ON DATABASE \"{}\" TO PUBLIC", n.database))],
    )
    .of(Suspended),
    Drift::new(
        "archived-open",
        &[Code::ClosedTenantOpen],
        &[Server(|n| format!("ALTER DATABASE \"{}\" ALLOW_CONNECTIONS true", n.database))],
    )
    .of(Archived),
    Drift::new(
        "archived-left-open",
        &[Code::DatabaseLeftOpen],
        &[Server(|n| format!("ALTER DATABASE \"{}\" ALLOW_CONNECTIONS true CONNECTION LIMIT 1618033988", n.database))],
    )
    .of(Archived),
    Drift::new(
        "public-entrant",
        &[Code::ForeignEntrant],
        &[Server(|n| format!("GRANT CONNECT ON DATABASE \"{}\" TO PUBLIC", n.database))],
    ),
    Drift::new(
        "member-entrant",
        &[Code::ForeignEntrant],
        &[Server(|n| format!("SET ROLE \"{}\"; GRANT \"{}_app\" TO \"{}\"", n.admin, n.database, n.stranger))],
    ),
    Drift::new(
        "login-createrole",
        &[Code::RolePrivileged],
        &[Server(|n| format!("ALTER ROLE \"{}\" CREATEROLE", n.login))],
    ),
    Drift::new(
        "owner-superuser",
        &[Code::RolePrivileged],
        &[Server(|n| format!("ALTER ROLE \"{}_owner\" SUPERUSER", n.database))],
    )
    .left(),
    Drift::new(
        "app-creates",
        &[Code::AppCanCreate],
        &[Inside(|n| format!("GRANT CREATE ON SCHEMA public TO \"{}_app\"", n.database))],
    ),
    Drift::new(
        "login-rights",
        &[Code::LoginRights],
        &[
            Server(|n| format!("GRANT CREATE, TEMPORARY ON DATABASE \"{}\" TO \"{}\"", n.database, n.login)),
            Inside(|n| {
                format!(
                    "GRANT CREATE ON SCHEMA public TO \"{0}\"; GRANT SELECT ON notes TO \"{0}\";
                     GRANT UPDATE (text) ON notes TO \"{0}\"; GRANT USAGE ON SEQUENCE notes_id_seq TO \"{0}\"",
                    n.login
                )
            }),
        ],
    ),
    Drift::new(
        "retiring-login-extra",
        &[Code::LoginExtraMembership],
        &[
            Server(|n| {
                format!("{}; GRANT \"{1}_app\", \"{1}_owner\" TO \"{1}_v8\"", create_role(n, "_v8"), n.database)
            }),
            Landlord(|n| {
                let later = format!("SET retry_at = now() + interval '1 hour' WHERE role = '{}_v8'", n.database);
                format!("{}; {UPDATE_USERS} {later}", record_login(n, 8, "retiring"))
            }),
        ],
    ),
    Drift::new(
        "public-temporary",
        &[Code::DatabaseRights],
        &[Server(|n| format!("GRANT TEMPORARY ON DATABASE \"{}\" TO PUBLIC", n.database))],
    ),
    // Whether the tenant can be used
    Drift::new("entry-missing", &[Code::EntryMissing], &[Landlord(delete_entry)]),
    Drift::new(
        "placement-missing",
        &[Code::PlacementMissing],
        &[Landlord(|n| {
            format!(
                "DELETE FROM tenantry.placements WHERE tenant_id = '{}';
                 UPDATE tenantry.database_servers SET tenants = tenants - 1",
                n.id
            )
        })],
    ),
    Drift::new(
        "database-closed",
        &[Code::DatabaseClosed],
        &[Server(|n| format!("ALTER DATABASE \"{}\" ALLOW_CONNECTIONS false", n.database))],
    ),
    Drift::new("login-missing", &[Code::LoginMissing], &[Server(|n| format!("DROP ROLE \"{}\"", n.login))]),
    Drift::new("login-refused", &[Code::LoginRefused], &[Server(|n| format!("ALTER ROLE \"{}\" NOLOGIN", n.login))]),
    Drift::new(
        "login-expired",
        &[Code::LoginExpired],
        &[Server(|n| format!("ALTER ROLE \"{}\" VALID UNTIL '2020-01-01'", n.login))],
    ),
    Drift::new(
        "login-without-role-setting",
        &[Code::LoginMembership],
        &[Server(|n| format!("ALTER ROLE \"{}\" RESET role", n.login))],
    ),
    Drift::new(
        "login-password",
        &[Code::LoginPassword],
        &[Server(|n| format!("ALTER ROLE \"{}\" PASSWORD 'other'", n.login))],
    ),
    Drift::new(
        "login-extra",
        &[Code::LoginExtraMembership],
        &[Server(|n| format!("SET ROLE \"{}\"; GRANT \"{}_owner\" TO \"{}\"", n.admin, n.database, n.login))],
    ),
    Drift::new(
        "login-settings",
        &[Code::LoginSettings],
        &[Server(|n| format!("ALTER ROLE \"{}\" IN DATABASE \"{}\" SET work_mem = '5MB'", n.login, n.database))],
    ),
    Drift::new(
        "login-limit",
        &[Code::LoginLimit],
        &[Server(|n| format!("ALTER ROLE \"{}\" CONNECTION LIMIT 7", n.login))],
    ),
    Drift::new(
        "secret-missing",
        &[Code::SecretMissing],
        &[Landlord(|n| format!("DELETE FROM tenantry.credentials WHERE owner = 'tenant:{}'", n.id))],
    ),
    Drift::new(
        "secret-unreadable",
        &[Code::SecretUnreadable],
        &[Landlord(|n| {
            format!(
                "UPDATE tenantry.credentials SET record = set_byte(record, length(record) - 1,
                    get_byte(record, length(record) - 1) # 1) WHERE owner = 'tenant:{}'",
                n.id
            )
        })],
    ),
    // The recorded logins (incident 2)
    Drift::new(
        "login-not-dropped",
        &[Code::LoginNotDropped],
        &[Server(|n| create_role(n, "_v7")), Landlord(|n| record_login(n, 7, "dropped"))],
    ),
    Drift::new("login-unrecorded", &[Code::LoginUnrecorded], &[Server(|n| create_role(n, "_v9"))]),
    Drift::new(
        "login-gone",
        &[Code::LoginGone, Code::RetirementOverdue],
        &[Landlord(|n| record_login(n, 5, "retiring"))],
    ),
    // No time of its drop is recorded, so it is in no queue.
    Drift::new(
        "retiring-login-in-no-queue",
        &[Code::RetirementOverdue],
        &[Server(|n| create_role(n, "_v6")), Landlord(|n| record_login(n, 6, "retiring"))],
    ),
    Drift::new(
        "users-disagree",
        &[Code::UsersDisagree],
        &[Landlord(|n| format!("{} SET status = 'pending' {}", UPDATE_USERS, of_login(n)))],
    ),
    Drift::new(
        "login-in-use-recorded-as-dropped",
        &[Code::UsersDisagree],
        &[Landlord(|n| format!("{} SET status = 'dropped', dropped_at = now() {}", UPDATE_USERS, of_login(n)))],
    ),
    Drift::new(
        "login-in-use-unrecorded",
        &[Code::UsersDisagree],
        &[Landlord(|n| format!("DELETE FROM tenantry.tenant_database_users {}", of_login(n)))],
    ),
    Drift::new(
        "retirement-overdue",
        &[Code::RetirementOverdue],
        &[
            Server(|n| create_role(n, "_v3")),
            Landlord(|n| {
                format!(
                    "{}; {UPDATE_USERS} SET attempts = 12 WHERE role = '{}_v3'",
                    record_login(n, 3, "retiring"),
                    n.database
                )
            }),
        ],
    ),
    Drift::new("migrator-left", &[Code::MigratorLeft], &[Server(|n| create_role(n, "_mig"))]),
    Drift::new(
        "role-marker",
        &[Code::RoleMarker],
        &[Server(|n| format!("COMMENT ON ROLE \"{}\" IS 'see ticket 17'", n.login))],
    ),
    // Content
    Drift::new(
        "object-owner",
        &[Code::ObjectOwner],
        &[Inside(|n| format!("CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO \"{}\"", n.login))],
    ),
    Drift::new(
        "schema-public",
        &[Code::SchemaPublic],
        &[Inside(|_| String::from("GRANT USAGE ON SCHEMA public TO PUBLIC"))],
    ),
    Drift::new(
        "schema-owner",
        &[Code::SchemaOwner],
        &[Inside(|_| String::from("ALTER SCHEMA public OWNER TO pg_database_owner"))],
    ),
    Drift::new("object-public", &[Code::ObjectPublic], &[Inside(|_| String::from("GRANT SELECT ON notes TO PUBLIC"))])
        .left(),
    Drift::new(
        "object-granted",
        &[Code::ObjectGranted],
        &[Inside(|n| format!("GRANT SELECT ON notes TO \"{}\"", n.stranger))],
    )
    .left(),
    Drift::new(
        "index-invalid",
        &[Code::IndexInvalid],
        &[Inside(|_| String::from("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'notes_pkey'::regclass"))],
    )
    .left(),
    Drift::new(
        "sequence-exhausted",
        &[Code::SequenceExhausted],
        &[Inside(|_| String::from("SELECT setval('notes_id_seq', 9000000000000000000)"))],
    )
    .left(),
    Drift::new(
        "event-trigger",
        &[Code::EventTrigger],
        &[Inside(|n| {
            format!(
                "CREATE FUNCTION public.spy() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
                 REVOKE EXECUTE ON FUNCTION public.spy() FROM PUBLIC;
                 ALTER FUNCTION public.spy() OWNER TO \"{}_owner\";
                 CREATE EVENT TRIGGER spy ON ddl_command_start EXECUTE FUNCTION public.spy()",
                n.database
            )
        })],
    )
    .left(),
    Drift::new(
        "purge-overdue",
        &[Code::PurgeOverdue],
        &[Landlord(|n| {
            format!("UPDATE tenantry.tenants SET kept_until = now() - interval '1 day' WHERE id = '{}'", n.id)
        })],
    )
    .of(Archived)
    .left(),
    Drift::new(
        "address-outdated",
        &[Code::AddressOutdated],
        &[Landlord(|n| format!("UPDATE tenantry.tenant_databases SET port = 1 WHERE tenant_id = '{}'", n.id))],
    )
    .left(),
    // Migrations and operations
    Drift::new(
        "migrations-behind",
        &[Code::MigrationsBehind],
        &[Inside(|_| String::from("DROP TABLE tags; DELETE FROM _sqlx_migrations WHERE version = 2"))],
    ),
    Drift::new(
        "migrations-changed",
        &[Code::MigrationsChanged],
        &[Inside(|_| String::from("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2"))],
    )
    .left(),
    Drift::new(
        "migrations-unfinished",
        &[Code::MigrationsUnfinished],
        &[Inside(|_| String::from("UPDATE _sqlx_migrations SET success = false WHERE version = 2"))],
    )
    .left(),
    Drift::new(
        "migrations-ahead",
        &[Code::MigrationsAhead],
        &[Inside(|_| {
            String::from(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99990101000000, 'of the future', true, '\\x00', 1)",
            )
        })],
    )
    .left(),
    Drift::new("operation-parked", &[Code::OperationParked], &[Landlord(|n| begin_migration(n, "parked"))]),
    Drift::new("operation-stalled", &[Code::OperationStalled], &[Landlord(|n| begin_migration(n, "running"))]),
    Drift::new(
        "tenant-unfinished",
        &[Code::TenantUnfinished],
        &[Landlord(|n| format!("UPDATE tenantry.tenants SET status = 'purging' WHERE id = '{}'", n.id))],
    )
    .left(),
];

/// Three migrations, so that one in the middle can be missing.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/doctor_migrations");

/// Configures these migrations.
pub(crate) fn configured(builder: Builder) -> Builder {
    builder.tenant_migrations(&MIGRATIONS)
}

const UPDATE_USERS: &str = "UPDATE tenantry.tenant_database_users";

fn of_login(names: &Names) -> String {
    format!("WHERE role = '{}'", names.login)
}

fn delete_entry(names: &Names) -> String {
    format!("DELETE FROM tenantry.tenant_databases WHERE tenant_id = '{}'", names.id)
}

/// Creates a role with this suffix as this installation does.
fn create_role(names: &Names, suffix: &str) -> String {
    format!("SET ROLE \"{}\"; CREATE ROLE \"{}{suffix}\" LOGIN", names.admin, names.database)
}

/// Records a login of this generation. No time is set at which a retiring one is dropped.
fn record_login(names: &Names, generation: u32, status: &str) -> String {
    format!(
        "INSERT INTO tenantry.tenant_database_users
            (tenant_id, server, database, role, generation, status, dropped_at)
         VALUES ('{}', 'main', '{1}', '{1}_v{generation}', {generation}, '{status}',
            CASE WHEN '{status}' = 'dropped' THEN now() END)",
        names.id, names.database
    )
}

/// Stores an open migration whose worker is dead.
fn begin_migration(names: &Names, status: &str) -> String {
    let subject = format!("tenant:{}", names.id);
    format!(
        "WITH op AS (INSERT INTO tenantry.operations
                (id, kind, lane, subject, request, status, intended, total, worker, leased_until)
            VALUES (gen_random_uuid(), 'migrate', 'change', '{subject}',
                jsonb_build_object('tenant', '{}', 'to', 3), '{status}', 2, 4, 'dead', now() - interval '1 hour')
            RETURNING id),
         epoch AS (INSERT INTO tenantry.epochs (operation, epoch) SELECT id, 1 FROM op)
         INSERT INTO tenantry.lanes (subject, change) SELECT '{subject}', id FROM op
            ON CONFLICT (subject) DO UPDATE SET change = EXCLUDED.change",
        names.id
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_damage_is_found_alone_and_repaired_or_left_with_a_reason() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    fleet::create_stranger(&harness).await;
    let mut tenants = vec![];
    for drift in DRIFTS {
        tenants.push((drift, fleet::provision(&harness, &tenantry, drift.name, drift.before).await));
    }
    fleet::assert_clean(&tenantry, "before any damage").await;
    for (drift, names) in &tenants {
        fleet::inject(&harness, names, drift.damage).await;
    }
    let plan = tenantry.doctor().examine().await.unwrap();
    let found = fleet::codes_by_tenant(&plan);
    assert_found(&tenants, &found, codes_of, "after the damage");
    let others: Vec<_> = plan.findings.iter().filter(|finding| finding.subject.tenant().is_none()).collect();
    assert!(others.is_empty(), "findings about no tenant: {others:?}");
    for finding in &plan.findings {
        assert_ne!(finding.repair.is_some(), finding.no_repair.is_some(), "a repair or a reason: {finding:?}");
    }

    fleet::repair_all(&tenantry).await;

    let after = tenantry.doctor().examine().await.unwrap();
    let left = fleet::codes_by_tenant(&after);
    let expected = |drift: &Drift| if drift.is_repaired { BTreeSet::new() } else { codes_of(drift) };
    assert_found(&tenants, &left, expected, "after the repairs");
    assert_usable(&tenantry, &tenants).await;
}

fn codes_of(drift: &Drift) -> BTreeSet<&'static str> {
    drift.codes.iter().map(|code| code.as_str()).collect()
}

/// Fails with all tenants about which something else was found than expected.
fn assert_found(
    tenants: &[(&Drift, Names)], found: &BTreeMap<TenantId, BTreeSet<&'static str>>,
    expected: impl Fn(&Drift) -> BTreeSet<&'static str>, when: &str,
) {
    let found_about = |names: &Names| found.get(&names.id).cloned().unwrap_or_default();
    let compared = tenants.iter().map(|(drift, names)| (drift.name, found_about(names), expected(drift)));
    let wrong: Vec<_> = compared.filter(|(_, found, expected)| found != expected).collect();
    assert!(wrong.is_empty(), "{when}, as (tenant, found, expected): {wrong:#?}");
}

/// Every repaired tenant that is active serves queries, as its application's role.
async fn assert_usable(tenantry: &tenantry::Tenantry, tenants: &[(&Drift, Names)]) {
    for (drift, names) in tenants.iter().filter(|(drift, _)| drift.is_repaired && drift.before == Before::Active) {
        let pool = tenantry.resolve(drift.name).await.unwrap_or_else(|error| panic!("{}: {error:?}", drift.name));
        let acts_as: String = sqlx::query_scalar("SELECT current_user::text FROM notes RIGHT JOIN (SELECT) x ON true")
            .fetch_one(&pool)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", drift.name));
        assert_eq!(acts_as, format!("{}_app", names.database), "{}", drift.name);
    }
    for (drift, names) in tenants.iter().filter(|(drift, _)| drift.before != Before::Active) {
        let refused = tenantry.resolve(drift.name).await;
        assert!(refused.is_err(), "{} can be resolved although {} is closed", drift.name, names.database);
    }
}
