//! Setup tokens in the landlord: whether each is consumed exactly once, and whether the time of a lookup reveals its
//! state.
//!
//! `cargo bench --bench tokens --features axum`. 64 clients compete for 10,000 tokens and for 100 links. Then lookups
//! of expired, used and mistyped tokens are compared with those of unknown ones.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use once::{HOUR, issued};
use ratio::{Goal, Row};
use secrecy::ExposeSecret;
use std::time::{Duration, Instant};
use tenantry::testing::{Harness, TestServer};
use tenantry::tokens::{PgTokenStore, Token, TokenPurpose, TokenStore};
use tenantry::{OperationId, TenantId, Tenantry, sqlx};

#[path = "../examples/torture/torture/once.rs"]
#[allow(dead_code, reason = "the benchmark uses only a part of this module")]
mod once;
mod ratio;

const CALLS: usize = 3_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = TestServer::builder().start().await.unwrap();
    println!("{}", server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let tenantry = harness.tenantry(|b| b).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let landlord = once::wide(&harness).await.unwrap();
    let store = PgTokenStore::new(landlord.clone());
    let mut rows = vec![measure_tokens(&store, acme).await];
    rows.extend(measure_lookup_times(&store, acme, &landlord).await);
    rows.push(measure_links(&tenantry).await);
    ratio::report_rows("tokens", &rows).unwrap();
    tenantry.close().await;
}

/// 64 clients try to consume every token. Counts the tokens that were not consumed exactly once.
async fn measure_tokens(store: &PgTokenStore, tenant: TenantId) -> Row {
    let clock = Instant::now();
    let wrong = once::tokens(store, tenant, once::CLIENTS, once::TOKENS).await.unwrap();
    print_row("tokens not consumed exactly once, 64 clients", once::TOKENS, wrong, clock.elapsed())
}

/// 64 clients follow every link. Counts the links that were not followed exactly once.
async fn measure_links(tenantry: &Tenantry) -> Row {
    let clock = Instant::now();
    let wrong = once::links(tenantry, once::CLIENTS, once::LINKS).await.unwrap();
    print_row("links not followed exactly once, 64 clients", once::LINKS, wrong, clock.elapsed())
}

/// Prints one result, and returns its row for the table. Any wrong token misses the goal.
fn print_row(name: &'static str, pairs: usize, wrong: usize, took: Duration) -> Row {
    println!("{} clients at each of {pairs}, in {took:.0?} including their creation: {wrong} {name}", once::CLIENTS);
    let (ours, goal) = (wrong as f64, Goal::AtMost(0.0));
    Row { name: name.into(), ours, reference: 1.0, unit: "  ", ratio: ours, goal, pairs }
}

/// The median time to look up each kind of invalid token, compared with an unknown one. The kinds alternate.
async fn measure_lookup_times(store: &PgTokenStore, tenant: TenantId, landlord: &sqlx::PgPool) -> Vec<Row> {
    let (used, used_token) = issued(store, tenant, "used@acme.example", HOUR).await.unwrap();
    let by = OperationId::new();
    store.claim(&used_token.hash(), by).await.unwrap();
    store.use_up(used, by).await.unwrap();
    let (expired, expired_token) = issued(store, tenant, "expired@acme.example", HOUR).await.unwrap();
    let expire = sqlx::query("UPDATE tenantry.setup_tokens SET expires_at = now() - interval '1 hour' WHERE id = $1");
    expire.bind(expired.as_uuid()).execute(landlord).await.unwrap();
    let (_, good) = issued(store, tenant, "good@acme.example", HOUR).await.unwrap();
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
        for (at, (name, text)) in kinds.iter().enumerate() {
            let clock = Instant::now();
            let found = store.look_up(&Token::hash_of(text)).await.unwrap();
            assert!(found.is_none(), "an invalid token was found: {name}");
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
            name: kinds[at].0.into(),
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
