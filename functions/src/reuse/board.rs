//! What one instance has to do, and what follows from it: who is answered, who is told that time is up, whether
//! another request may come, when the instance ends.
//!
//! The worker tells it what happens and does what it says. It must never keep a request waiting for a guest
//! that will not answer it.

use std::{mem, sync::Arc, time::Duration};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::{
    Terms,
    job::{Job, Ticket, Wish},
};
use crate::{
    fresh::Head,
    invoke::{BoxBody, InvokeError},
    limits::{Limits, time::Stopwatch},
    run::{Failed, Run},
};

pub(super) struct Board {
    terms: Terms,
    /// Of one request.
    timeout: Duration,
    cpu_time: Duration,
    stopwatch: Arc<Stopwatch>,
    waker: Arc<AtomicWaker>,
    /// Requests under way, and such that nobody waits for while the guest still works on them.
    tickets: Vec<(u64, Ticket)>,
    /// The last that has left: what the guest does now, it does for that one.
    last: Option<Arc<Run>>,
    /// Came, and is not with the guest yet.
    arrived: Option<Arrived>,
    taken: u64,
    /// The latest that any of them may take.
    until: Instant,
    idle_since: Option<Instant>,
    /// No more requests.
    is_closed: bool,
    /// Somebody has left: what the guest says may be another's now.
    has_changed: bool,
    /// The guest has nothing more to do for anybody.
    pub is_at_rest: bool,
    /// The guest takes calls.
    pub is_ready: bool,
}

/// A request for the guest.
pub(super) struct Arrived {
    pub id: u64,
    pub request: http::Request<BoxBody>,
    pub head: Head,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for what comes, until then at most.
    Wait { until: Instant, offer: bool },
    /// It has been of use.
    End,
    /// The guest goes on for longer than it may.
    Stop,
}

impl Board {
    pub(super) fn new(
        terms: Terms,
        limits: &Limits,
        stopwatch: Arc<Stopwatch>,
        waker: Arc<AtomicWaker>,
        job: Job,
    ) -> Self {
        let mut board = Self {
            terms,
            timeout: limits.timeout,
            cpu_time: limits.cpu_time,
            stopwatch,
            waker,
            tickets: Vec::new(),
            last: None,
            arrived: None,
            taken: 0,
            until: job.ticket.deadline,
            idle_since: None,
            is_closed: false,
            has_changed: false,
            is_at_rest: false,
            is_ready: true,
        };
        board.arrive(job);
        board
    }

    pub(super) fn arrive(&mut self, job: Job) {
        let Job {
            request,
            head,
            ticket,
        } = job;
        let alone = self.tickets.is_empty();
        self.stopwatch.joined(ticket.deadline, self.cpu_time, alone);
        ticket.belongs_to(&self.waker);
        self.until = self.until.max(ticket.deadline);
        let id = self.taken;
        self.taken += 1;
        self.tickets.push((id, ticket));
        self.arrived = Some(Arrived { id, request, head });
        (self.idle_since, self.last) = (None, None);
        (self.has_changed, self.is_at_rest) = (true, false);
    }

    pub(super) fn take_arrived(&mut self) -> Option<Arrived> {
        self.arrived.take()
    }

    /// Whose the guest's words are from now on, if that has changed: the run of the only request, or none of
    /// several.
    pub(super) fn changed(&mut self) -> Option<Option<Arc<Run>>> {
        mem::take(&mut self.has_changed).then(|| match (&*self.tickets, &self.last) {
            ([(_, only)], _) => Some(only.run.clone()),
            ([], last) => last.clone(),
            _ => None,
        })
    }

    /// The guest's call for a request has ended.
    pub(super) fn returned(&mut self, id: u64) {
        if let Some((_, ticket)) = self.tickets.iter().find(|(other, _)| *other == id) {
            ticket.returned();
        }
    }

    /// To be asked after each turn of the guest, which has ended in the middle of something if `is_busy`.
    /// Then whoever is the last to wait is told by the guest's own end, which knows where that was.
    pub(super) fn next(&mut self, now: Instant, is_busy: bool, is_scarce: bool) -> Next {
        self.let_go();
        self.expire(now, is_busy);
        if self.tickets.is_empty() {
            return self.without_requests(now, is_busy, is_scarce);
        }
        if !self.tickets.iter().any(|(_, ticket)| is_waited_for(ticket)) {
            return Next::End;
        }
        let under_way = self.tickets.len() as u64;
        let offer = under_way < u64::from(self.terms.concurrent)
            && self.is_ready
            && !is_busy
            && self.arrived.is_none()
            && !self.is_full();
        let waiting = self.tickets.iter().filter(|(_, it)| is_waited_for(it));
        let until = waiting.map(|(_, it)| it.deadline).min();
        Next::Wait {
            until: until.unwrap_or(self.until),
            offer,
        }
    }

    /// Whoever has all there is, or whom the guest does nothing for.
    fn let_go(&mut self) {
        let is_at_rest = self.is_at_rest;
        for (_, ticket) in &self.tickets {
            self.is_closed |= ticket.wish() == Wish::Spoilt;
        }
        let left = self
            .tickets
            .extract_if(.., |(_, ticket)| match ticket.wish() {
                Wish::Answer => false,
                Wish::Done => true,
                Wish::Gone | Wish::Spoilt => is_at_rest,
            })
            .last();
        if let Some((_, ticket)) = left {
            self.last = Some(ticket.run.clone());
            self.has_changed = true;
            self.stopwatch.left(self.cpu_time, self.tickets.len());
        }
    }

    fn expire(&mut self, now: Instant, is_busy: bool) {
        let is_alone = self.tickets.len() == 1;
        for (_, ticket) in &mut self.tickets {
            if now < ticket.deadline || ticket.is_expired || (is_alone && is_busy) {
                continue;
            }
            ticket.is_expired = true;
            // The guest can't be told to let go of it.
            self.is_closed = true;
            if ticket.wish() == Wish::Answer {
                ticket.run.fail(InvokeError::Timeout(self.timeout));
                ticket.wake();
            }
        }
    }

    fn without_requests(&mut self, now: Instant, is_busy: bool, is_scarce: bool) -> Next {
        if !self.is_at_rest {
            // What it does after the last answer is part of that request's time.
            let until = self.until;
            return match now >= until && !is_busy {
                true => Next::Stop,
                false => Next::Wait {
                    until,
                    offer: false,
                },
            };
        }
        if self.is_full() || is_scarce {
            return Next::End;
        }
        self.last = None;
        let since = *self.idle_since.get_or_insert(now);
        let until = since + self.terms.idle;
        match now >= until {
            true => Next::End,
            false => Next::Wait { until, offer: true },
        }
    }

    fn is_full(&self) -> bool {
        self.is_closed || self.taken >= u64::from(self.terms.requests)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idle_since.is_some()
    }

    /// No requests will come: the function is no more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn timeout(&self) -> InvokeError {
        InvokeError::Timeout(self.timeout)
    }

    /// The instance ends, by this if there is something to tell: to all that wait, as nobody knows whose
    /// fault it was, or else to the last that had left.
    pub(super) fn end(&mut self, failed: Option<Failed>) {
        let Some(failed) = failed else {
            self.tickets.clear();
            return;
        };
        let waiting = self.tickets.iter().map(|(_, ticket)| ticket);
        let waiting: Vec<&Ticket> = waiting.filter(|it| is_waited_for(it)).collect();
        let [others @ .., one] = &*waiting else {
            if let Some(last) = &self.last {
                last.fail(failed);
            }
            return;
        };
        let is_of_several = !others.is_empty();
        for ticket in others {
            ticket.run.fail(Failed {
                error: failed.error.clone(),
                backtrace: None,
                is_of_several,
            });
        }
        one.run.fail(Failed {
            is_of_several,
            ..failed
        });
        self.tickets.clear();
    }
}

/// Whether its caller waits, and has not been told that time is up.
fn is_waited_for(ticket: &Ticket) -> bool {
    ticket.wish() == Wish::Answer && !ticket.is_expired
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use futures::{FutureExt, channel::oneshot};
    use http_body_util::{BodyExt, Empty};

    use super::*;
    use crate::{
        admission::{Admission, Needs, Turns},
        logs::{LogRecord, RequestLog},
        meter::Meter,
        reuse::Claim,
    };

    const TIMEOUT: Duration = Duration::from_secs(30);
    const IDLE: Duration = Duration::from_secs(1);
    const TERMS: Terms = Terms {
        requests: 4,
        concurrent: 2,
        idle: IDLE,
    };

    struct Instance {
        board: Board,
        began: Instant,
        told: Arc<Mutex<Vec<LogRecord>>>,
    }

    /// A request that comes so many seconds later.
    fn job(began: Instant, after: u64, told: &Arc<Mutex<Vec<LogRecord>>>) -> (Job, Claim) {
        let (needs, no_seat) = (Needs { slots: 1, bytes: 1 }, || None::<()>);
        let (admission, turns) = (Admission::new(1, 1000), Turns::new(1, needs));
        let admitted = admission.admit(&turns, began, TIMEOUT, no_seat);
        let Ok((turn, _)) = admitted.now_or_never().unwrap() else {
            panic!("there is room");
        };
        let told = told.clone();
        let sink = Arc::new(move |record| told.lock().unwrap().push(record));
        let log = RequestLog::new(sink, "default/test".into(), None);
        let run = Arc::new(Run::new(log, Arc::new(Meter::default())));
        let deadline = began + Duration::from_secs(after) + TIMEOUT;
        let (ticket, claim) = Ticket::new(run, deadline, turn);
        let body = BoxBody::new(Empty::new().map_err(|never| match never {}));
        let (request, head) = (http::Request::new(body), oneshot::channel().0);
        let job = Job {
            request,
            head,
            ticket,
        };
        (job, claim)
    }

    impl Instance {
        /// With its first request in the guest's hands.
        fn new() -> (Self, Claim) {
            let (began, told) = (Instant::now(), Arc::default());
            let (job, claim) = job(began, 0, &told);
            let limits = Limits {
                memory_bytes: 1,
                timeout: TIMEOUT,
                concurrency: 1,
                queue: Limits::QUEUE,
                cpu_time: Limits::CPU_TIME,
                response_bytes: Limits::RESPONSE_BYTES,
                handles: Limits::HANDLES,
            };
            let stopwatch = Arc::new(Stopwatch::new(began, Duration::ZERO));
            let mut board = Board::new(TERMS, &limits, stopwatch, Arc::default(), job);
            board.take_arrived().unwrap();
            (Self { board, began, told }, claim)
        }

        fn another(&mut self, after: u64) -> Claim {
            let (job, claim) = job(self.began, after, &self.told);
            self.board.arrive(job);
            self.board.take_arrived().unwrap();
            claim
        }

        fn at(&self, seconds: u64) -> Instant {
            self.began + Duration::from_secs(seconds)
        }

        fn next(&mut self, seconds: u64) -> Next {
            self.board.next(self.at(seconds), false, false)
        }

        fn until(&self, seconds: u64, offer: bool) -> Next {
            let until = self.at(seconds);
            Next::Wait { until, offer }
        }

        fn told(&self) -> Vec<String> {
            let told = self.told.lock().unwrap();
            told.iter().map(|record| record.text.clone()).collect()
        }
    }

    #[test]
    fn others_come_while_the_guest_waits_and_there_is_room() {
        let (mut it, _first) = Instance::new();
        assert_eq!(it.board.next(it.at(0), true, false), it.until(30, false));
        assert_eq!(it.next(0), it.until(30, true));
        it.board.is_ready = false;
        assert_eq!(it.next(0), it.until(30, false), "the guest takes no calls");
        it.board.is_ready = true;
        let second = it.another(1);
        assert_eq!(it.next(1), it.until(30, false), "it has two");
        second.end(Wish::Done);
        assert_eq!(it.next(2), it.until(30, true));
        drop(it.another(2));
        it.board.is_at_rest = true;
        assert_eq!(it.next(3), it.until(30, true));
        let _fourth = it.another(3);
        it.board.is_at_rest = true;
        let fifth = it.next(3);
        assert_eq!(fifth, it.until(30, false), "it was made for four");
    }

    #[test]
    fn an_instance_at_rest_stays_for_a_while() {
        let (mut it, first) = Instance::new();
        first.end(Wish::Done);
        assert_eq!(it.next(5), it.until(30, false), "it works on");
        it.board.is_at_rest = true;
        assert_eq!(it.next(6), it.until(7, true));
        assert!(it.board.is_idle());
        assert_eq!(it.next(7), Next::End);

        let (mut it, first) = Instance::new();
        first.end(Wish::Done);
        it.board.is_at_rest = true;
        let scarce = it.board.next(it.at(1), false, true);
        assert_eq!(scarce, Next::End, "somebody else needs what it has");
        assert_eq!(it.told(), [""; 0]);
    }

    #[test]
    fn who_times_out_is_told_and_the_others_are_answered_first() {
        let (mut it, first) = Instance::new();
        let second = it.another(10);
        assert_eq!(it.next(30), it.until(40, false), "no others");
        assert!(it.told()[0].starts_with("Timeout"), "{:?}", it.told());
        second.end(Wish::Done);
        assert_eq!(it.next(35), Next::End, "nobody waits");
        assert_eq!(it.told().len(), 1);
        drop(first);
    }

    #[test]
    fn who_goes_away_leaves_the_guest_to_the_others() {
        let (mut it, first) = Instance::new();
        let second = it.another(10);
        drop(first);
        assert_eq!(it.next(11), it.until(40, false), "it has two to work on");
        assert_eq!(it.next(30), it.until(40, false));
        assert_eq!(it.told(), [""; 0], "nobody is there to be told");
        drop(second);
        assert_eq!(it.next(31), Next::End);
    }

    #[test]
    fn what_goes_on_after_the_answer_has_the_time_of_its_request() {
        let (mut it, first) = Instance::new();
        first.end(Wish::Done);
        assert_eq!(it.next(1), it.until(30, false));
        // It computes: the next tick finds it where it does.
        let busy = it.board.next(it.at(30), true, false);
        assert_eq!(busy, it.until(30, false));
        assert_eq!(it.next(30), Next::Stop);
        it.board.end(Some(it.board.timeout().into()));
        assert!(it.told()[0].starts_with("Timeout"), "{:?}", it.told());
    }

    #[test]
    fn a_trap_is_told_to_all_that_wait() {
        let (mut it, _first) = Instance::new();
        let _second = it.another(1);
        let trap = InvokeError::Trap("unreachable".to_owned());
        it.board.end(Some(trap.clone().into()));
        let told = it.told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.iter()
                .all(|line| line.contains("any may be the cause"))
        );

        let (mut it, _alone) = Instance::new();
        it.board.end(Some(trap.into()));
        assert_eq!(it.told(), ["Trap: the function stopped: unreachable"]);
    }
}
