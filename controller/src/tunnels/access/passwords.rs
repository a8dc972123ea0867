//! Who knows the password of one of the users.
//!
//! A password costs some ten milliseconds of a processor, as it should. That is spent beside the threads that serve,
//! by few at a time, and once for each password that is right. Namespaces take turns, and so do the tunnels of each:
//! whoever floods one with wrong passwords, or all of a namespace, holds up nobody else's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use hive_identity::random_bytes;
use ring::hmac;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::users::Users;

/// Passwords that are checked at the same time, of all tunnels: requests need the other processors.
const AT_ONCE: usize = 2;

/// Of one tunnel, with those that wait: behind them the last waits a second or two.
const WAITING: usize = 16;

/// Whoever waits for longer, since many namespaces are flooded or their passwords are dear, is told to come again: people
/// have given up by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Right passwords that are remembered; 32 bytes each.
const MAX_KNOWN: usize = 4096;

/// As many passwords are being checked as may be.
#[derive(Debug, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

/// What one tunnel has of the checks.
pub struct Share {
    /// For those that are checked or wait.
    places: Arc<Semaphore>,
    /// For one of them, which alone stands in line with those of the namespace's other tunnels: each has its turn after
    /// one of every other, however many wait there.
    turn: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(WAITING)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Checks passwords. A clone is the same.
#[derive(Clone)]
pub struct Passwords {
    /// For those that are checked. Whoever waits longest is next.
    places: Arc<Semaphore>,
    /// Of each namespace one stands in line for them, however many tunnels it has. Nothing is kept of those in which
    /// nobody waits.
    turns: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
    /// Of this process alone: what is remembered is of no use elsewhere.
    key: Arc<hmac::Key>,
    /// Keyed hashes of the passwords that were right, each together with the hash for which it was.
    known: Arc<Mutex<HashSet<[u8; 32]>>>,
}

impl Default for Passwords {
    fn default() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random_bytes::<32>());
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            turns: Arc::default(),
            key: Arc::new(key),
            known: Arc::default(),
        }
    }
}

impl Passwords {
    /// Whether it is that user's. `share` is the tunnel's, which is in `namespace`.
    pub async fn check(
        &self,
        users: &Users,
        name: &str,
        password: &str,
        namespace: &str,
        share: &Share,
    ) -> Result<bool, Busy> {
        let own = users.hash_of(name);
        let is_user = own.is_some();
        // Who is not listed waits as long as others, for the password of one who is.
        let hash = own.or_else(|| users.any_hash()).unwrap_or_default();
        let mark = self.mark(hash, password);
        if is_user && self.known().contains(&mark) {
            return Ok(true);
        }
        let waiting = share.places.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| Busy)?;
        let line = async {
            let turn = share.turn.clone().acquire_owned().await.ok()?;
            let of_all = self.turn_of(namespace).acquire_owned().await.ok()?;
            let place = self.places.clone().acquire_owned().await.ok()?;
            Some((turn, of_all, place))
        };
        let place = timeout(PATIENCE, line).await.ok().flatten().ok_or(Busy)?;
        let (password, hash) = (password.to_owned(), hash.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            let is_right = bcrypt::verify(password, &hash).unwrap_or(false);
            // It goes on when whoever waits for it leaves.
            drop((waiting, place));
            is_right
        });
        let is_right = checked.await.unwrap_or(false) && is_user;
        if is_right {
            let mut known = self.known();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(mark);
        }
        Ok(is_right)
    }

    /// That of all tunnels of a namespace. Whoever stands in line for it, or has it, keeps it there.
    fn turn_of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().expect("no holder of the lock panics");
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Semaphore::new(1));
        turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// A hash has 60 bytes, so that no password can look like another with another hash.
    fn mark(&self, hash: &str, password: &str) -> [u8; 32] {
        let mut mark = hmac::Context::with_key(&self.key);
        mark.update(hash.as_bytes());
        mark.update(password.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(mark.sign().as_ref());
        bytes
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.known.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::task::Poll;

    use futures::poll;

    use super::*;

    /// Longer than anything here takes on a busy machine; a test that reaches it has failed.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn hash(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_right_for_its_user_and_as_long_as_it_is_listed() {
        let users = Users::read(&format!("ann:{}\nbob:{}", hash("a"), hash("b"))).unwrap();
        let (passwords, share) = (Passwords::default(), Share::default());
        for (name, password, expected) in [
            ("ann", "a", true),
            ("ann", "a", true),
            ("ann", "b", false),
            ("ann", "", false),
            ("bob", "a", false),
            ("Ann", "a", false),
            ("", "a", false),
        ] {
            let found = passwords
                .check(&users, name, password, "default", &share)
                .await;
            assert_eq!(found.unwrap(), expected, "{name} {password}");
        }
        assert_eq!(passwords.known().len(), 1);
        let changed = Users::read(&format!("ann:{}", hash("other"))).unwrap();
        let found = passwords
            .check(&changed, "ann", "a", "default", &share)
            .await;
        assert!(!found.unwrap());
    }

    /// What libxcrypt hashed, as `htpasswd` does.
    #[tokio::test]
    async fn hashes_of_other_programs_are_known() {
        let line = "ann:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";
        let users = Users::read(line).unwrap();
        let (passwords, share) = (Passwords::default(), Share::default());
        for (password, expected) in [("open sesame", true), ("sesame", false)] {
            let found = passwords
                .check(&users, "ann", password, "default", &share)
                .await;
            assert_eq!(found.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn more_than_can_wait_are_sent_away() {
        let users = Users::read(&format!("ann:{}", hash("a"))).unwrap();
        let (passwords, share) = (Passwords::default(), Share::default());
        let take_all = || {
            let places = share.places.clone();
            places.try_acquire_many_owned(WAITING as u32).unwrap()
        };
        let taken = take_all();
        assert!(
            passwords
                .check(&users, "ann", "a", "default", &share)
                .await
                .is_err()
        );
        drop(taken);
        assert!(
            passwords
                .check(&users, "ann", "a", "default", &share)
                .await
                .unwrap()
        );
        // What is known costs nothing.
        let _taken = take_all();
        assert!(
            passwords
                .check(&users, "ann", "a", "default", &share)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn a_tunnel_that_is_flooded_holds_up_no_other_one() {
        let users = Users::read(&format!("ann:{}", hash("a"))).unwrap();
        let (passwords, flooded, quiet) =
            (Passwords::default(), Share::default(), Share::default());
        let one = || passwords.places.clone().try_acquire_owned().unwrap();
        let (first, _second) = (one(), one());
        let wrong = || Box::pin(passwords.check(&users, "ann", "b", "default", &flooded));
        let mut flood: Vec<_> = (0..WAITING).map(|_| wrong()).collect();
        for check in &mut flood {
            assert!(poll!(check).is_pending());
        }
        assert!(matches!(poll!(wrong()), Poll::Ready(Err(Busy))));
        let mut right = Box::pin(passwords.check(&users, "ann", "a", "default", &quiet));
        assert!(poll!(&mut right).is_pending());
        // There is one place from now on: it goes to the first of the flood, and then to the other tunnel. Nobody takes
        // it for the others of the flood, which would stand in line before it.
        drop(first);
        let found = async {
            assert!(!(&mut flood[0]).await.unwrap());
            right.await.unwrap()
        };
        assert!(timeout(DEADLINE, found).await.unwrap());
    }

    #[tokio::test]
    async fn a_namespace_whose_tunnels_are_all_flooded_holds_up_no_other_one() {
        let users = Users::read(&format!("ann:{}", hash("a"))).unwrap();
        let (passwords, quiet) = (Passwords::default(), Share::default());
        let flooded: Vec<Share> = (0..20).map(|_| Share::default()).collect();
        let one = || passwords.places.clone().try_acquire_owned().unwrap();
        let (first, _second) = (one(), one());
        let wrong = |share| Box::pin(passwords.check(&users, "ann", "b", "flooded", share));
        let mut flood: Vec<_> = flooded.iter().map(wrong).collect();
        for check in &mut flood {
            assert!(poll!(check).is_pending());
        }
        let mut right = Box::pin(passwords.check(&users, "ann", "a", "quiet", &quiet));
        assert!(poll!(&mut right).is_pending());
        assert_eq!(passwords.turns.lock().unwrap().len(), 2);
        // The one place goes to one of the flood, and then to the other namespace.
        drop(first);
        let found = async {
            assert!(!(&mut flood[0]).await.unwrap());
            right.await.unwrap()
        };
        assert!(timeout(DEADLINE, found).await.unwrap());
        drop(flood);
        // Of those that left nothing is kept.
        passwords.turn_of("next");
        let turns = passwords.turns.lock().unwrap();
        assert!(turns.keys().eq(["next"]), "{turns:?}");
    }

    #[tokio::test]
    async fn right_passwords_take_bounded_room() {
        let users = Users::read(&format!("ann:{}", hash("a"))).unwrap();
        let (passwords, share) = (Passwords::default(), Share::default());
        for number in 0..MAX_KNOWN {
            let mark = passwords.mark("", &number.to_string());
            passwords.known().insert(mark);
        }
        assert!(
            passwords
                .check(&users, "ann", "a", "default", &share)
                .await
                .unwrap()
        );
        let known = passwords.known().len();
        assert!((1..=MAX_KNOWN).contains(&known), "{known}");
    }
}
