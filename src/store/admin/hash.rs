//! Hashes of passwords: Argon2id in PHC form.
//!
//! [`PgAdminStore`](super::PgAdminStore) calls [`hash_password`] and [`verify_password`]. Both run on a blocking thread.
//!
//! Invariants:
//! - At most four hashes are computed at the same time in one process, in at most four blocks of memory that are used
//!   again for the next ones. An allocator gives freed blocks of this size back late or, from the arenas of many
//!   threads, never: without this a burst of posts would leave a gigabyte with the process.
//! - Verifying against no stored hash costs as much as verifying against one.
use super::PasswordError;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Argon2id with 19 MiB, 2 passes and 1 lane: one of the equivalent settings of the OWASP Password Storage Cheat Sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Largest parameters of a stored hash that is verified: 64 MiB is the second recommendation of RFC 9106, section 4. The
/// hash is in the tenant's own database, so a tenant with SQL could otherwise make this process compute anything.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 16;

/// A hash takes 19 MiB and about 30 ms. Four at a time bound the memory of a node to 76 MiB.
static MEMORY: HashMemory = HashMemory::new(4);

/// Permits to compute a hash, and the blocks that no computation uses at this moment.
struct HashMemory {
    permits: Semaphore,
    unused: Mutex<Vec<Vec<Block>>>,
}

impl HashMemory {
    const fn new(permits: usize) -> Self {
        Self { permits: Semaphore::const_new(permits), unused: Mutex::new(Vec::new()) }
    }
    fn take(&self) -> Vec<Block> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
    /// Keeps the blocks for the next hash, but no more of them than a hash of this crate needs.
    fn put_back(&self, mut blocks: Vec<Block>) {
        blocks.truncate(MEMORY_KIB as usize);
        blocks.shrink_to_fit();
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).push(blocks);
    }
}

/// A hash to verify against when the address is unknown or has no password, so that the call takes the usual time from
/// the first one on. Its password may be public: [`verify_password`] returns `false` whatever the comparison says.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$qaEOQR+Hq61wp4SWgNHnfg$XWk6JmNn+GA+RYKiJpPuCCOkMkLRdcIsFO3/O8WeXNU";

/// Hashes a password and returns the hash in PHC form. The computation continues if the future is dropped.
pub(super) async fn hash_password(password: &SecretString) -> Result<String, PasswordError> {
    let password = password.clone();
    run_blocking(&MEMORY, move |memory| {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(to_error)?;
        let salt: [u8; 16] = rand::random();
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: (&params).try_into().map_err(to_error)?,
            salt: Some(Salt::new(&salt).map_err(to_error)?),
            hash: Some(compute(password.expose_secret(), &salt, Algorithm::Argon2id, Version::V0x13, params, memory)?),
        };
        Ok(hash.to_string())
    })
    .await
}

/// Checks whether one of these texts has this hash. `None` never matches, and takes as long.
///
/// # Errors
/// `Stored` if the text is not an Argon2 hash in PHC form, or needs more memory or passes than are allowed.
pub(super) async fn verify_password(
    candidates: Vec<SecretString>, stored: Option<String>,
) -> Result<bool, PasswordError> {
    run_blocking(&MEMORY, move |memory| {
        let has_stored_hash = stored.is_some();
        let hash = PasswordHash::new(stored.as_deref().unwrap_or(DUMMY_HASH)).map_err(to_error)?;
        let mut is_match = false;
        for text in &candidates {
            is_match |= matches(text, &hash, memory)?;
        }
        Ok(is_match && has_stored_hash)
    })
    .await
}

fn matches(text: &SecretString, stored: &PasswordHash, memory: &mut Vec<Block>) -> Result<bool, PasswordError> {
    let params = Params::try_from(stored).map_err(to_error)?;
    let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else { return Err(PasswordError::Stored) };
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES {
        return Err(PasswordError::Stored);
    }
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).map_err(to_error)?;
    let version = stored.version.map_or(Ok(Version::default()), Version::try_from).map_err(to_error)?;
    // The comparison takes the same time for every output of this length.
    Ok(compute(text.expose_secret(), salt, algorithm, version, params, memory)? == *expected)
}

/// Computes a hash in this memory, which is enlarged if the parameters need more.
fn compute(
    text: &str, salt: &[u8], algorithm: Algorithm, version: Version, params: Params, memory: &mut Vec<Block>,
) -> Result<Output, PasswordError> {
    let (blocks, length) = (params.block_count(), params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN));
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut output = zeroize::Zeroizing::new(vec![0; length]);
    let argon2 = Argon2::new(algorithm, version, params);
    argon2.hash_password_into_with_memory(text.as_bytes(), salt, &mut output, &mut memory[..]).map_err(to_error)?;
    Output::new(&output).map_err(to_error)
}

fn to_error(_: impl std::error::Error) -> PasswordError {
    PasswordError::Stored
}

/// Runs the work on a blocking thread once a permit is free, with memory that no other work uses. The work owns the
/// permit, because it runs to its end even if this future is dropped: otherwise cancelled calls would leave more
/// computations running than there are permits.
async fn run_blocking<T: Send + 'static>(
    memory: &'static HashMemory, work: impl FnOnce(&mut Vec<Block>) -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    let permit = memory.permits.acquire().await.map_err(|_| PasswordError::Stored)?;
    let work = move || {
        let mut blocks = memory.take();
        let result = work(&mut blocks);
        memory.put_back(blocks);
        drop(permit);
        result
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PasswordError::Stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordHasher;

    #[tokio::test]
    async fn hash_matches_its_own_password_and_no_other() {
        let password = SecretString::from("correct horse battery");
        let stored = hash_password(&password).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify_password(vec![password], Some(stored.clone())).await.unwrap());
        assert!(!verify_password(vec![SecretString::from("wrong")], Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn verify_password_without_stored_hash_fails_after_one_hash() {
        // The password of the dummy hash itself: it must not verify either.
        let password = SecretString::from("nobody has this password");
        assert!(!verify_password(vec![password.clone()], None).await.unwrap());
        assert!(
            verify_password(vec![password.clone()], Some(DUMMY_HASH.into())).await.unwrap(),
            "DUMMY_HASH is a real hash of this password, so verifying it does the usual work"
        );
        let parameters = |phc: &str| phc.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parameters(DUMMY_HASH), parameters(&hash_password(&password).await.unwrap()));
    }

    #[tokio::test]
    async fn blocking_work_keeps_its_permit_when_its_future_is_dropped() {
        static ONE: HashMemory = HashMemory::new(1);
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let call = tokio::spawn(run_blocking(&ONE, move |_| Ok(finished.recv())));
        while ONE.permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.is_err_and(|e| e.is_cancelled()));
        assert_eq!(ONE.permits.available_permits(), 0, "the work still runs, so its permit must not be free");
        finish.send(()).unwrap();
        let _free = ONE.permits.acquire().await.unwrap();
    }

    /// A hash of another library, with other parameters: verified, and the larger memory is not kept.
    #[tokio::test]
    async fn verify_password_reads_foreign_parameters_and_refuses_excessive_ones() {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(32 * 1024, 3, 4, None).unwrap());
        let foreign = argon2.hash_password(b"correct horse battery").unwrap().to_string();
        let verify = |hash: String| verify_password(vec![SecretString::from("correct horse battery")], Some(hash));
        assert_eq!(verify(foreign.clone()).await, Ok(true));
        assert!(MEMORY.unused.lock().unwrap().iter().all(|kept| kept.capacity() <= MEMORY_KIB as usize));
        for excessive in ["m=4194304,t=1,p=1", "m=65537,t=1,p=1", "m=32768,t=4000000,p=1"] {
            let hash = foreign.replace("m=32768,t=3,p=4", excessive);
            assert_eq!(verify(hash).await, Err(PasswordError::Stored), "{excessive}");
        }
    }

    /// Resident memory of this process in bytes.
    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn burst_of_hashes_keeps_at_most_the_memory_of_four() {
        let before = resident();
        let hashes = (0..60).map(|n| {
            let password = SecretString::from(format!("correct horse battery {n}"));
            tokio::spawn(async move { hash_password(&password).await.unwrap() })
        });
        futures_util::future::join_all(hashes).await;
        let kept = resident().saturating_sub(before) >> 20;
        assert!(kept < 200, "a burst of 60 hashes left {kept} MiB with the process");
        assert!(MEMORY.unused.lock().unwrap().len() <= 4);
    }
}
