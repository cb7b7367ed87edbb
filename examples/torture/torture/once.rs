//! Many clients claim the same tokens and post the same setup links at the same time. Each must be consumed exactly
//! once.
//!
//! `torture -- --once`, the benchmark `tokens` and the test `torture_sample` use this file. It does not depend on the
//! rest of the directory.
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::testing::{Harness, TestServer};
use tenantry::tokens::{LinkId, NewToken, PgTokenStore, Token, TokenClaim, TokenPurpose, TokenStore};
use tenantry::web::SetupRoutes;
use tenantry::{OperationId, TenantId, Tenantry};
use tower::ServiceExt;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Concurrent clients.
pub(crate) const CLIENTS: usize = 64;
/// Tokens that all clients claim.
pub(crate) const TOKENS: usize = 10_000;
/// Setup links that all clients post.
pub(crate) const LINKS: usize = 100;
/// Lifetime of the tokens.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Runs both checks on a server of its own. Returns how many tokens and links were not consumed exactly once.
pub(crate) async fn run(say: impl Fn(String)) -> Result<usize, AnyError> {
    let server = TestServer::builder().start().await?;
    say(server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await?;
    let tenantry = harness.tenantry(|b| b).await?;
    let acme = tenantry.provision("acme").await?.tenant.id();
    let store = PgTokenStore::new(wide(&harness).await?);
    let clock = Instant::now();
    let tokens = tokens(&store, acme, CLIENTS, TOKENS).await?;
    say(format!(
        "{CLIENTS} clients, {TOKENS} tokens, {:.0?}: {tokens} tokens not consumed exactly once",
        clock.elapsed()
    ));
    let clock = Instant::now();
    let links = links(&tenantry, CLIENTS, LINKS).await?;
    say(format!("{CLIENTS} clients, {LINKS} links, {:.0?}: {links} links not followed exactly once", clock.elapsed()));
    tenantry.close().await;
    Ok(tokens + links)
}

/// A pool to the landlord with 16 connections, so that clients work on the same rows at the same time.
pub(crate) async fn wide(harness: &Harness) -> Result<tenantry::sqlx::PgPool, AnyError> {
    let pool = tenantry::schema::pool_options().max_connections(16).acquire_timeout(Duration::from_secs(60));
    Ok(pool.connect_with(harness.landlord().connect_options().as_ref().clone()).await?)
}

/// Issues a credentials token.
pub(crate) async fn issued(
    store: &PgTokenStore, tenant: TenantId, email: &str, lifetime: Duration,
) -> Result<(LinkId, Token), AnyError> {
    let (id, token) = (LinkId::new(), Token::random(TokenPurpose::credentials()));
    store.issue(&NewToken::new(id, tenant, email, &token, lifetime), None).await?;
    Ok((id, token))
}

/// Every client claims every token and uses it up; groups of clients start at different tokens. Returns how many tokens
/// were not claimed exactly once.
pub(crate) async fn tokens(
    store: &PgTokenStore, tenant: TenantId, clients: usize, count: usize,
) -> Result<usize, AnyError> {
    let mut tokens = vec![];
    for n in 0..count {
        tokens.push(issued(store, tenant, &format!("user-{n}@acme.example"), HOUR).await?);
    }
    let tokens = Arc::new(tokens);
    let won: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
    let clients = (0..clients).map(|client| {
        let (store, tokens, won) = (store.clone(), tokens.clone(), won.clone());
        tokio::spawn(async move {
            for n in 0..count {
                // Eight clients start at each token, so they claim the same token at about the same time.
                let at = (n + client / 8) % count;
                let ((id, token), by) = (&tokens[at], OperationId::new());
                if matches!(store.claim(&token.hash(), by).await?, TokenClaim::Claimed(_)) {
                    store.use_up(*id, by).await?;
                    won[at].fetch_add(1, Relaxed);
                }
            }
            Ok::<_, AnyError>(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(won.iter().filter(|n| n.load(Relaxed) != 1).count())
}

/// Provisions `count` tenants and posts each one's credentials link from all clients at once. Returns how many links
/// did not lead to exactly one password form and one new login.
pub(crate) async fn links(tenantry: &Tenantry, clients: usize, count: usize) -> Result<usize, AnyError> {
    let mut links = vec![];
    for n in 0..count {
        let done = tenantry.provision(format!("link-{n}")).admin("ada@acme.example").await?;
        links.push((done.link.ok_or("the provisioning returned no setup link")?.expose_path(), done.tenant.id()));
    }
    let app: Router = Router::new().merge(SetupRoutes::new(tenantry).attempts(u32::MAX));
    let mut wrong = 0;
    for (path, tenant) in &links {
        let mut posts = vec![];
        for _ in 0..clients {
            posts.push(tokio::spawn(app.clone().oneshot(Request::post(path).body(Body::empty())?)));
        }
        let (mut destinations, mut unexpected) = (HashSet::new(), 0);
        for post in posts {
            let answer = post.await??;
            match (answer.status().as_u16(), answer.headers().get("location")) {
                (303, Some(location)) => drop(destinations.insert(location.clone())),
                // The post arrived after the link was used.
                (404, _) => {}
                _ => unexpected += 1,
            }
        }
        // Generation 1 is the login of the provisioning, 2 the one that the link created.
        let users = tenantry.registry_writer().users(*tenant).await?;
        let logins = users.iter().map(|user| user.generation.0).max();
        wrong += usize::from(unexpected > 0 || destinations.len() != 1 || logins != Some(2));
    }
    Ok(wrong)
}
