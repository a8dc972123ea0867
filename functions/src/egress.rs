//! What a function may send to the network, and how it is sent.
//!
//! Every outgoing request of a guest, of either WASI version, passes [`Egress`]. Its destination is
//! judged by `spec.allowedHosts`, each address that the destination stands for is judged again, and
//! only what was judged is dialled. Nothing else may reach a socket (see `guest`), and whatever is
//! refused is said in the log. Redirects are not followed: the guest's next request is judged anew.

mod allowed;
mod client;
mod connect;
mod connections;
mod destination;
mod dial;
mod error;
mod idle;
mod resolve;
mod response;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use http::Method;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub(crate) use self::client::{Client, Outbound};
use self::{
    allowed::Refusal,
    destination::{Destination, Host},
};
pub use self::{
    allowed::{AllowedHosts, InvalidHostPattern},
    dial::dial,
    resolve::{Resolve, SystemResolver},
};
use crate::logs::{LogEvent, RequestLog};

/// Lines about refusals in the log of one request: a guest that tries every port must not push
/// everybody else's lines out.
const LINES_PER_REQUEST: u32 = 100;

/// The way out of one request's guest.
pub(crate) struct Egress {
    pub log: RequestLog,
    client: Arc<Client>,
    told: Told,
}

impl Egress {
    pub(crate) fn new(client: Arc<Client>, log: RequestLog) -> Self {
        Self {
            told: Told {
                log: log.clone(),
                lines: Arc::default(),
            },
            log,
            client,
        }
    }

    /// What is sent from now on is another request's.
    pub(crate) fn speaks_for(&mut self, log: RequestLog) {
        *self = Self::new(self.client.clone(), log);
    }
}

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttpHooks for Egress {
    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let to = match self.destination(&request) {
            Ok(to) => to,
            Err(error) => return Box::new(async { Err(error) }),
        };
        if let Some(trace) = self.log.trace() {
            trace.add_to(request.headers_mut());
        }
        let sending =
            self.client
                .clone()
                .send(to, request, options.unwrap_or_default(), self.told.clone());
        Box::new(async {
            let answer = sending.await?;
            // The connection has a task of its own: nothing is left to be driven here.
            let done: Box<dyn Future<Output = Result<(), Error>> + Send> =
                Box::new(async { Ok(()) });
            Ok((answer, done))
        })
    }
}

impl Egress {
    /// Whom a request is for, if it may be sent.
    fn destination(&self, request: &http::Request<WasiBody>) -> Result<Destination, Error> {
        let method = request.method();
        if *method == Method::CONNECT || *method == Method::TRACE {
            // A tunnel would carry what nobody judges; a trace shows what others put on the way.
            self.told
                .tell(format!("request refused: functions may not send {method}"));
            return Err(Error::HttpRequestMethodInvalid);
        }
        let Some(to) = Destination::of(request.uri()) else {
            self.told.tell(
                "request refused: its authority is not a host, or a host and a port".to_owned(),
            );
            return Err(Error::HttpRequestUriInvalid);
        };
        match self.client.allowed().judge(&to) {
            Ok(()) => Ok(to),
            Err(refusal) => Err(self.told.refused(&to, refusal)),
        }
    }
}

/// Says in the log what was refused, up to a bound.
#[derive(Clone)]
pub(crate) struct Told {
    log: RequestLog,
    lines: Arc<AtomicU32>,
}

impl Told {
    fn refused(&self, to: &Destination, refusal: Refusal) -> Error {
        let asked = to.entry(&to.host);
        match refusal {
            Refusal::Host => {
                self.tell(format!(
                    "request to {asked} refused: to allow it, add \"{asked}\" to spec.allowedHosts"
                ));
                Error::HttpRequestDenied
            }
            Refusal::Address(address, class) => {
                let reached = to.entry(&Host::Address(address));
                self.tell(format!(
                    "request to {asked} refused: {address} is not public ({class}): to allow it, \
                     add \"{reached}\" to spec.allowedHosts"
                ));
                Error::DestinationIpProhibited
            }
        }
    }

    fn tell(&self, text: String) {
        // Saturating: a guest that tries for hours must not come round to 0.
        let before = self
            .lines
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| {
                Some(lines.saturating_add(1))
            })
            .unwrap_or(u32::MAX);
        if before < LINES_PER_REQUEST {
            let reason = "EgressDenied";
            let message = text.clone();
            self.log.event(text, LogEvent { reason, message });
        } else if before == LINES_PER_REQUEST {
            self.log.hive(format!(
                "{LINES_PER_REQUEST} refusals of a request are logged: the rest is not"
            ));
        }
    }
}
