//! Unit tests of the poller. The last one needs a PostgreSQL server.
use super::*;

fn read(at: f64, source: &str, tenants: usize) -> Read {
    let tenants = (0..tenants).map(|n| Uuid::from_u128(n as u128)).collect();
    Read { snapshot: String::from("1:1:"), source: source.into(), at, usage: 0.0, tenants }
}

#[test]
fn read_names_tenants_when_the_read_before_is_recent_and_of_the_same_server() {
    let last = read(100.0, "a", 0);
    assert!(matches!(read(102.0, "a", 3).compare_with(Some(&last)), PollResult::Tenants(t) if t.len() == 3));
}

#[test]
fn read_reports_everything_when_rows_may_be_missing() {
    let last = read(1000.0, "a", 0);
    assert_eq!(read(1002.0, "a", 0).compare_with(None), PollResult::Everything, "the first read");
    assert_eq!(read(1002.0, "b", 0).compare_with(Some(&last)), PollResult::Everything, "another server");
    assert_eq!(read(1301.0, "a", 0).compare_with(Some(&last)), PollResult::Everything, "no read for 301 s");
    assert_eq!(read(699.0, "a", 0).compare_with(Some(&last)), PollResult::Everything, "a clock that was set back");
    assert_eq!(
        read(1002.0, "a", MAX_TENANTS + 1).compare_with(Some(&last)),
        PollResult::Everything,
        "more changed tenants than a read reports"
    );
}

#[cfg(all(unix, feature = "testing"))]
#[tokio::test]
async fn next_deletes_rows_after_the_retention_time() {
    let server = crate::testing::TestServer::shared().await.unwrap();
    let database = server.create_database("changes").await.unwrap();
    let landlord = PgPool::connect_with(database.options()).await.unwrap();
    crate::store::schema::install(&landlord).await.unwrap();
    let write = async |tenant: TenantId| {
        const WRITE: &str = "INSERT INTO tenantry.tenant_changes (tenant_id) VALUES ($1)";
        sqlx::query(WRITE).bind(tenant.as_uuid()).execute(&landlord).await.unwrap();
    };
    let (old, new) = (TenantId::new(), TenantId::new());
    let mut poller = ChangePoller::new(landlord.clone());
    write(old).await;
    assert_eq!(poller.next().await.unwrap(), PollResult::Everything);
    write(new).await;
    assert_eq!(poller.next().await.unwrap(), PollResult::Tenants(vec![new]));
    let remaining = async || {
        let rows = sqlx::query_scalar("SELECT tenant_id FROM tenantry.tenant_changes ORDER BY txid");
        rows.fetch_all(&landlord).await.unwrap() as Vec<Uuid>
    };
    assert_eq!(remaining().await, [old.as_uuid(), new.as_uuid()], "rows stay for ten minutes");
    poller.mark.as_mut().unwrap().at -= RETENTION;
    assert_eq!(poller.next().await.unwrap(), PollResult::Tenants(vec![]));
    assert_eq!(remaining().await, [new.as_uuid()], "the row from before the mark must be deleted");
}
