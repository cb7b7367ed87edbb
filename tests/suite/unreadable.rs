//! Rows of the landlord that cannot be parsed. Each list returns the others and names the bad row, and work on many rows
//! continues with the others.
use crate::provision::migrated;
use futures_util::StreamExt;
use std::sync::Arc;
use tenantry::error::{StoreError, UnreadableRow, VaultError};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::registry::TenantRegistry;
use tenantry::secret::CredentialId;
use tenantry::sqlx::{self, PgPool, types::Uuid};
use tenantry::testing::Harness;
use tenantry::tokens::{PgTokenStore, TokenStore};
use tenantry::vault::{LocalKeyring, PgVault, VaultWriter};
use tenantry::{TenantId, Tenantry};

const K1: &str = "k1:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
const K2: &str = "k2:qBqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";

/// Two tenants, `acme` and `bad`, on the server `main`.
async fn fixture() -> (Harness, Tenantry, TenantId) {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let bad = tenantry.provision("bad").await.unwrap().tenant.id();
    (harness, tenantry, bad)
}

async fn execute(landlord: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(landlord).await.unwrap();
}

/// The names of the unreadable rows, as `table/id`.
fn names(rows: &[UnreadableRow]) -> Vec<String> {
    rows.iter().map(|row| format!("{}/{}", row.table(), row.id())).collect()
}

/// The row that the error is about.
fn row_of(error: &StoreError) -> &UnreadableRow {
    std::error::Error::source(error).and_then(|cause| cause.downcast_ref()).expect("the error names a row")
}

/// `1e400` is a number of `jsonb` that no 64-bit float can hold.
#[tokio::test]
async fn tenant_with_unreadable_metadata_stops_no_list_and_no_batch() {
    let (harness, tenantry, bad) = fixture().await;
    execute(harness.landlord(), "UPDATE tenantry.tenants SET metadata = '1e400' WHERE slug = 'bad'").await;
    let id = format!("tenants/{bad}");

    let page = tenantry.registry().page(None, 10).await.unwrap();
    assert_eq!((page.len(), names(&page.unreadable)), (1, vec![id.clone()]));
    let all: Vec<_> = tenantry.registry().all().collect().await;
    let (tenants, errors): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!((tenants.len(), errors.len()), (1, 1));
    let rotated = tenantry.rotate_all().await.unwrap();
    assert_eq!((rotated.done.len(), rotated.failed.len(), rotated.unreadable.len()), (1, 0, 1));
    assert_eq!(row_of(&rotated.unreadable[0]).id(), bad.to_string());
    let migrated = tenantry.migrate_all().await.unwrap();
    assert_eq!((migrated.unchanged, migrated.unreadable.len()), (1, 1));
    assert_eq!(tenantry.purge_due().await.unwrap().unreadable.len(), 1);
    let limited = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!(limited.left, 1, "{limited:?}");

    let error = tenantry.suspend("bad").await.unwrap_err();
    let text = tenantry::error::chain(&error);
    assert!(text.contains(&bad.to_string()) && !text.contains("did not answer"), "{text}");
    assert_eq!(error.retry_after(), None);
    tenantry.suspend("acme").await.unwrap();
}

/// The pages are read by `id`, so pages of bad rows only must not end the stream.
#[tokio::test]
async fn tenants_after_many_unreadable_ones_are_still_listed() {
    let (harness, tenantry, _) = fixture().await;
    execute(
        harness.landlord(),
        "INSERT INTO tenantry.tenants (id, slug, name, status, metadata)
         SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'broken-' || n, 'x', 'active', '1e400'
         FROM generate_series(1, 7) AS n",
    )
    .await;
    for limit in [1, 2, 3, 7, 8, 100] {
        let (mut after, mut found) = (None, vec![]);
        while let Some(last) = {
            let page = tenantry.registry().page(after, limit).await.unwrap();
            found.extend(page.iter().map(|tenant| tenant.slug().to_string()));
            page.last().map(|tenant| tenant.id())
        } {
            after = Some(last);
        }
        assert_eq!(found, ["acme", "bad"], "pages of {limit}");
    }
    let items: Vec<_> = tenantry.registry().all().collect().await;
    assert_eq!(items.iter().filter(|item| item.is_err()).count(), 7);
}

#[tokio::test]
async fn operation_with_an_unreadable_request_is_listed_by_id_and_left_by_recovery() {
    let (harness, tenantry, bad) = fixture().await;
    const COPY: &str = "WITH op AS (INSERT INTO tenantry.operations
            SELECT r.* FROM tenantry.operations o, jsonb_populate_record(o, jsonb_build_object('id', gen_random_uuid(),
                'status', 'running', 'finished_at', NULL, 'request', '1e400'::jsonb, 'intended', 0)) r
            WHERE o.kind = 'provision' AND o.subject = 'tenant:' || $1 RETURNING id),
        epoch AS (INSERT INTO tenantry.epochs SELECT id, 1 FROM op)
        SELECT id FROM op";
    let id: Uuid = sqlx::query_scalar(COPY).bind(bad.to_string()).fetch_one(harness.landlord()).await.unwrap();
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!((open.len(), names(&open.unreadable)), (0, vec![format!("operations/{id}")]));
    let report = tenantry.operations().recover().await.unwrap();
    assert_eq!((report.unreadable, report.finished, report.left), (1, 0, 0));
    // Everything else of the tenant works.
    tenantry.rotate("bad").await.unwrap();
    tenantry.suspend("bad").await.unwrap();
    tenantry.activate("bad").await.unwrap();
}

#[tokio::test]
async fn unreadable_event_is_one_item_of_the_stream() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let operation = tenantry.provision("acme").await.unwrap().operation;
    let before = tenantry.operations().events(operation, 0).count().await;
    execute(harness.landlord(), "UPDATE tenantry.operation_events SET status = 'odd' WHERE seq = 2").await;
    let items: Vec<_> = tenantry.operations().events(operation, 0).collect().await;
    let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    assert_eq!((items.len(), errors.len()), (before, 1));
    assert_eq!(row_of(errors[0]).id(), format!("{operation}/2"));
}

/// A read of 100 events that has an unreadable one is not the last read.
#[tokio::test]
async fn events_after_the_first_read_are_listed_if_one_of_it_is_unreadable() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let operation = tenantry.provision("acme").await.unwrap().operation;
    execute(
        harness.landlord(),
        "INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total)
         SELECT operation, 1000 + n, step, CASE n WHEN 7 THEN 'odd' ELSE status END, done, total
         FROM tenantry.operation_events, generate_series(1, 150) AS n WHERE seq = 1",
    )
    .await;
    let items: Vec<_> = tenantry.operations().events(operation, 1000).collect().await;
    assert_eq!((items.len(), items.iter().filter(|item| item.is_err()).count()), (150, 1));
}

#[tokio::test]
async fn unreadable_server_does_not_stop_placement_on_another() {
    let (harness, tenantry, _) = fixture().await;
    execute(
        harness.landlord(),
        "INSERT INTO tenantry.database_servers SELECT r.* FROM tenantry.database_servers s,
         jsonb_populate_record(s, '{\"name\": \"broken\", \"labels\": 1e400, \"tenants\": 0}') r",
    )
    .await;
    let servers = tenantry.servers().list().await.unwrap();
    assert_eq!((servers.len(), names(&servers.unreadable)), (1, vec!["database_servers/broken".into()]));
    tenantry.provision("globex").await.unwrap();
    let problems = tenantry.problems().await;
    assert!(problems.iter().any(|p| p.code == "unreadable_row" && p.text.contains("broken")), "{problems:?}");
}

#[tokio::test]
async fn unreadable_retirement_is_listed_and_counted() {
    let (harness, tenantry, _) = fixture().await;
    execute(
        harness.landlord(),
        "INSERT INTO tenantry.tenant_database_users
            (tenant_id, server, database, role, generation, status, metadata, retry_at)
         SELECT tenant_id, server, database, 'odd_login', 9, 'retiring', '{\"by\": 7}', now()
         FROM tenantry.tenant_database_users LIMIT 1",
    )
    .await;
    let retiring = tenantry.retiring(10).await.unwrap();
    assert_eq!((retiring.len(), names(&retiring.unreadable)), (0, vec!["tenant_database_users/main/odd_login".into()]));
    let report = tenantry.retire_due().await.unwrap();
    assert_eq!((report.dropped, report.left), (0, 1));
}

#[tokio::test]
async fn unreadable_token_and_event_do_not_hide_the_others() {
    let (harness, tenantry, bad) = fixture().await;
    let link = tenantry.tokens().issue("bad", "ada@acme.example").await.unwrap();
    execute(
        harness.landlord(),
        "INSERT INTO tenantry.setup_tokens (id, tenant_id, purpose, email, hash, expires_at)
         SELECT gen_random_uuid(), tenant_id, 'No purpose', email, sha256('x'), expires_at FROM tenantry.setup_tokens;
         ALTER TABLE tenantry.token_events DROP CONSTRAINT token_events_what_check;
         INSERT INTO tenantry.token_events (at, what, tenant_id)
         SELECT now(), 'odd', tenant_id FROM tenantry.setup_tokens LIMIT 1",
    )
    .await;
    let valid = PgTokenStore::new(harness.landlord().clone()).of_tenant(bad).await.unwrap();
    assert_eq!(valid.iter().map(|token| token.id).collect::<Vec<_>>(), [link.id]);
    assert_eq!(valid.unreadable.len(), 1);
    let events = tenantry.tokens().events(bad, 10).await.unwrap();
    assert_eq!((events.len(), events.unreadable.len()), (0, 1));
}

#[tokio::test]
async fn rewrap_goes_on_after_a_damaged_secret_and_then_names_it() {
    let harness = Harness::start().await.unwrap();
    let vault = |keys: &str| PgVault::new(harness.landlord().clone(), Arc::new(LocalKeyring::from_text(keys).unwrap()));
    let by = FencingToken { operation: OperationId::new(), epoch: 1 };
    let old = vault(K1);
    old.fence(by.operation, 1).await.unwrap();
    let tenant = TenantId::from_uuid(Uuid::from_u128(7));
    for version in 1..=3 {
        let id = CredentialId::login(tenant, &"t".parse().unwrap(), &"t_v1".parse().unwrap(), version);
        old.put(&id, &"secret".into(), by).await.unwrap();
    }
    execute(
        harness.landlord(),
        "UPDATE tenantry.credentials SET purpose = 'odd' WHERE version = 1 AND owner <> 'landlord'",
    )
    .await;
    execute(harness.landlord(), "UPDATE tenantry.credentials SET record = '\\x00' WHERE version = 2").await;
    let new = vault(&format!("{K2},{K1}"));
    assert_eq!(new.rewrap(10).await.unwrap(), 2, "the readable secret was not rewrapped");
    let error = new.rewrap(10).await.unwrap_err();
    assert!(matches!(error, VaultError::DoesNotOpen(_) | VaultError::Store(StoreError::Corrupt(_))), "{error:?}");
}
