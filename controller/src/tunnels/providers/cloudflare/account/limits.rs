//! Who was told to wait, and until when: whatever is asked with the same token counts together.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use super::super::super::Token;
use super::super::api::ApiError;

/// By account and token.
#[derive(Default)]
pub struct Limits(Mutex<BTreeMap<(String, Token), Instant>>);

impl Limits {
    /// Whether the API may be asked.
    pub fn check(&self, account: &str, token: &Token) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut all = self.lock();
        all.retain(|_, until| *until > now);
        match all.get(&(account.to_owned(), token.clone())) {
            Some(until) => Err(ApiError::Limited(*until - now)),
            None => Ok(()),
        }
    }

    /// Remembers what an answer says of that.
    pub fn note(&self, account: &str, token: &Token, error: &ApiError) {
        if let Some(wait) = error.wait() {
            let who = (account.to_owned(), token.clone());
            self.lock().insert(who, Instant::now() + wait);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Token), Instant>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_told_to_wait_asks_again_after_that() {
        let limits = Limits::default();
        let (one, other) = (Token::new("one"), Token::new("other"));
        let wait = |account: &str, token: &Token| {
            let found = limits.check(account, token);
            found.err().map(|error| error.wait().unwrap().as_secs())
        };
        limits.note("a", &one, &ApiError::TimedOut);
        assert_eq!(wait("a", &one), None);
        limits.note("a", &one, &ApiError::Limited(Duration::from_secs(90)));
        assert_eq!(wait("a", &one), Some(90));
        assert_eq!(wait("a", &other), None);
        assert_eq!(wait("b", &one), None);
        tokio::time::advance(Duration::from_secs(80)).await;
        assert_eq!(wait("a", &one), Some(10));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(wait("a", &one), None);
        assert!(limits.lock().is_empty());
    }
}
