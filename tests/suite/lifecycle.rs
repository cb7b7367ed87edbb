//! Suspend, activate and purge. They take effect on the server itself, so they do not depend on what other nodes cache.
//! Also the reissue of setup links, and the refusal of verbs that the status does not allow.
use crate::auditor::{self, assert_nothing, code};
use crate::provision::migrated;
use sqlx::{ConnectOptions, Connection, Executor};
use tenantry::error::{ChangeError, ResolveError};
use tenantry::sqlx;
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;

#[tokio::test]
async fn suspend_ends_sessions_on_other_nodes() {
    let harness = Harness::start().await.unwrap();
    let (one, two) = (harness.tenantry(migrated).await.unwrap(), harness.tenantry(migrated).await.unwrap());
    one.provision("acme").await.unwrap();
    let other_node_db = two.resolve("acme").await.unwrap();
    let mut open = other_node_db.begin().await.unwrap();
    open.execute("INSERT INTO notes (text) VALUES ('in a transaction')").await.unwrap();
    let direct = auditor::login(&one, "acme").await;

    let suspended = one.suspend("acme").reason("unpaid").await.unwrap();
    assert!(suspended.is_complete(), "{suspended:?}");
    assert_eq!(suspended.tenant().status(), TenantStatus::Suspended);
    assert!(open.execute("SELECT 1").await.is_err(), "the open session on the other node must have ended");
    assert_eq!(code(&direct.connect().await.unwrap_err()), "28000");
    assert!(other_node_db.execute("SELECT 1").await.is_err());
    assert!(matches!(one.resolve("acme").await, Err(ResolveError::Suspended(_))));

    one.activate("acme").await.unwrap();
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&other_node_db).await.unwrap();
    assert_eq!(notes, 0, "the transaction must be rolled back, and the handle must work again");
    let mut members = auditor::superuser(&harness).await;
    assert_eq!(
        count_memberships(&harness, &mut members).await,
        0,
        "tenant roles that the admin role is still a member of"
    );
}

/// Number of tenant roles whose rights the admin role can use. A membership with ADMIN OPTION alone does not count.
async fn count_memberships(harness: &Harness, server: &mut sqlx::PgConnection) -> i64 {
    const MEMBER: &str = "SELECT count(*) FROM pg_roles r WHERE r.rolname LIKE 't\\_%'
        AND shobj_description(r.oid, 'pg_authid') LIKE '%' || $2 || '%'
        AND pg_has_role($1 || '_admin', r.oid, 'USAGE')";
    let installation: String =
        sqlx::query_scalar("SELECT id::text FROM tenantry.installation").fetch_one(harness.landlord()).await.unwrap();
    sqlx::query_scalar(MEMBER).bind(harness.prefix()).bind(installation).fetch_one(server).await.unwrap()
}

#[tokio::test]
async fn verbs_are_refused_if_the_status_does_not_allow_them() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    assert!(matches!(tenantry.suspend("unknown").await, Err(ChangeError::Unknown)));
    tenantry.provision("acme").await.unwrap();
    let error = tenantry.activate("acme").await.unwrap_err();
    assert!(matches!(error, ChangeError::Status { found: TenantStatus::Active, .. }), "{error:?}");
    let kept = tenantry.purge("acme").await.unwrap_err();
    assert!(matches!(kept, ChangeError::Kept { until: None, .. }), "{kept:?}");
    let first = tenantry.suspend("acme").key("once").await.unwrap();
    let joined = tenantry.suspend("acme").key("once").await.unwrap();
    assert_eq!(first, joined, "a repeated key must return the first result, whatever the status is now");
    assert!(matches!(tenantry.suspend("acme").await, Err(ChangeError::Status { .. })));
}

#[tokio::test]
async fn purge_keeps_the_history_and_frees_the_slug() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let made = tenantry.provision("acme").admin("ada@acme.example").domain("acme.example").await.unwrap();
    let mut session = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    session.execute("SELECT lo_create(0)").await.unwrap();
    let mut escaped = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    escaped.execute("SET ROLE NONE; SELECT lo_create(0)").await.unwrap();

    let purged = tenantry.purge("acme").force().await.unwrap();
    assert_eq!(purged.tenant.status(), TenantStatus::Deleted);
    assert_eq!(purged.keys, tenantry::vault::KeyDisposal::SharedKey);
    assert!(session.ping().await.is_err());
    assert_nothing(&harness, "after a purge").await;
    let history = tenantry.registry().find(made.tenant.id().into()).await.unwrap().unwrap();
    assert_eq!(history.slug().as_str(), "acme");
    assert!(tenantry.registry().find("acme".into()).await.unwrap().is_none());
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Unknown)));
    assert!(matches!(tenantry.purge(made.tenant.id()).force().await, Err(ChangeError::Status { .. })));
    let again = tenantry.provision("acme").domain("acme.example").await.unwrap();
    assert_ne!(again.tenant.id(), made.tenant.id());
}

#[tokio::test]
async fn suspended_tenant_can_be_purged() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut busy = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    let running = tokio::spawn(async move { busy.execute("SELECT pg_sleep(600)").await });
    tenantry.suspend("acme").await.unwrap();
    assert!(running.await.unwrap().is_err(), "suspend must end the running statement");
    tenantry.purge("acme").force().await.unwrap();
    assert_nothing(&harness, "after a purge of a suspended tenant").await;
}

#[tokio::test]
async fn issue_replaces_the_earlier_link() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let first = tenantry.provision("acme").admin("ada@acme.example").await.unwrap().link.unwrap();
    let second = tenantry.tokens().issue("acme", "Ada@acme.example").await.unwrap();
    assert_ne!(first.expose_path(), second.expose_path());
    let store = tenantry::tokens::PgTokenStore::new(harness.landlord().clone());
    use tenantry::tokens::TokenStore;
    assert!(store.look_up(&first.token().hash()).await.unwrap().is_none(), "the earlier link must be invalid");
    assert_eq!(store.look_up(&second.token().hash()).await.unwrap().map(|t| t.id), Some(second.id));
    assert!(matches!(tenantry.tokens().issue("acme", "no address").await, Err(ChangeError::Invalid { .. })));
    assert!(matches!(tenantry.tokens().issue("unknown", "ada@acme.example").await, Err(ChangeError::Unknown)));
    tenantry.suspend("acme").await.unwrap();
    assert!(matches!(tenantry.tokens().issue("acme", "ada@acme.example").await, Err(ChangeError::Status { .. })));
}

/// Another preempting operation may end after a call has read the tenant and before the call has the lane. The status
/// is therefore checked again under the lane.
#[tokio::test]
async fn lifecycle_operation_on_a_tenant_of_the_wrong_status_is_undone() {
    use tenantry::journal::{Begun, Intent, Journal, PgJournal};
    use tenantry::operation::{Lane, OperationId, OperationStatus, Subject};
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let journal = PgJournal::new(harness.landlord().clone());
    let acme = tenantry.provision("acme").await.unwrap().tenant;
    let archived = tenantry.provision("archived").await.unwrap().tenant;
    tenantry.archive("archived").await.unwrap();
    let impossible = [
        ("purge", &acme, serde_json::json!({ "purge": { "force": false } })),
        ("purge", &archived, serde_json::json!({ "purge": { "force": false } })),
        ("suspend", &archived, serde_json::json!("suspend")),
        ("activate", &archived, serde_json::json!("activate")),
    ];
    for (kind, tenant, verb) in impossible {
        let mut intent = Intent::new(OperationId::new(), kind, Lane::Preempt, Subject::Tenant(tenant.id()));
        intent.request = serde_json::json!({ "tenant": tenant.id(), "verb": verb });
        intent.total = 4;
        let begun = journal.begin(&intent).await;
        assert!(matches!(begun, Ok(Begun::New(_))), "{begun:?}");
        tenantry.operations().recover().await.unwrap();
        let ended = tenantry.operations().get(intent.id).await.unwrap().unwrap();
        assert_eq!(ended.status, OperationStatus::Undone, "{kind} must be undone: {ended:?}");
    }
    tenantry.resolve("acme").await.unwrap().execute("SELECT count(*) FROM notes").await.unwrap();
    tenantry.restore("archived").await.unwrap();
    tenantry.resolve("archived").await.unwrap().execute("SELECT count(*) FROM notes").await.unwrap();
}

/// Uses `Lifecycle` without the facade.
#[tokio::test]
async fn lifecycle_reports_open_joined_and_reused_operations() {
    use std::sync::Arc;
    use tenantry::journal::PgJournal;
    use tenantry::lifecycle::{Lifecycle, Verb};
    use tenantry::saga::{CallOptions, Engine, Settings, Started};
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["acme", "other"] {
        tenantry.provision(slug).await.unwrap();
    }
    let journal = Arc::new(PgJournal::new(harness.landlord().clone()));
    let engine = Engine::new(journal, vec![], Settings::default(), tokio_util::sync::CancellationToken::new());
    let lifecycle = Lifecycle::new(tenantry.operation_context(), engine, tenantry::directory::AppAccess::App);
    let (quiet, keyed) = (CallOptions::new(), CallOptions::new().key("form-9"));

    let suspended = lifecycle.apply(Verb::Suspend, "acme".into(), &quiet).await.unwrap();
    assert_eq!(suspended.status(), TenantStatus::Suspended);
    let refused = lifecycle.apply(Verb::Suspend, "acme".into(), &quiet).await;
    assert!(matches!(refused, Err(ChangeError::Status { found: TenantStatus::Suspended, .. })), "{refused:?}");
    let unknown = lifecycle.begin(Verb::Restore, "unknown".into(), &quiet).await;
    assert!(matches!(unknown, Err(ChangeError::Unknown)), "{unknown:?}");

    // This operation is begun but not driven, as if its caller had died.
    let open = lifecycle.begin(Verb::Suspend, "other".into(), &keyed).await.unwrap();
    assert!(matches!(open, Started::New(_)), "begin joined an operation although none was open");
    let joined = lifecycle.begin(Verb::Suspend, "other".into(), &keyed).await.unwrap();
    assert!(matches!(joined, Started::Joined(_)), "a repeated key must join the same operation");
    assert_eq!(joined.id(), open.id(), "a repeated key must join the same operation");
    let reused = lifecycle.begin(Verb::Archive { keep_for: 9 }, "other".into(), &keyed).await;
    assert!(matches!(reused, Err(ChangeError::KeyReused { operation, .. }) if operation == open.id()), "{reused:?}");
    let busy = lifecycle.apply(Verb::Archive { keep_for: 9 }, "other".into(), &quiet).await;
    assert!(matches!(busy, Err(ChangeError::Busy { operation, .. }) if operation == open.id()), "{busy:?}");
    assert_eq!(tenantry.registry().find("other".into()).await.unwrap().unwrap().status(), TenantStatus::Active);
}
