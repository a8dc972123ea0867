//! Instances that answer more than one request, one after another or several at once.
//!
//! An instance that can take a request offers a seat; who has a request takes one, or starts an
//! instance where there is none. What a guest leaves in its memory is there for the next request, so
//! only functions that say so, or whose WASI version is made for it, share instances. All limits hold:
//! memory is the instance's, processor time is what its requests bring, wall time is each request's.

mod board;
mod job;
mod lane;
mod seats;
mod worker;

use std::time::Duration;

pub(crate) use self::{
    job::{Claim, Job, Ticket, Wish},
    seats::{Seat, Seats},
    worker::start,
};

/// How instances answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Each request has an instance of its own.
    Fresh,
    /// One after another.
    Serial,
    /// Also several at once, where the component is one of WASI 0.3; older ones take them in turn.
    Concurrent,
}

/// How many requests an instance answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances {
    /// None: as the component's WASI version has it.
    pub reuse: Option<Reuse>,
    /// Then it goes, and with it what it has piled up.
    pub max_requests: u32,
    /// At once.
    pub max_concurrent: u32,
    /// How long it stays with nothing to do.
    pub idle_timeout: Duration,
}

/// Where nothing else is said. A controller leaves these unsaid to its agents, as those of [`Limits`](crate::Limits).
impl Instances {
    /// As wasmtime's own server has it, like those below: a leak is bounded, and a start costs a
    /// hundredth.
    pub const REQUESTS: u32 = 128;
    pub const CONCURRENT: u32 = 16;
    pub const IDLE: Duration = Duration::from_secs(1);
}

impl Default for Instances {
    fn default() -> Self {
        Self {
            reuse: None,
            max_requests: Self::REQUESTS,
            max_concurrent: Self::CONCURRENT,
            idle_timeout: Self::IDLE,
        }
    }
}

/// What that comes to for one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub requests: u32,
    pub concurrent: u32,
    pub idle: Duration,
}

impl Instances {
    /// None: each request has an instance of its own.
    pub(crate) fn terms(&self, is_0_2: bool) -> Option<Terms> {
        let by_default = match is_0_2 {
            true => Reuse::Fresh,
            false => Reuse::Concurrent,
        };
        let concurrent = match self.reuse.unwrap_or(by_default) {
            Reuse::Fresh => return None,
            Reuse::Concurrent if !is_0_2 => self.max_concurrent.max(1),
            Reuse::Serial | Reuse::Concurrent => 1,
        };
        (self.max_requests > 1).then_some(Terms {
            requests: self.max_requests,
            concurrent,
            idle: self.idle_timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_said_is_heeded_as_far_as_the_component_can() {
        let concurrent = |reuse, max_requests, is_0_2| {
            let said = Instances {
                reuse,
                max_requests,
                ..Instances::default()
            };
            said.terms(is_0_2).map(|terms| terms.concurrent)
        };
        for (reuse, requests, of_0_2, of_0_3) in [
            (None, 128, None, Some(16)),
            (Some(Reuse::Fresh), 128, None, None),
            (Some(Reuse::Serial), 128, Some(1), Some(1)),
            (Some(Reuse::Concurrent), 128, Some(1), Some(16)),
            // There is nothing to keep an instance for.
            (Some(Reuse::Concurrent), 1, None, None),
        ] {
            assert_eq!(concurrent(reuse, requests, true), of_0_2, "{reuse:?}");
            assert_eq!(concurrent(reuse, requests, false), of_0_3, "{reuse:?}");
        }
    }
}
