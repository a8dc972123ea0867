//! Connections of one function that wait for its next request.
//!
//! A connection comes in when its response has been read to the end, and goes out for the next
//! request to the same destination, or closes: when it was idle for too long, or when its place is
//! needed. None is ever used for another destination, or by another function.

use std::{collections::VecDeque, time::Duration};

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

use super::destination::Destination;
use crate::abort::AbortOnDrop;

/// Connections to one destination that are kept: more are of use only in the next burst.
const PER_DESTINATION: usize = 8;

/// One connection with nothing under way. Dropping it closes it and gives its place back.
pub(super) struct Connection {
    pub sender: SendRequest<WasiBody>,
    /// The task that moves the bytes.
    pub _driver: AbortOnDrop,
}

#[derive(Default)]
pub(super) struct Idle {
    /// The longest idle first. At most as many as the function may have open, and a few that ended
    /// since; short enough to look through.
    connections: VecDeque<(Instant, Destination, Connection)>,
    /// A task closes what is idle for too long.
    pub swept: bool,
}

impl Idle {
    /// The one that was used last: it is the least likely to be closed at the other end.
    pub(super) fn take(&mut self, to: &Destination) -> Option<Connection> {
        self.forget_ended();
        let newest = self.connections.iter().rposition(|(_, of, _)| of == to)?;
        let (_, _, connection) = self.connections.remove(newest)?;
        Some(connection)
    }

    pub(super) fn put(&mut self, now: Instant, to: Destination, connection: Connection) {
        self.forget_ended();
        let alike = self.connections.iter().filter(|(_, of, _)| *of == to);
        if alike.count() < PER_DESTINATION {
            self.connections.push_back((now, to, connection));
        }
    }

    pub(super) fn close_longest_idle(&mut self) {
        self.forget_ended();
        self.connections.pop_front();
    }

    /// Closes what has been idle for as long as connections are kept. The time at which there is
    /// more to close, if any is left.
    pub(super) fn sweep(&mut self, now: Instant, kept: Duration) -> Option<Instant> {
        self.forget_ended();
        self.connections.retain(|(since, ..)| *since + kept > now);
        self.connections.front().map(|(since, ..)| *since + kept)
    }

    fn forget_ended(&mut self) {
        self.connections
            .retain(|(_, _, connection)| connection.sender.is_ready());
    }
}
