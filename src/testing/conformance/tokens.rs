//! [`TokenStore`].
use super::assertions::{expect_conflict, expect_ok, expect_fenced};
use crate::operation::{FencingToken, OperationId};
use crate::store::tokens::{
    Event, Events, IssuedToken, LinkId, NewToken, Token, TokenClaim, TokenEventKind, TokenPurpose, TokenStore,
};
use crate::tenant::TenantId;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// Issuing, looking, claiming, using up, revoking, expiring; fencing. `tenant` must exist, if the store asks for that.
///
/// # Panics
/// When a promise of [`TokenStore`] is broken.
pub async fn token_store(store: impl TokenStore, tenant: TenantId) {
    once(&store, tenant).await;
    raced(&store, tenant).await;
    siblings(&store, tenant).await;
    expiry(&store, tenant).await;
    claimed(&store, tenant).await;
    listed(&store, tenant).await;
    fencing(&store, tenant).await;
    history(&store, tenant).await;
}

/// What became of links is told, and why they were refused.
async fn history(store: &impl TokenStore, tenant: TenantId) {
    use TokenEventKind::*;
    let (good, hash) = token(tenant, "history@acme.example", HOUR);
    issue(store, &good).await;
    let events = Events::default();
    events.note(hash, Some(Shown), Some([10, 0, 0, 7].into()));
    events.note([9; 32], None, None);
    let write = events.write_to(store);
    let told = async {
        loop {
            let told = expect_ok(store.events(tenant, 100).await, "reading events");
            if told.iter().any(|e| e.link == Some(good.id)) {
                // Before the fencing_token ends: what it has written and had no answer to yet counts as dropped then.
                return (told, events.dropped());
            }
            tokio::task::yield_now().await;
        }
    };
    let (told, dropped) = tokio::select! { _ = write => (vec![], 0), told = told => told };
    assert_eq!(dropped, 0, "expected: nothing is dropped while there is room");
    let shown = told.iter().find(|e| e.link == Some(good.id)).map(|e| (e.what, e.client.clone()));
    assert_eq!(shown, Some((Shown, Some("10.0.0.7".into()))), "expected: what became of a link is told");
    let by = OperationId::new();
    expect_ok(store.claim(&hash, by).await, "a claim");
    expect_ok(store.use_up(good.id, by).await, "a use");
    let again = [Event { hash, what: None, client: None, at: std::time::Instant::now() }];
    expect_ok(store.record(&again).await, "writing an event");
    let told = expect_ok(store.events(tenant, 1).await, "reading events");
    assert_eq!(told[0].what, Reused, "expected: a link that was used before is told as reused, newest first");
}

fn token(tenant: TenantId, email: &str, lifetime: Duration) -> (NewToken, [u8; 32]) {
    let token = Token::random(TokenPurpose::credentials());
    (NewToken::new(LinkId::new(), tenant, email, &token, lifetime), token.hash())
}

async fn issue(store: &impl TokenStore, new: &NewToken) -> IssuedToken {
    expect_ok(store.issue(new, None).await, "a token is issued")
}

async fn once(store: &impl TokenStore, tenant: TenantId) {
    let (new, hash) = token(tenant, "once@acme.example", HOUR);
    let issued = issue(store, &new).await;
    assert_eq!(issue(store, &new).await, issued, "expected: issuing twice is issuing once");
    for _ in 0..2 {
        let seen = expect_ok(store.look(&hash).await, "looking");
        assert_eq!(seen.as_ref(), Some(&issued), "expected: looking consumes nothing");
    }
    let (a, b) = (OperationId::new(), OperationId::new());
    expect_conflict(store.use_up(new.id, a).await, "using up what is not claimed");
    let claimed = |c: TokenClaim| matches!(c, TokenClaim::Claimed(t) if t.claimed_by == Some(a));
    assert!(claimed(expect_ok(store.claim(&hash, a).await, "a claim")), "expected: the first claim has it");
    assert!(claimed(expect_ok(store.claim(&hash, a).await, "the same claim")), "expected: and has it again");
    let other = expect_ok(store.claim(&hash, b).await, "another claim");
    assert!(matches!(&other, TokenClaim::Joined(t) if t.claimed_by == Some(a)), "expected: others join; {other:?}");
    expect_ok(store.unclaim(new.id, b).await, "who has not claimed it changes nothing");
    expect_conflict(store.use_up(new.id, b).await, "using up what another has claimed");
    expect_ok(store.unclaim(new.id, a).await, "an operation that is undone gives it back");
    assert!(
        matches!(expect_ok(store.claim(&hash, b).await, "a claim"), TokenClaim::Claimed(_)),
        "expected: then it is free"
    );
    for _ in 0..2 {
        expect_ok(store.use_up(new.id, b).await, "using up, also twice");
    }
    assert_eq!(expect_ok(store.look(&hash).await, "looking"), None, "expected: a used token is no token");
    assert_eq!(expect_ok(store.claim(&hash, b).await, "a claim"), TokenClaim::NotValid, "expected: nor is it claimed again");
}

/// Many claims of each token at once, each by an operation of its own.
async fn raced(store: &impl TokenStore, tenant: TenantId) {
    for n in 0..20 {
        let (new, hash) = token(tenant, &format!("raced-{n}@acme.example"), HOUR);
        issue(store, &new).await;
        let claims = (0..16).map(|_| async {
            let by = OperationId::new();
            match expect_ok(store.claim(&hash, by).await, "a claim") {
                TokenClaim::Claimed(_) => expect_ok(store.use_up(new.id, by).await, "a use"),
                TokenClaim::Joined(_) | TokenClaim::NotValid => return 0,
            }
            1
        });
        let won: u32 = futures_util::future::join_all(claims).await.into_iter().sum();
        assert_eq!(won, 1, "expected: of many claims at once one has it");
    }
}

async fn siblings(store: &impl TokenStore, tenant: TenantId) {
    let (first, second, other) = (
        token(tenant, "ada@acme.example", HOUR),
        token(tenant, "Ada@acme.example", HOUR),
        token(tenant, "bob@acme.example", HOUR),
    );
    for new in [&first.0, &other.0, &second.0] {
        issue(store, new).await;
    }
    assert_eq!(expect_ok(store.look(&first.1).await, "looking"), None, "expected: a new one revokes its sibling");
    assert!(expect_ok(store.look(&other.1).await, "looking").is_some(), "expected: and nobody else's");
    expect_ok(store.delivered(second.0.id).await, "a delivery");
    let good = expect_ok(store.of_tenant(tenant).await, "a tenant's tokens");
    let delivered: Vec<bool> = good.iter().filter(|t| t.id == second.0.id).map(|t| t.delivered).collect();
    assert_eq!(delivered, [true], "expected: the good ones are listed, and whether they were delivered");
    expect_ok(store.revoke(second.0.id).await, "revoking");
    assert_eq!(expect_ok(store.look(&second.1).await, "looking"), None, "expected: what is revoked is no token");
}

async fn expiry(store: &impl TokenStore, tenant: TenantId) {
    let (new, hash) = token(tenant, "late@acme.example", Duration::ZERO);
    issue(store, &new).await;
    assert_eq!(expect_ok(store.look(&hash).await, "looking"), None, "expected: what is over is no token");
    assert_eq!(expect_ok(store.claim(&hash, OperationId::new()).await, "a claim"), TokenClaim::NotValid);
    assert_eq!(expect_ok(store.look(&[7; 32]).await, "looking"), None, "expected: nor is what was never issued");
}

/// Whoever has claimed a token in time is not hurried, and not disturbed.
async fn claimed(store: &impl TokenStore, tenant: TenantId) {
    let by = OperationId::new();
    let claim = async |email: &str, lifetime| {
        let (new, hash) = token(tenant, email, lifetime);
        issue(store, &new).await;
        let claim = expect_ok(store.claim(&hash, by).await, "a claim");
        assert!(matches!(claim, TokenClaim::Claimed(_)), "expected: a good token can be claimed; {claim:?}");
        (new.id, hash)
    };
    let (revoked, hash) = claim("zoe@acme.example", HOUR).await;
    expect_ok(store.revoke(revoked).await, "revoking");
    issue(store, &token(tenant, "zoe@acme.example", HOUR).0).await;
    assert!(expect_ok(store.look(&hash).await, "looking").is_some(), "expected: what is claimed is not revoked");

    let short = Duration::from_secs(2);
    let (late, hash) = claim("kim@acme.example", short).await;
    let (clock, over) = token(tenant, "clock@acme.example", short);
    issue(store, &clock).await;
    while expect_ok(store.look(&over).await, "looking").is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = expect_ok(store.claim(&hash, by).await, "the same claim");
    assert!(matches!(again, TokenClaim::Claimed(_)), "expected: it goes on when the time is over; {again:?}");
    expect_ok(store.use_up(late, by).await, "using up what was claimed in time");
}

async fn listed(store: &impl TokenStore, tenant: TenantId) {
    let other = Token::random(TokenPurpose::password());
    let other = NewToken::new(LinkId::new(), tenant, "max@acme.example", &other, HOUR);
    let (first, over, second) = (
        token(tenant, "max@acme.example", HOUR).0,
        token(tenant, "moe@acme.example", Duration::ZERO).0,
        token(tenant, "mia@acme.example", HOUR).0,
    );
    for new in [&other, &first, &over, &second] {
        issue(store, new).await;
    }
    let mine = [other.id, first.id, over.id, second.id];
    let good = expect_ok(store.of_tenant(tenant).await, "a tenant's tokens").into_iter().map(|t| t.id);
    let good: Vec<_> = good.filter(|id| mine.contains(id)).collect();
    let promise = "expected: the good ones, newest first; none of another purpose is revoked";
    assert_eq!(good, [second.id, first.id, other.id], "{promise}");
}

async fn fencing(store: &impl TokenStore, tenant: TenantId) {
    let by = FencingToken { operation: OperationId::new(), epoch: 3 };
    let (new, hash) = token(tenant, "eve@acme.example", HOUR);
    expect_fenced(store.issue(&new, Some(by)).await.map(drop), "an operation that was never fenced");
    expect_ok(store.fence(by.operation, by.epoch).await, "a fence");
    expect_ok(store.issue(&new, Some(by)).await, "its operation issues");
    expect_ok(store.fence(by.operation, by.epoch + 1).await, "a higher fence");
    expect_fenced(store.fence(by.operation, by.epoch).await, "a lower fence");
    expect_fenced(store.forget_tenant(tenant, by).await, "an epoch that is over");
    assert!(expect_ok(store.look(&hash).await, "looking").is_some(), "expected: a stale fencing_token deletes nothing");
    let newer = FencingToken { epoch: by.epoch + 1, ..by };
    expect_ok(store.forget_tenant(tenant, newer).await, "forgetting a tenant");
    assert_eq!(expect_ok(store.of_tenant(tenant).await, "its tokens"), [], "expected: all of its tokens are gone");
}
