//! Opening a sealed secret, compared with one AES-256-GCM decryption with the same associated data.
//!
//! `cargo bench --bench secret`. Needs no database.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use futures_util::FutureExt;
use secrecy::SecretString;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tenantry::TenantId;
use tenantry::secret::CredentialId;
use tenantry::testing::SealBench;
use tenantry::vault::LocalKeyring;

mod ratio;

const ROUNDS: u32 = 2000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let database = "t_0192f8a1b2c37d4e8f90a1b2c3d4e5f6".parse().unwrap();
    let login = "t_0192f8a1b2c37d4e8f90a1b2c3d4e5f6_v1".parse().unwrap();
    let id = CredentialId::login(TenantId::new(), &database, &login, 1);
    let secret = SecretString::from("a password of thirty-two letters");
    let sealed = runtime.block_on(SealBench::seal(LocalKeyring::random(), id, &secret)).unwrap();
    let key = [7u8; 32];
    let (nonce, context) = (Nonce::from([1u8; 12]), sealed.context());
    let payload = Payload { msg: b"a password of thirty-two letters", aad: &context };
    let text = Aes256Gcm::new(&key.into()).encrypt(&nonce, payload).unwrap();

    let reference = || {
        let payload = Payload { msg: &text, aad: &context };
        black_box(Aes256Gcm::new(black_box(&key.into())).decrypt(&nonce, payload).unwrap());
    };
    // A local keyring never waits, so one poll completes the future. That avoids measuring the runtime.
    let ours = || drop(black_box(sealed.open().now_or_never().unwrap().unwrap()));
    let mut ratio = ratio::Ratio::new("open a sealed secret", 2.5);
    for _ in 0..101 {
        ratio.add_pair(measure(ours), measure(reference));
    }
    ratio::report("secret", &[ratio]).unwrap();
}

/// Mean time of one call.
fn measure(work: impl Fn()) -> Duration {
    let clock = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    clock.elapsed() / ROUNDS
}
