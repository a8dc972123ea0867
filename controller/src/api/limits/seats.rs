//! Waiting for a seat: the tasks and the time around [`Levels`].

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::oneshot;

use super::super::errors::ApiError;
use super::fairness::{Arrival, Levels, Share, Standing};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::access::user::{MASTERS, UserInfo, service_account_of};

/// How long a request may wait for its turn: less than clients wait for an answer, so that they hear
/// when to come back instead of giving up and coming back at once.
const PATIENCE: Duration = Duration::from_secs(10);

const SYSTEM: usize = 0;
const PEOPLE: usize = 1;
const WORKLOADS: usize = 2;
const CATCH_ALL: usize = 3;

/// Together as many requests as are answered at once. Each may hold a body of 3 MiB and its parsed
/// form: some 10 MB at worst, and then 64 are what a controller with 1 GB survives.
const SHARES: [Share; 4] = [
    // Who repairs a swarm gets through when everybody else is at it.
    Share {
        name: "system",
        seats: 16,
        reserved: 8,
    },
    Share {
        name: "people",
        seats: 24,
        reserved: 8,
    },
    Share {
        name: "workloads",
        seats: 16,
        reserved: 4,
    },
    Share {
        name: "catch-all",
        seats: 8,
        reserved: 2,
    },
];

/// What answers call the levels, in the same order: any ids, as long as they stay.
const UIDS: [&str; SHARES.len()] = [
    "6a1bb7c2-0d4f-4c53-9d0e-3f2b8f6f7a01",
    "c3f0a9de-5b61-4e0b-8a47-91d2c7b65e02",
    "0e82d6f4-7c39-4d88-b1f6-5a40e3c91d03",
    "94d5c01b-e2a8-4f17-a6c3-78be19f05c04",
];

/// Which rule put a request into its level, and which level that is: here, one rule for each.
const NAMES_OF_UIDS: [HeaderName; 2] = [
    HeaderName::from_static("x-kubernetes-pf-flowschema-uid"),
    HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid"),
];

/// Where the requests of a user belong.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Level(usize);

impl Level {
    pub fn of(user: &UserInfo) -> Self {
        Self(level_of(user))
    }

    /// Names and ids of all.
    pub fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
        SHARES.iter().map(|share| share.name).zip(UIDS)
    }

    /// Lets the client know.
    pub fn tell(self, headers: &mut HeaderMap) {
        for name in NAMES_OF_UIDS {
            headers.insert(name, HeaderValue::from_static(UIDS[self.0]));
        }
    }
}

/// The level of a user.
fn level_of(user: &UserInfo) -> usize {
    match service_account_of(&user.name) {
        _ if user.is_in(MASTERS) => SYSTEM,
        Some((SYSTEM_NAMESPACE, _)) => SYSTEM,
        Some(_) => WORKLOADS,
        None if user.name == UserInfo::anonymous().name => CATCH_ALL,
        None => PEOPLE,
    }
}

type Ticket = oneshot::Sender<Seat>;

/// The seats of all levels. Clones are handles to one.
#[derive(Clone)]
pub(super) struct Seats {
    levels: Arc<Mutex<Levels<Ticket>>>,
    patience: Duration,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            levels: Arc::new(Mutex::new(Levels::new(&SHARES))),
            patience: PATIENCE,
        }
    }
}

/// Held while a request is answered.
pub(in crate::api) struct Seat {
    seats: Seats,
    level: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let next = self
            .seats
            .levels()
            .leave(self.level, oneshot::Sender::is_closed);
        for (level, ticket) in next {
            let seats = self.seats.clone();
            // Whose owner has gone comes back, and is dropped: the one behind him is next.
            drop(ticket.send(Seat { seats, level }));
        }
    }
}

impl Seats {
    fn levels(&self) -> MutexGuard<'_, Levels<Ticket>> {
        self.levels
            .lock()
            .expect("nothing panics while it holds the levels")
    }

    /// A seat, at once or when it is this user's turn.
    pub async fn take(&self, user: &UserInfo) -> Result<Seat, ApiError> {
        let level = level_of(user);
        let (ticket, turn) = oneshot::channel();
        let arrival =
            self.levels()
                .arrive(level, &user.name, || ticket, oneshot::Sender::is_closed);
        match arrival {
            Arrival::Seated => Ok(Seat {
                seats: self.clone(),
                level,
            }),
            Arrival::Refused => Err(ApiError::Overloaded("requests of one user")),
            Arrival::Waits => match tokio::time::timeout(self.patience, turn).await {
                Ok(Ok(seat)) => Ok(seat),
                Ok(Err(_)) | Err(_) => Err(ApiError::Overloaded("requests")),
            },
        }
    }

    pub fn standing(&self) -> Vec<Standing> {
        self.levels().standing().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::user::{service_account_groups, service_account_name};

    fn user(name: &str, groups: Vec<String>) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups,
            ..UserInfo::default()
        }
    }

    #[test]
    fn users_have_their_level() {
        let account = |namespace: &str| {
            let name = service_account_name(namespace, "robot");
            user(&name, service_account_groups(namespace))
        };
        for (user, level) in [
            (user("root", vec![MASTERS.into()]), SYSTEM),
            (account(SYSTEM_NAMESPACE), SYSTEM),
            (account("default"), WORKLOADS),
            (user("ann", vec![]), PEOPLE),
            (UserInfo::anonymous(), CATCH_ALL),
        ] {
            assert_eq!(level_of(&user), level, "{}", user.name);
        }
    }

    #[tokio::test]
    async fn who_waits_is_seated_in_turn_or_told_to_come_back() {
        let seats = Seats::default();
        let (noisy, quiet) = (user("noisy", vec![]), user("quiet", vec![]));
        let mut held = Vec::new();
        // All that nobody else has reserved.
        while held.len() < 50 {
            held.push(seats.take(&noisy).await.unwrap());
        }
        let waiting = tokio::spawn({
            let (seats, quiet) = (seats.clone(), quiet.clone());
            async move { seats.take(&quiet).await }
        });
        while seats.standing()[PEOPLE].waiting == 0 {
            tokio::task::yield_now().await;
        }
        held.pop();
        assert!(waiting.await.unwrap().is_ok());
        // The quiet user's is free again at once; the noisy one's clients then wait in vain.
        held.push(seats.take(&noisy).await.unwrap());
        let hasty = Seats {
            patience: Duration::from_millis(20),
            ..seats.clone()
        };
        let refused = hasty.take(&noisy).await;
        assert!(matches!(refused, Err(ApiError::Overloaded(_))));
        drop(held);
        for standing in seats.standing() {
            assert_eq!((standing.busy, standing.waiting), (0, 0), "{standing:?}");
        }
        assert!(seats.take(&quiet).await.is_ok());
    }
}
