//! Who is answered next: priority levels with seats of their own, and turns between the users of one.
//!
//! Kubernetes' priority and fairness, small. A level is answered within its seats, and with those that
//! other levels leave idle, but for what is reserved for them. Who finds no seat waits in the queue
//! of its user; the users of a level take turns, so that one with a hundred connections waits for
//! its own. Pure: no clock, no tasks. What waits is a ticket, whatever that is.

use std::collections::VecDeque;

/// Requests of one user that may wait: as many as well-behaved clients with 256 connections have.
const WAITING_OF_ONE: usize = 256;

/// Requests that may wait at a level before long queues are full. A request that waits is a task and
/// its head, some 20 KB with its stream; its body is read later.
const WAITING: usize = 1024;

/// What a user may always have waiting, however much others have.
const WAITING_AT_LEAST: usize = 16;

/// Users who may wait at a level.
const FLOWS: usize = 256;

/// How many a level answers at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub name: &'static str,
    pub seats: usize,
    /// Of these seats, what is kept free for this level when others need more.
    pub reserved: usize,
}

#[derive(Debug)]
struct Flow<T> {
    user: String,
    waiting: VecDeque<T>,
}

#[derive(Debug)]
struct Level<T> {
    share: Share,
    busy: usize,
    /// Who waits; the first has the next turn.
    flows: VecDeque<Flow<T>>,
    waiting: usize,
    refused: u64,
}

/// What becomes of a request that comes in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Seated,
    Waits,
    Refused,
}

/// What `/metrics` tells of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub name: &'static str,
    pub busy: usize,
    pub waiting: usize,
    pub refused: u64,
}

#[derive(Debug)]
pub(super) struct Levels<T> {
    levels: Vec<Level<T>>,
}

impl<T> Levels<T> {
    pub fn new(shares: &[Share]) -> Self {
        let level = |share: &Share| Level {
            share: *share,
            busy: 0,
            flows: VecDeque::new(),
            waiting: 0,
            refused: 0,
        };
        Self {
            levels: shares.iter().map(level).collect(),
        }
    }

    /// A request of `user` at a level. `ticket` is made if it has to wait; `is_stale` tells which
    /// tickets nobody waits with any more.
    pub fn arrive(
        &mut self,
        level: usize,
        user: &str,
        ticket: impl FnOnce() -> T,
        is_stale: impl Fn(&T) -> bool,
    ) -> Arrival {
        if self.levels[level].waiting == 0 && self.has_seat(level) {
            self.levels[level].busy += 1;
            return Arrival::Seated;
        }
        let level = &mut self.levels[level];
        if !level.has_place(user) {
            level.forget(is_stale);
        }
        if !level.has_place(user) {
            level.refused += 1;
            return Arrival::Refused;
        }
        level.waiting += 1;
        match level.flows.iter_mut().find(|flow| flow.user == user) {
            Some(flow) => flow.waiting.push_back(ticket()),
            None => level.flows.push_back(Flow {
                user: user.to_owned(),
                waiting: VecDeque::from([ticket()]),
            }),
        }
        Arrival::Waits
    }

    /// A request at a level is answered: the tickets, with their level, of those who are next.
    pub fn leave(&mut self, level: usize, is_stale: impl Fn(&T) -> bool) -> Vec<(usize, T)> {
        self.levels[level].busy -= 1;
        let mut seated = Vec::new();
        for index in 0..self.levels.len() {
            while self.levels[index].waiting > 0 && self.has_seat(index) {
                let level = &mut self.levels[index];
                let Some(mut flow) = level.flows.pop_front() else {
                    break;
                };
                while let Some(ticket) = flow.waiting.pop_front() {
                    level.waiting -= 1;
                    if !is_stale(&ticket) {
                        level.busy += 1;
                        seated.push((index, ticket));
                        break;
                    }
                }
                if !flow.waiting.is_empty() {
                    level.flows.push_back(flow);
                }
            }
        }
        seated
    }

    /// Within its own seats, or where enough are left for the others.
    fn has_seat(&self, level: usize) -> bool {
        let own = &self.levels[level];
        let total: usize = self.levels.iter().map(|level| level.share.seats).sum();
        let taken: usize = self.levels.iter().map(|level| level.busy).sum();
        let kept: usize = self
            .levels
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != level)
            .map(|(_, other)| other.share.reserved.saturating_sub(other.busy))
            .sum();
        // What is reserved was left free by those who borrowed: it is there.
        (own.busy < own.share.reserved && taken < total) || taken + kept < total
    }

    pub fn standing(&self) -> impl Iterator<Item = Standing> + '_ {
        self.levels.iter().map(|level| Standing {
            name: level.share.name,
            busy: level.busy,
            waiting: level.waiting,
            refused: level.refused,
        })
    }
}

impl<T> Level<T> {
    fn has_place(&self, user: &str) -> bool {
        let flow = self.flows.iter().find(|flow| flow.user == user);
        let of_user = flow.map_or(0, |flow| flow.waiting.len());
        let is_known = flow.is_some() || self.flows.len() < FLOWS;
        is_known
            && (of_user < WAITING_AT_LEAST || (of_user < WAITING_OF_ONE && self.waiting < WAITING))
    }

    fn forget(&mut self, is_stale: impl Fn(&T) -> bool) {
        for flow in &mut self.flows {
            flow.waiting.retain(|ticket| !is_stale(ticket));
        }
        self.flows.retain(|flow| !flow.waiting.is_empty());
        self.waiting = self.flows.iter().map(|flow| flow.waiting.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn levels() -> Levels<&'static str> {
        Levels::new(&[
            Share {
                name: "high",
                seats: 2,
                reserved: 1,
            },
            Share {
                name: "low",
                seats: 2,
                reserved: 1,
            },
        ])
    }

    fn arrive(levels: &mut Levels<&'static str>, level: usize, user: &'static str) -> Arrival {
        levels.arrive(level, user, || user, |_| false)
    }

    #[test]
    fn idle_seats_are_lent_but_not_the_reserved() {
        let mut levels = levels();
        let outcomes: Vec<Arrival> = (0..4).map(|_| arrive(&mut levels, 1, "noisy")).collect();
        assert_eq!(
            outcomes,
            [
                Arrival::Seated,
                Arrival::Seated,
                Arrival::Seated,
                Arrival::Waits
            ]
        );
        assert_eq!(arrive(&mut levels, 0, "quiet"), Arrival::Seated);
        assert_eq!(arrive(&mut levels, 0, "quiet"), Arrival::Waits);
        // Whoever leaves, the higher level is asked first.
        assert_eq!(levels.leave(1, |_| false), [(0, "quiet")]);
        assert_eq!(levels.leave(0, |_| false), [(1, "noisy")]);
    }

    #[test]
    fn users_take_turns() {
        let mut levels = levels();
        for _ in 0..6 {
            arrive(&mut levels, 1, "noisy");
        }
        arrive(&mut levels, 1, "quiet");
        arrive(&mut levels, 1, "quiet");
        let mut order = Vec::new();
        for _ in 0..5 {
            order.extend(levels.leave(1, |_| false).into_iter().map(|(_, user)| user));
        }
        assert_eq!(order, ["noisy", "quiet", "noisy", "quiet", "noisy"]);
    }

    #[test]
    fn a_full_queue_refuses_its_user_and_no_other() {
        let mut levels = levels();
        let seated = 3;
        for _ in 0..seated + WAITING_OF_ONE {
            assert_ne!(arrive(&mut levels, 1, "noisy"), Arrival::Refused);
        }
        assert_eq!(arrive(&mut levels, 1, "noisy"), Arrival::Refused);
        assert_eq!(arrive(&mut levels, 1, "quiet"), Arrival::Waits);
        let low = levels.standing().nth(1).unwrap();
        assert_eq!(
            (low.busy, low.waiting, low.refused),
            (3, WAITING_OF_ONE + 1, 1)
        );
        // Those who gave up make room.
        let again = levels.arrive(1, "noisy", || "noisy", |user| *user == "noisy");
        assert_eq!(again, Arrival::Waits);
    }

    proptest! {
        /// Never more than the seats; nobody waits while a seat is free for him; all are seated in the end.
        #[test]
        fn seats_are_neither_exceeded_nor_wasted(steps in proptest::collection::vec((0usize..2, 0usize..3, any::<bool>()), 0..200)) {
            const USERS: [&str; 3] = ["a", "b", "c"];
            let mut levels = levels();
            let mut seated: Vec<usize> = Vec::new();
            let mut waiting = 0;
            for (level, user, leaves) in steps {
                if leaves && !seated.is_empty() {
                    let level = seated.swap_remove(user % seated.len());
                    let next = levels.leave(level, |_| false);
                    waiting -= next.len();
                    seated.extend(next.into_iter().map(|(level, _)| level));
                } else {
                    match arrive(&mut levels, level, USERS[user]) {
                        Arrival::Seated => seated.push(level),
                        Arrival::Waits => waiting += 1,
                        Arrival::Refused => prop_assert!(false, "so few are never refused"),
                    }
                }
                prop_assert!(seated.len() <= 4);
                prop_assert_eq!(levels.standing().map(|l| l.busy).sum::<usize>(), seated.len());
                prop_assert_eq!(levels.standing().map(|l| l.waiting).sum::<usize>(), waiting);
                for index in 0..2 {
                    prop_assert!(levels.levels[index].waiting == 0 || !levels.has_seat(index));
                }
            }
            while let Some(level) = seated.pop() {
                let next = levels.leave(level, |_| false);
                waiting -= next.len();
                seated.extend(next.into_iter().map(|(level, _)| level));
            }
            prop_assert_eq!(waiting, 0);
        }
    }
}
