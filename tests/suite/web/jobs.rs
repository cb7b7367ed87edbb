//! `tenantry::job::TenantLayer`: a background job runs with the tenant that it names as its current tenant, or not at
//! all.
use std::sync::{Arc, Mutex};
use tenantry::error::ResolveError;
use tenantry::job::TenantLayer;
use tenantry::sqlx::PgPool;
use tenantry::testing::FixedResolver;
use tenantry::{ConnectionResolver, TenantPool, TenantRef};
use tower::{Layer, ServiceExt, service_fn};

struct Invoice {
    tenant: &'static str,
}

#[tokio::test]
async fn job_layer_sets_the_current_tenant_and_skips_jobs_without_one() {
    let pool = || PgPool::connect_lazy("postgres://nowhere").unwrap();
    let resolver = FixedResolver::default().tenant("acme", pool()).tenant("other", pool()).suspended("late");
    let resolver: Arc<dyn ConnectionResolver> = Arc::new(resolver);
    let ran = Arc::new(Mutex::new(vec![]));
    let seen = ran.clone();
    let worker = service_fn(move |job: Invoice| {
        let seen = seen.clone();
        async move {
            tokio::task::yield_now().await;
            let tenant = TenantPool::current().expect("the job has no current tenant").tenant().slug().to_string();
            assert_eq!(tenant, job.tenant);
            let spawned = tokio::spawn(async { TenantPool::current().is_none() });
            assert!(spawned.await.unwrap(), "a spawned task inherited the current tenant");
            seen.lock().unwrap().push(tenant);
            Ok::<_, ResolveError>(())
        }
    });
    let worker = TenantLayer::new(resolver, |job: &Invoice| TenantRef::from(job.tenant)).layer(worker);
    let jobs = ["acme", "other", "acme", "late", "nobody"].map(|tenant| worker.clone().oneshot(Invoice { tenant }));
    let results = futures_util::future::join_all(jobs).await;
    assert!(results[..3].iter().all(Result::is_ok), "{results:?}");
    assert!(matches!(results[3], Err(ResolveError::Suspended(_))) && matches!(results[4], Err(ResolveError::Unknown)));
    let mut ran = ran.lock().unwrap().clone();
    ran.sort();
    assert_eq!(ran, ["acme", "acme", "other"], "tenants of the jobs that ran");
    assert!(TenantPool::current().is_none());
}
