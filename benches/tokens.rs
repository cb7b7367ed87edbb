//! Setup tokens in the landlord: 64 clients at 10,000 of them, each consumed once, and at 100 links; and whether the store takes another time
//! for one that is unknown, expired, used or mistyped: `cargo bench --bench tokens --features axum`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks, and may panic")]
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use ratio::{Goal, Row};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::testing::{Harness, TestServer};
use tenantry::tokens::{LinkId, NewToken, PgTokenStore, Token, TokenClaim, TokenPurpose, TokenStore};
use tenantry::web::SetupRoutes;
use tenantry::{OperationId, TenantId, Tenantry, sqlx};
use tower::ServiceExt;

mod ratio;

const CLIENTS: usize = 64;
const TOKENS: usize = 10_000;
const LINKS: usize = 100;
const CALLS: usize = 3_000;
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = TestServer::builder().start().await.unwrap();
    println!("{}", server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let tenantry = harness.tenantry(|b| b).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(16);
    let landlord = pool.connect_with(harness.landlord().connect_options().as_ref().clone()).await.unwrap();
    let store = PgTokenStore::new(landlord.clone());
    let mut rows = vec![once(&store, acme).await];
    rows.extend(alike(&store, acme, &landlord).await);
    rows.push(links(&tenantry).await);
    ratio::report_rows("tokens", &rows).unwrap();
    tenantry.close().await;
}

async fn issued(store: &PgTokenStore, tenant: TenantId, email: &str, lifetime: Duration) -> (LinkId, Token) {
    let token = Token::random(TokenPurpose::credentials());
    let id = LinkId::new();
    store.issue(&NewToken::new(id, tenant, email, &token, lifetime), None).await.unwrap();
    (id, token)
}

/// Every client tries every token, each from another one on; a claim is an operation's own, and then the token is used up.
async fn once(store: &PgTokenStore, tenant: TenantId) -> Row {
    let mut tokens = vec![];
    for n in 0..TOKENS {
        tokens.push(issued(store, tenant, &format!("user-{n}@acme.example"), HOUR).await);
    }
    let tokens = Arc::new(tokens);
    let won: Arc<Vec<AtomicUsize>> = Arc::new((0..TOKENS).map(|_| AtomicUsize::new(0)).collect());
    let clock = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let (store, tokens, won) = (store.clone(), tokens.clone(), won.clone());
        tokio::spawn(async move {
            for n in 0..TOKENS {
                // Neighbours meet at the same token at about the same time.
                let at = (n + client / 8) % TOKENS;
                let (id, token) = &tokens[at];
                let by = OperationId::new();
                if matches!(store.claim(&token.hash(), by).await.unwrap(), TokenClaim::Claimed(_)) {
                    store.use_up(*id, by).await.unwrap();
                    won[at].fetch_add(1, Relaxed);
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let wrong = won.iter().filter(|n| n.load(Relaxed) != 1).count();
    println!(
        "{} claims of {TOKENS} tokens in {:.0?}: {wrong} not consumed exactly once",
        CLIENTS * TOKENS,
        clock.elapsed()
    );
    let pairs = TOKENS;
    let (name, goal) = ("tokens not consumed exactly once, 64 clients", Goal::AtMost(0.0));
    Row { name, ours: wrong as f64, reference: 1.0, unit: "  ", ratio: wrong as f64, goal, pairs }
}

/// A hundred tenants' credentials links, and 64 clients that post each of them at once.
async fn links(tenantry: &Tenantry) -> Row {
    let mut forms: Vec<(String, TenantId)> = vec![];
    for n in 0..LINKS {
        let done = tenantry.provision(format!("link-{n}")).admin("ada@acme.example").await.unwrap();
        forms.push((done.link.unwrap().expose_path(), done.tenant.id()));
    }
    let routes = SetupRoutes::new(tenantry).attempts(u32::MAX);
    let app: Router = Router::new().merge(routes);
    let (clock, mut wrong) = (Instant::now(), 0);
    for (path, _) in &forms {
        let clients = (0..CLIENTS).map(|_| {
            let request = Request::post(path).body(Body::empty()).unwrap();
            tokio::spawn(app.clone().oneshot(request))
        });
        let mut led_to = std::collections::HashSet::new();
        for client in clients.collect::<Vec<_>>() {
            let answer = client.await.unwrap().unwrap();
            match answer.status().as_u16() {
                303 => drop(led_to.insert(answer.headers()["location"].clone())),
                // It came when the link was used.
                404 => {}
                _ => wrong += 1,
            }
        }
        wrong += usize::from(led_to.len() != 1);
    }
    println!("{} posts to {LINKS} links in {:.0?}", CLIENTS * LINKS, clock.elapsed());
    for (_, tenant) in &forms {
        // The first login, and the one that the link has made.
        let users = tenantry.registry_writer().users(*tenant).await.unwrap();
        wrong += usize::from(users.iter().map(|u| u.generation.0).max() != Some(2));
    }
    let (name, goal) = ("links not followed exactly once, 64 clients", Goal::AtMost(0.0));
    Row { name, ours: wrong as f64, reference: 1.0, unit: "  ", ratio: wrong as f64, goal, pairs: LINKS }
}

/// The median of each kind against that of unknown ones, all interleaved.
async fn alike(store: &PgTokenStore, tenant: TenantId, landlord: &sqlx::PgPool) -> Vec<Row> {
    let (used, used_token) = issued(store, tenant, "used@acme.example", HOUR).await;
    let by = OperationId::new();
    store.claim(&used_token.hash(), by).await.unwrap();
    store.use_up(used, by).await.unwrap();
    let (expired, expired_token) = issued(store, tenant, "expired@acme.example", HOUR).await;
    let expire = sqlx::query("UPDATE tenantry.setup_tokens SET expires_at = now() - interval '1 hour' WHERE id = $1");
    expire.bind(expired.as_uuid()).execute(landlord).await.unwrap();
    let (_, good) = issued(store, tenant, "good@acme.example", HOUR).await;
    let mistyped = format!("{}x", good.expose().expose_secret());
    let text = |token: &Token| token.expose().expose_secret().to_owned();
    let kinds = [
        ("unknown", text(&Token::random(TokenPurpose::credentials()))),
        ("an expired link / an unknown one", text(&expired_token)),
        ("a used link / an unknown one", text(&used_token)),
        ("a mistyped link / an unknown one", mistyped),
    ];
    let mut times: Vec<Vec<f64>> = vec![vec![]; kinds.len()];
    for n in 0..CALLS + 200 {
        for (at, (_, text)) in kinds.iter().enumerate() {
            let clock = Instant::now();
            assert!(store.look(&Token::hash_of(text)).await.unwrap().is_none());
            if n >= 200 {
                times[at].push(clock.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    let median = |values: &Vec<f64>| {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let reference = median(&times[0]);
    let row = |at: usize| {
        let ours = median(&times[at]);
        let (goal, pairs) = (Goal::AtMost(1.05), CALLS);
        Row {
            name: kinds[at].0,
            ours,
            reference,
            unit: "us",
            ratio: (ours / reference).max(reference / ours),
            goal,
            pairs,
        }
    };
    (1..kinds.len()).map(row).collect()
}
