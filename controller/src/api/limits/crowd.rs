//! How many of something there may be at once, in all and of one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::errors::ApiError;

#[derive(Clone)]
pub(super) struct Crowd {
    shared: Arc<Shared>,
}

struct Shared {
    what: &'static str,
    limit: usize,
    limit_of_one: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    of: HashMap<Arc<str>, usize>,
}

/// Held by each of the crowd.
pub(in crate::api) struct Place {
    crowd: Crowd,
    user: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        counts.total -= 1;
        if let Some(count) = counts.of.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.of.remove(&self.user);
            }
        }
    }
}

impl Crowd {
    pub fn new(what: &'static str, limit: usize, limit_of_one: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                what,
                limit,
                limit_of_one,
                counts: Mutex::default(),
            }),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.shared
            .counts
            .lock()
            .expect("nothing panics while it counts")
    }

    pub fn enter(&self, user: &str) -> Result<Place, ApiError> {
        let mut counts = self.counts();
        let (user, of_user) = match counts.of.get_key_value(user) {
            Some((user, count)) => (user.clone(), *count),
            None => (Arc::from(user), 0),
        };
        if counts.total >= self.shared.limit || of_user >= self.shared.limit_of_one {
            return Err(ApiError::Overloaded(self.shared.what));
        }
        counts.total += 1;
        counts.of.insert(user.clone(), of_user + 1);
        Ok(Place {
            crowd: self.clone(),
            user,
        })
    }

    pub fn total(&self) -> usize {
        self.counts().total
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others() {
        let crowd = Crowd::new("watches", 3, 2);
        let mut places = vec![crowd.enter("a").unwrap(), crowd.enter("a").unwrap()];
        assert!(matches!(
            crowd.enter("a"),
            Err(ApiError::Overloaded("watches"))
        ));
        places.push(crowd.enter("b").unwrap());
        assert!(crowd.enter("c").is_err());
        places.remove(0);
        assert!(crowd.enter("c").is_ok());
        drop(places);
        assert_eq!(crowd.total(), 0);
        assert!(crowd.counts().of.is_empty());
    }
}
