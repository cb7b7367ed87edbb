use super::assertions::expect_ok;
use crate::names::Email;
use crate::store::admin::{AdminError, AdminStore, PasswordError};
use secrecy::SecretString;
use sqlx::PgConnection;

/// What an [`AdminStore`] does, in a database of a test's own; `db` may create tables there. Twelve characters and more
/// are a password that it takes, an empty one is not.
///
/// # Panics
/// When a promise of [`AdminStore`] is broken.
pub async fn admin_store(store: &dyn AdminStore, db: &mut PgConnection) {
    let (ada, bob) = (email("ada"), email("bob"));
    for _ in 0..2 {
        expect_ok(store.prepare(db, None).await, "prepare makes a place for users, and may be repeated");
    }
    nobody_gets_in(store, db, &ada).await;
    for _ in 0..2 {
        expect_ok(store.ensure_admin(db, &ada).await, "ensure_admin makes an admin, and may be repeated");
    }
    verified(store, db, &ada, "", false, "a new admin has no password").await;
    verified(store, db, &ada, FIRST, false, "a new admin has no password").await;
    passwords(store, db, &ada).await;
    what_is_there_stays(store, db, &ada).await;
    unicode_forms(store, db, &bob).await;
    let eve = email("eve");
    expect_ok(store.ensure_admin(db, &eve).await, "another admin can be made");
    verified(store, db, &eve, SECOND, false, "nobody gets in with another's password").await;
    refusals(store, db, &ada).await;
}

const FIRST: &str = "correct horse battery staple";
const SECOND: &str = "p@ss/w?rd:1#% 'quoted\" \\ ä\u{1F980}";

async fn nobody_gets_in(store: &dyn AdminStore, db: &mut PgConnection, email: &Email) {
    verified(store, db, email, FIRST, false, "nobody is there yet").await;
    let unknown = store.set_password(db, email, &FIRST.into()).await;
    assert!(matches!(unknown, Err(AdminError::Unknown(_))), "expected: an unknown admin is Unknown; got: {unknown:?}");
}

async fn passwords(store: &dyn AdminStore, db: &mut PgConnection, ada: &Email) {
    for (now, before) in [(FIRST, SECOND), (SECOND, FIRST)] {
        for _ in 0..2 {
            expect_ok(store.set_password(db, ada, &now.into()).await, "a password can be set, and set again");
        }
        verified(store, db, ada, now, true, "the password that was set opens").await;
        verified(store, db, ada, before, false, "another password does not open").await;
        verified(store, db, ada, &now.to_uppercase(), false, "another password does not open").await;
        verified(store, db, &email("ADA"), now, true, "the address's case does not matter").await;
    }
}

/// The same text in NFC and in NFD.
const COMPOSED: &str = "caf\u{e9} \u{d55c}\u{ae00} batterie";
const DECOMPOSED: &str = "cafe\u{301} \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} batterie";

async fn unicode_forms(store: &dyn AdminStore, db: &mut PgConnection, email: &Email) {
    expect_ok(store.ensure_admin(db, email).await, "an admin can be made");
    for (set, other) in [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)] {
        expect_ok(store.set_password(db, email, &set.into()).await, "a password of any script can be set");
        verified(store, db, email, set, true, "the password that was set opens").await;
        verified(store, db, email, other, true, "NFD and NFC of one text are one password").await;
    }
    expect_ok(store.set_password(db, email, &" two words ".repeat(2).as_str().into()).await, "spaces are characters");
    verified(store, db, email, " two words  two words", false, "spaces at the ends count").await;
}

async fn what_is_there_stays(store: &dyn AdminStore, db: &mut PgConnection, ada: &Email) {
    expect_ok(store.prepare(db, None).await, "prepare may be repeated");
    for address in [ada, &email("Ada")] {
        expect_ok(store.ensure_admin(db, address).await, "ensure_admin may be repeated");
    }
    verified(store, db, ada, SECOND, true, "an admin who is there keeps the password").await;
}

async fn refusals(store: &dyn AdminStore, db: &mut PgConnection, ada: &Email) {
    let empty = store.set_password(db, ada, &"".into()).await;
    let short = matches!(empty, Err(AdminError::Password(PasswordError::Short { .. })));
    assert!(short, "expected: an empty password is Short; got: {empty:?}");
    verified(store, db, ada, SECOND, true, "a refused password changes nothing").await;
    verified(store, db, ada, "", false, "an empty password opens nothing").await;
    verified(store, db, ada, &"x".repeat(1 << 20), false, "a password of a megabyte opens nothing").await;
}

async fn verified(
    store: &dyn AdminStore, db: &mut PgConnection, email: &Email, password: &str, opens: bool, promise: &str,
) {
    let seen = expect_ok(store.verify(db, email, &SecretString::from(password)).await, "verify says yes or no");
    assert!(seen == opens, "expected: {promise}; got: verify says {seen}");
}

fn email(local: &str) -> Email {
    expect_ok(format!("{local}@conformance.example").parse(), "it is an address")
}
