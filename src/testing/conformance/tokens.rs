//! The conformance suite of [`TokenStore`]: the life of a token from issue to use, revocation and expiry, fencing, and
//! the history of events.
use super::assertions::{expect_conflict, expect_fenced, expect_ok};
use crate::error::Rows;
use crate::operation::{FencingToken, OperationId};
use crate::store::tokens::{
    Events, IssuedToken, LinkId, NewToken, PendingEvent, Token, TokenClaim, TokenEventKind, TokenPurpose, TokenStore,
};
use crate::tenant::TenantId;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// Checks a [`TokenStore`]. `tenant` must exist if the store checks that. The suite takes more than two seconds,
/// because it waits until a token expires.
///
/// # Panics
/// If the implementation breaks the contract of [`TokenStore`]. The message names the rule.
pub async fn token_store(store: impl TokenStore, tenant: TenantId) {
    check_single_use(&store, tenant).await;
    check_concurrent_claims(&store, tenant).await;
    check_siblings(&store, tenant).await;
    check_expiry(&store, tenant).await;
    check_claimed_tokens(&store, tenant).await;
    check_list(&store, tenant).await;
    check_fencing(&store, tenant).await;
    check_history(&store, tenant).await;
}

/// Events are recorded, with the reason if the token was refused.
async fn check_history(store: &impl TokenStore, tenant: TenantId) {
    use TokenEventKind::*;
    let (valid, hash) = token(tenant, "history@acme.example", HOUR);
    issue(store, &valid).await;
    let queue = Events::default();
    queue.note(hash, Some(Shown), Some([10, 0, 0, 7].into()));
    queue.note([9; 32], None, None);
    let write = queue.write_to(store);
    let recorded = async {
        loop {
            let events = expect_ok(store.events(tenant, 100).await, "events() lists events");
            if events.iter().any(|e| e.link == Some(valid.id)) {
                // Read the counter while `write_to` still runs. Once its future is dropped, events whose write it had
                // not seen confirmed count as dropped, although the store has them.
                return (events, queue.dropped());
            }
            tokio::task::yield_now().await;
        }
    };
    let (events, dropped) = tokio::select! { _ = write => (Rows::from(vec![]), 0), recorded = recorded => recorded };
    assert_eq!(dropped, 0, "expected: the queue drops no event while it has room");
    let shown = events.iter().find(|e| e.link == Some(valid.id)).map(|e| (e.what, e.client.clone()));
    assert_eq!(shown, Some((Shown, Some("10.0.0.7".into()))), "expected: events() returns the recorded event");
    let by = OperationId::new();
    expect_ok(store.claim(&hash, by).await, "claim() claims a valid token");
    expect_ok(store.use_up(valid.id, by).await, "use_up() marks a claimed token used");
    let again = [PendingEvent { hash, what: None, client: None, at: std::time::Instant::now() }];
    expect_ok(store.record(&again).await, "record() stores an event");
    let events = expect_ok(store.events(tenant, 1).await, "events() lists events");
    assert_eq!(events[0].what, Reused, "expected: the newest event comes first, and a used token was Reused");
}

fn token(tenant: TenantId, email: &str, lifetime: Duration) -> (NewToken, [u8; 32]) {
    let token = Token::random(TokenPurpose::credentials());
    (NewToken::new(LinkId::new(), tenant, email, &token, lifetime), token.hash())
}

async fn issue(store: &impl TokenStore, new: &NewToken) -> IssuedToken {
    expect_ok(store.issue(new, None).await, "issue() stores a token")
}

async fn look(store: &impl TokenStore, hash: &[u8; 32]) -> Option<IssuedToken> {
    expect_ok(store.look_up(hash).await, "look_up() returns a token or None, not an error")
}

async fn claim(store: &impl TokenStore, hash: &[u8; 32], by: OperationId) -> TokenClaim {
    expect_ok(store.claim(hash, by).await, "claim() returns a result, not an error")
}

async fn check_single_use(store: &impl TokenStore, tenant: TenantId) {
    let (new, hash) = token(tenant, "once@acme.example", HOUR);
    let issued = issue(store, &new).await;
    assert_eq!(issue(store, &new).await, issued, "expected: a repeated issue() returns the stored token");
    for _ in 0..2 {
        assert_eq!(look(store, &hash).await.as_ref(), Some(&issued), "expected: look_up() consumes nothing");
    }
    let (a, b) = (OperationId::new(), OperationId::new());
    expect_conflict(store.use_up(new.id, a).await, "use_up() of an unclaimed token");
    let is_claimed_by_a = |c: &TokenClaim| matches!(c, TokenClaim::Claimed(t) if t.claimed_by == Some(a));
    for _ in 0..2 {
        let answer = claim(store, &hash, a).await;
        assert!(
            is_claimed_by_a(&answer),
            "expected: the first operation claims the token, also again; got: {answer:?}"
        );
    }
    let other = claim(store, &hash, b).await;
    let is_joined = matches!(&other, TokenClaim::Joined(t) if t.claimed_by == Some(a));
    assert!(is_joined, "expected: claim() by another operation returns Joined with the first one; got: {other:?}");
    expect_ok(
        store.unclaim(new.id, b).await,
        "unclaim() by an operation that has not claimed the token changes nothing",
    );
    expect_conflict(store.use_up(new.id, b).await, "use_up() of a token that another operation has claimed");
    expect_ok(store.unclaim(new.id, a).await, "unclaim() returns the token to unused");
    let answer = claim(store, &hash, b).await;
    let is_claimed = matches!(answer, TokenClaim::Claimed(_));
    assert!(is_claimed, "expected: another operation can claim the token after unclaim(); got: {answer:?}");
    for _ in 0..2 {
        expect_ok(store.use_up(new.id, b).await, "use_up() marks a claimed token used and can be repeated");
    }
    assert_eq!(look(store, &hash).await, None, "expected: look_up() does not find a used token");
    assert_eq!(claim(store, &hash, b).await, TokenClaim::NotValid, "expected: a used token cannot be claimed");
}

/// Concurrent claims of each token, each by another operation.
async fn check_concurrent_claims(store: &impl TokenStore, tenant: TenantId) {
    for n in 0..20 {
        let (new, hash) = token(tenant, &format!("raced-{n}@acme.example"), HOUR);
        issue(store, &new).await;
        let claims = (0..16).map(|_| async {
            let by = OperationId::new();
            match claim(store, &hash, by).await {
                TokenClaim::Claimed(_) => expect_ok(store.use_up(new.id, by).await, "use_up() marks the token used"),
                TokenClaim::Joined(_) | TokenClaim::NotValid => return 0,
            }
            1
        });
        let won: u32 = futures_util::future::join_all(claims).await.into_iter().sum();
        assert_eq!(won, 1, "expected: exactly one of 16 concurrent operations claims the token");
    }
}

async fn check_siblings(store: &impl TokenStore, tenant: TenantId) {
    let (first, second, other) = (
        token(tenant, "ada@acme.example", HOUR),
        token(tenant, "Ada@acme.example", HOUR),
        token(tenant, "bob@acme.example", HOUR),
    );
    for new in [&first.0, &other.0, &second.0] {
        issue(store, new).await;
    }
    assert_eq!(look(store, &first.1).await, None, "expected: a new token revokes the earlier one of the same address");
    assert!(look(store, &other.1).await.is_some(), "expected: a new token revokes no token of another address");
    expect_ok(store.mark_delivered(second.0.id).await, "mark_delivered() records a delivery");
    let valid = expect_ok(store.of_tenant(tenant).await, "of_tenant() lists tokens");
    let delivered: Vec<bool> = valid.iter().filter(|t| t.id == second.0.id).map(|t| t.delivered).collect();
    assert_eq!(delivered, [true], "expected: of_tenant() lists a valid token, and that it was delivered");
    expect_ok(store.revoke(second.0.id).await, "revoke() succeeds");
    assert_eq!(look(store, &second.1).await, None, "expected: look_up() does not find a revoked token");
}

async fn check_expiry(store: &impl TokenStore, tenant: TenantId) {
    let (new, hash) = token(tenant, "late@acme.example", Duration::ZERO);
    issue(store, &new).await;
    assert_eq!(look(store, &hash).await, None, "expected: look_up() does not find an expired token");
    let answer = claim(store, &hash, OperationId::new()).await;
    assert_eq!(answer, TokenClaim::NotValid, "expected: an expired token cannot be claimed");
    assert_eq!(look(store, &[7; 32]).await, None, "expected: look_up() does not find a token that was never issued");
}

/// A claimed token stays valid for its operation after it expires, and cannot be revoked.
async fn check_claimed_tokens(store: &impl TokenStore, tenant: TenantId) {
    let by = OperationId::new();
    let issue_and_claim = async |email: &str, lifetime| {
        let (new, hash) = token(tenant, email, lifetime);
        issue(store, &new).await;
        let answer = claim(store, &hash, by).await;
        assert!(matches!(answer, TokenClaim::Claimed(_)), "expected: a valid token can be claimed; got: {answer:?}");
        (new.id, hash)
    };
    let (revoked, hash) = issue_and_claim("zoe@acme.example", HOUR).await;
    expect_ok(store.revoke(revoked).await, "revoke() of a claimed token succeeds");
    issue(store, &token(tenant, "zoe@acme.example", HOUR).0).await;
    let found = look(store, &hash).await;
    assert!(found.is_some(), "expected: neither revoke() nor a newer token revokes a claimed one");

    let short = Duration::from_secs(2);
    let (claimed, hash) = issue_and_claim("kim@acme.example", short).await;
    // This token is issued later and has the same lifetime: once it has expired, the claimed one has too.
    let (later, later_hash) = token(tenant, "clock@acme.example", short);
    issue(store, &later).await;
    while look(store, &later_hash).await.is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = claim(store, &hash, by).await;
    let is_claimed = matches!(answer, TokenClaim::Claimed(_));
    assert!(is_claimed, "expected: a claimed token stays valid for its operation after it expires; got: {answer:?}");
    expect_ok(store.use_up(claimed, by).await, "use_up() of a token that was claimed before it expired succeeds");
}

async fn check_list(store: &impl TokenStore, tenant: TenantId) {
    let other = Token::random(TokenPurpose::password());
    let other = NewToken::new(LinkId::new(), tenant, "max@acme.example", &other, HOUR);
    let (first, expired, second) = (
        token(tenant, "max@acme.example", HOUR).0,
        token(tenant, "moe@acme.example", Duration::ZERO).0,
        token(tenant, "mia@acme.example", HOUR).0,
    );
    for new in [&other, &first, &expired, &second] {
        issue(store, new).await;
    }
    let issued = [other.id, first.id, expired.id, second.id];
    let valid = expect_ok(store.of_tenant(tenant).await, "of_tenant() lists tokens").into_iter().map(|t| t.id);
    let valid: Vec<_> = valid.filter(|id| issued.contains(id)).collect();
    let rule = "expected: of_tenant() lists valid tokens, newest first; a token of another purpose is not revoked";
    assert_eq!(valid, [second.id, first.id, other.id], "{rule}");
}

async fn check_fencing(store: &impl TokenStore, tenant: TenantId) {
    let by = FencingToken { operation: OperationId::new(), epoch: 3 };
    let (new, hash) = token(tenant, "eve@acme.example", HOUR);
    expect_fenced(store.issue(&new, Some(by)).await.map(drop), "issue() by an operation that never called fence()");
    expect_ok(store.fence(by.operation, by.epoch).await, "fence() stores an epoch");
    expect_ok(store.issue(&new, Some(by)).await, "issue() under the fenced epoch succeeds");
    expect_ok(store.fence(by.operation, by.epoch + 1).await, "fence() raises the epoch");
    expect_fenced(store.fence(by.operation, by.epoch).await, "fence() with a lower epoch");
    expect_fenced(store.forget_tenant(tenant, by).await, "forget_tenant() under an old epoch");
    assert!(look(store, &hash).await.is_some(), "expected: forget_tenant() under an old epoch deletes nothing");
    let newer = FencingToken { epoch: by.epoch + 1, ..by };
    expect_ok(store.forget_tenant(tenant, newer).await, "forget_tenant() under the newest epoch succeeds");
    let left = expect_ok(store.of_tenant(tenant).await, "of_tenant() lists tokens");
    assert_eq!(left.readable, [], "expected: forget_tenant() deletes all tokens of the tenant");
}
