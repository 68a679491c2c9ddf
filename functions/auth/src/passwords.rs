//! Hashing passwords: Argon2id, on threads of its own, a few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::{Error as PhcError, PasswordHash};
use argon2::password_hash::{Error as HashError, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tidegate_http::{Problem, ProblemCode};
use tokio::sync::Semaphore;

use crate::routes::Password;

/// Memory in KiB, passes and lanes: OWASP's first choice for Argon2id
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Who waits longer is told to come again.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Verified against where there is no account, so that it takes as long; nobody knows a password for it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEhIQ$bm9ib2R5IGtub3dzIGEgcGFzc3dvcmQgZm9yIHRoaXM";

/// Hashes and verifies passwords. Each takes 19 MiB and tens of milliseconds of a core, so clones share a bound on how
/// many are under way.
#[derive(Debug, Clone)]
pub struct Passwords {
    permits: Arc<Semaphore>,
    done: Arc<AtomicU64>,
}

impl Passwords {
    /// At most so many at a time: the number of cores is right.
    pub fn new(at_a_time: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_a_time.max(1))), done: Arc::default() }
    }

    /// How many passwords were hashed or verified: what takes the time of a sign-in, for tests that it tells nothing.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// A password's hash under a new salt, as a PHC string.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Problem> {
        let hashed = self.work(move || -> Result<String, HashingError> {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).map_err(HashingError::Randomness)?;
            let hash: PasswordHash = argon2()?.hash_password_with_salt(password.expose().as_bytes(), &salt)?;
            Ok(hash.to_string())
        });
        hashed.await?.map_err(|error| Problem::internal(&error))
    }

    /// Whether a password is the one of this hash. Without a hash it is none, after the same work.
    pub(crate) async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, Problem> {
        let verified = self.work(move || -> Result<bool, HashingError> {
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY))?;
            match argon2()?.verify_password(password.expose().as_bytes(), &parsed) {
                Ok(()) => Ok(hash.is_some()),
                Err(HashError::PasswordInvalid) => Ok(false),
                Err(error) => Err(error.into()),
            }
        });
        verified.await?.map_err(|error| Problem::internal(&error))
    }

    /// Runs work off the async threads, holding a permit until it ends even if nobody waits for it any more.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let Ok(Ok(permit)) = tokio::time::timeout(MAX_WAIT, self.permits.clone().acquire_owned()).await else {
            return Err(busy());
        };
        self.done.fetch_add(1, Ordering::Relaxed);
        let worked = tokio::task::spawn_blocking(move || {
            let worked = work();
            drop(permit);
            worked
        });
        worked.await.map_err(|error| Problem::internal(&error))
    }
}

#[derive(Debug, thiserror::Error)]
enum HashingError {
    #[error("can't hash a password")]
    Hash(#[from] HashError),
    #[error("the stored password hash is unreadable")]
    Unreadable(#[from] PhcError),
    #[error("can't set up Argon2")]
    Parameters(#[from] argon2::Error),
    #[error("no randomness for a salt")]
    Randomness(#[source] getrandom::Error),
}

fn argon2() -> Result<Argon2<'static>, argon2::Error> {
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(MEMORY_KIB, PASSES, LANES, None)?))
}

fn busy() -> Problem {
    Problem::new(ProblemCode::Unavailable, "Too many people sign in at the moment. Try again in a few seconds.")
        .retry_after(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_with_its_own_salt_and_fits_its_password_only() {
        let passwords = Passwords::new(2);
        let hash = passwords.hash(Password::new("correct horse battery")).await.unwrap();
        let again = passwords.hash(Password::new("correct horse battery")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, again);
        let verify = async |text: &str, hash: Option<&str>| {
            passwords.verify(Password::new(text), hash.map(str::to_owned)).await.unwrap()
        };
        assert!(verify("correct horse battery", Some(&hash)).await);
        assert!(verify("correct horse battery", Some(&again)).await);
        assert!(!verify("correct horse batterx", Some(&hash)).await);
        assert!(!verify("", Some(&hash)).await);
        assert!(!verify("correct horse battery", None).await);
    }

    #[test]
    fn nobody_costs_what_everybody_costs() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let somebody: PasswordHash = argon2().unwrap().hash_password_with_salt(b"x", b"0123456789abcdef").unwrap();
        assert_eq!(
            (nobody.algorithm, nobody.version, &nobody.params),
            (somebody.algorithm, somebody.version, &somebody.params)
        );
        let lengths = |hash: &PasswordHash| (hash.salt.as_ref().unwrap().len(), hash.hash.as_ref().unwrap().len());
        assert_eq!(lengths(&nobody), lengths(&somebody));
    }

    #[tokio::test]
    async fn an_unreadable_hash_is_a_fault_of_ours() {
        let problem = Passwords::new(1).verify(Password::new("x"), Some("plain".to_owned())).await.unwrap_err();
        assert_eq!(problem.code(), ProblemCode::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_to_come_again() {
        let passwords = Passwords::new(1);
        let held = passwords.permits.clone().acquire_owned().await.unwrap();
        let problem = passwords.hash(Password::new("correct horse battery")).await.unwrap_err();
        assert_eq!(problem.code(), ProblemCode::Unavailable);
        drop(held);
        assert!(passwords.hash(Password::new("correct horse battery")).await.is_ok());
    }
}
