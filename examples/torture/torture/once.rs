//! Many clients at the same tokens, and at the same links: each is consumed exactly once.
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

type Anything = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const CLIENTS: usize = 64;
pub(crate) const TOKENS: usize = 10_000;
pub(crate) const LINKS: usize = 100;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// On a server of its own. How many were not consumed exactly once.
pub(crate) async fn run(say: impl Fn(String)) -> Result<usize, Anything> {
    let server = TestServer::builder().start().await?;
    say(server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await?;
    let tenantry = harness.tenantry(|b| b).await?;
    let acme = tenantry.provision("acme").await?.tenant.id();
    let store = PgTokenStore::new(wide(&harness).await?);
    let clock = Instant::now();
    let tokens = tokens(&store, acme, CLIENTS, TOKENS).await?;
    say(format!("{CLIENTS} clients at {TOKENS} tokens in {:.0?}: {tokens} not consumed exactly once", clock.elapsed()));
    let clock = Instant::now();
    let links = links(&tenantry, CLIENTS, LINKS).await?;
    say(format!("{CLIENTS} clients at {LINKS} links in {:.0?}: {links} not followed exactly once", clock.elapsed()));
    tenantry.close().await;
    Ok(tokens + links)
}

/// A pool in which clients meet at the same rows.
pub(crate) async fn wide(harness: &Harness) -> Result<tenantry::sqlx::PgPool, Anything> {
    let pool = tenantry::schema::pool_options().max_connections(16).acquire_timeout(Duration::from_secs(60));
    Ok(pool.connect_with(harness.landlord().connect_options().as_ref().clone()).await?)
}

pub(crate) async fn issued(
    store: &PgTokenStore, tenant: TenantId, email: &str, lifetime: Duration,
) -> Result<(LinkId, Token), Anything> {
    let (id, token) = (LinkId::new(), Token::random(TokenPurpose::credentials()));
    store.issue(&NewToken::new(id, tenant, email, &token, lifetime), None).await?;
    Ok((id, token))
}

/// Every client tries every token, each from another one on; a claim is an operation's own, and then the token is used up.
pub(crate) async fn tokens(
    store: &PgTokenStore, tenant: TenantId, clients: usize, count: usize,
) -> Result<usize, Anything> {
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
                // Neighbours meet at the same token at about the same time.
                let at = (n + client / 8) % count;
                let ((id, token), by) = (&tokens[at], OperationId::new());
                if matches!(store.claim(&token.hash(), by).await?, TokenClaim::Claimed(_)) {
                    store.use_up(*id, by).await?;
                    won[at].fetch_add(1, Relaxed);
                }
            }
            Ok::<_, Anything>(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(won.iter().filter(|n| n.load(Relaxed) != 1).count())
}

/// So many tenants' credentials links, and clients that post each of them at once.
pub(crate) async fn links(tenantry: &Tenantry, clients: usize, count: usize) -> Result<usize, Anything> {
    let mut links = vec![];
    for n in 0..count {
        let done = tenantry.provision(format!("link-{n}")).admin("ada@acme.example").await?;
        links.push((done.link.ok_or("no link")?.expose_path(), done.tenant.id()));
    }
    let app: Router = Router::new().merge(SetupRoutes::new(tenantry).attempts(u32::MAX));
    let mut wrong = 0;
    for (path, tenant) in &links {
        let mut posts = vec![];
        for _ in 0..clients {
            posts.push(tokio::spawn(app.clone().oneshot(Request::post(path).body(Body::empty())?)));
        }
        let (mut led_to, mut strange) = (HashSet::new(), 0);
        for post in posts {
            let answer = post.await??;
            match (answer.status().as_u16(), answer.headers().get("location")) {
                (303, Some(location)) => drop(led_to.insert(location.clone())),
                // It came when the link was used.
                (404, _) => {}
                _ => strange += 1,
            }
        }
        // The first login, and the one that the link has made.
        let users = tenantry.registry_writer().users(*tenant).await?;
        let logins = users.iter().map(|user| user.generation.0).max();
        wrong += usize::from(strange > 0 || led_to.len() != 1 || logins != Some(2));
    }
    Ok(wrong)
}
