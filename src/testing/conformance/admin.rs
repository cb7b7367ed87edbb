//! The conformance suite of [`AdminStore`]: tenant admins, their passwords, and which passwords are accepted.
use super::assertions::expect_ok;
use crate::names::Email;
use crate::store::admin::{AdminError, AdminStore, PasswordError};
use secrecy::SecretString;
use sqlx::PgConnection;

/// Checks an [`AdminStore`]. `db` is a session of the test's own database, in which the store may create tables. The
/// store's password policy must accept passwords of twelve or more characters and refuse an empty one.
///
/// # Panics
/// If the implementation breaks the contract of [`AdminStore`]. The message names the rule.
pub async fn admin_store(store: &dyn AdminStore, db: &mut PgConnection) {
    let (ada, bob) = (email("ada"), email("bob"));
    for _ in 0..2 {
        expect_ok(store.prepare(db, None).await, "prepare() creates the storage and can be repeated");
    }
    check_unknown_admin(store, db, &ada).await;
    for _ in 0..2 {
        expect_ok(store.ensure_admin(db, &ada).await, "ensure_admin() creates an admin and can be repeated");
    }
    check_verify(store, db, &ada, "", false, "a new admin has no password").await;
    check_verify(store, db, &ada, FIRST, false, "a new admin has no password").await;
    check_passwords(store, db, &ada).await;
    check_repeated_calls(store, db, &ada).await;
    check_unicode_forms(store, db, &bob).await;
    let eve = email("eve");
    expect_ok(store.ensure_admin(db, &eve).await, "ensure_admin() creates a third admin");
    check_verify(store, db, &eve, SECOND, false, "verify() refuses another admin's password").await;
    check_refused_passwords(store, db, &ada).await;
    check_hash_first(store, db, &eve).await;
    for (address, stored) in [(&ada, Some(&ada)), (&email("ADA"), Some(&ada)), (&email("unknown"), None)] {
        check_find(store, db, address, stored).await;
    }
    check_similar_address(store, db).await;
}

/// If the store hashes passwords itself, the hash of one is as good as the password, and a refused one has no hash.
async fn check_hash_first(store: &dyn AdminStore, db: &mut PgConnection, eve: &Email) {
    let Some(first) = store.hash_first() else { return };
    let hash = expect_ok(first.hash(&FIRST.into()).await, "hash() of a valid password succeeds");
    expect_ok(first.set_hash(db, eve, &hash).await, "set_hash() of an admin succeeds");
    check_verify(store, db, eve, FIRST, true, "a password whose hash was set is accepted").await;
    let empty = first.hash(&"".into()).await.map(drop);
    let short = matches!(empty, Err(AdminError::Password(PasswordError::Short { .. })));
    assert!(short, "expected: hash() refuses an empty password as Short; got: {empty:?}");
    let unknown = first.set_hash(db, &email("unknown"), &hash).await;
    let is_unknown = matches!(unknown, Err(AdminError::Unknown(_)));
    assert!(is_unknown, "expected: set_hash() of an address without an admin fails with Unknown; got: {unknown:?}");
}

async fn check_find(store: &dyn AdminStore, db: &mut PgConnection, email: &Email, expected: Option<&Email>) {
    let found = expect_ok(store.find_admin(db, email).await, "find_admin() returns an address or none, not an error");
    assert!(found.as_ref() == expected, "expected: find_admin() of {email} returns {expected:?}; got: {found:?}");
}

/// The Kelvin sign is another letter than `k`, although its Unicode lower case is `k`: an address with it has another
/// mailbox, whose owner must not become the admin.
async fn check_similar_address(store: &dyn AdminStore, db: &mut PgConnection) {
    let (mike, other) = (email("mike"), email("mi\u{212a}e"));
    expect_ok(store.ensure_admin(db, &mike).await, "ensure_admin() creates another admin");
    expect_ok(store.set_password(db, &mike, &FIRST.into()).await, "set_password() of that admin succeeds");
    let set = store.set_password(db, &other, &SECOND.into()).await;
    let is_unknown = matches!(set, Err(AdminError::Unknown(_)));
    assert!(is_unknown, "expected: an address with U+212A is not the admin's with `k`; got: {set:?}");
    check_verify(store, db, &mike, FIRST, true, "the password of a similar address changes nothing").await;
    check_verify(store, db, &other, FIRST, false, "a similar address is not the admin's").await;
    check_find(store, db, &other, None).await;
}

const FIRST: &str = "correct horse battery staple";
const SECOND: &str = "p@ss/w?rd:1#% 'quoted\" \\ ä\u{1F980}";

async fn check_unknown_admin(store: &dyn AdminStore, db: &mut PgConnection, email: &Email) {
    check_verify(store, db, email, FIRST, false, "verify() refuses an address without an admin").await;
    let unknown = store.set_password(db, email, &FIRST.into()).await;
    let is_unknown = matches!(unknown, Err(AdminError::Unknown(_)));
    assert!(is_unknown, "expected: set_password() of an address without an admin fails with Unknown; got: {unknown:?}");
}

async fn check_passwords(store: &dyn AdminStore, db: &mut PgConnection, ada: &Email) {
    for (now, before) in [(FIRST, SECOND), (SECOND, FIRST)] {
        for _ in 0..2 {
            expect_ok(store.set_password(db, ada, &now.into()).await, "set_password() succeeds and can be repeated");
        }
        check_verify(store, db, ada, now, true, "verify() accepts the current password").await;
        check_verify(store, db, ada, before, false, "verify() refuses any other password").await;
        check_verify(store, db, ada, &now.to_uppercase(), false, "verify() distinguishes upper and lower case").await;
        check_verify(store, db, &email("ADA"), now, true, "addresses are compared without regard to ASCII case").await;
    }
}

/// The same text in NFC and in NFD.
const COMPOSED: &str = "caf\u{e9} \u{d55c}\u{ae00} batterie";
const DECOMPOSED: &str = "cafe\u{301} \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} batterie";

async fn check_unicode_forms(store: &dyn AdminStore, db: &mut PgConnection, email: &Email) {
    expect_ok(store.ensure_admin(db, email).await, "ensure_admin() creates another admin");
    for (set, other) in [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)] {
        expect_ok(store.set_password(db, email, &set.into()).await, "set_password() accepts any script");
        check_verify(store, db, email, set, true, "verify() accepts the current password").await;
        check_verify(store, db, email, other, true, "the NFD and the NFC form of one text are one password").await;
    }
    let spaces = " two words ".repeat(2);
    expect_ok(store.set_password(db, email, &spaces.as_str().into()).await, "set_password() accepts spaces");
    check_verify(store, db, email, " two words  two words", false, "a trailing space is part of the password").await;
}

async fn check_repeated_calls(store: &dyn AdminStore, db: &mut PgConnection, ada: &Email) {
    expect_ok(store.prepare(db, None).await, "prepare() can be repeated when admins exist");
    for address in [ada, &email("Ada")] {
        expect_ok(store.ensure_admin(db, address).await, "ensure_admin() of an existing admin succeeds");
    }
    check_verify(store, db, ada, SECOND, true, "an existing admin keeps the password").await;
}

async fn check_refused_passwords(store: &dyn AdminStore, db: &mut PgConnection, ada: &Email) {
    let empty = store.set_password(db, ada, &"".into()).await;
    let short = matches!(empty, Err(AdminError::Password(PasswordError::Short { .. })));
    assert!(short, "expected: set_password() refuses an empty password as Short; got: {empty:?}");
    check_verify(store, db, ada, SECOND, true, "a refused set_password() changes nothing").await;
    check_verify(store, db, ada, "", false, "verify() refuses an empty password").await;
    check_verify(store, db, ada, &"x".repeat(1 << 20), false, "verify() refuses a password of one megabyte").await;
}

async fn check_verify(
    store: &dyn AdminStore, db: &mut PgConnection, email: &Email, password: &str, accepted: bool, rule: &str,
) {
    let actual = store.verify(db, email, &SecretString::from(password)).await;
    let actual = expect_ok(actual, "verify() returns true or false, not an error");
    assert!(actual == accepted, "expected: {rule}; got: verify() returned {actual}");
}

fn email(local: &str) -> Email {
    expect_ok(format!("{local}@conformance.example").parse(), "the suite's own address is valid")
}
