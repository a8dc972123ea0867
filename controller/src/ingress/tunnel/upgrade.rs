//! What follows HTTP on a connection, such as a WebSocket: bytes both ways, until both sides ended.

use std::sync::Arc;

use hive_tunnels::{Counts, RelayError, RelayLimits, Side, abort, relay};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::net::TcpStream;

use crate::gateway::Body;
use crate::ingress::repeat::full;
use crate::patience::Punctual;
use crate::tunnels::health::UnderWay;
use crate::tunnels::live::{CLIENT_BROKE, Live, Place, TARGET_BROKE};

/// A client's wish to go on in another protocol.
pub struct Upgrade {
    to: HeaderValue,
    client: OnUpgrade,
}

/// In an answer: what its connection goes on with.
#[derive(Clone)]
struct Switched(HeaderValue);

impl Upgrade {
    /// What a request wishes, as it came in. Not HTTP/2: its requests would go to paths that nobody chose a route
    /// for.
    pub fn wished(request: &mut Request<Body>) -> Option<Self> {
        if request.version() != Version::HTTP_11 {
            return None;
        }
        let client = request.extensions_mut().remove::<OnUpgrade>()?;
        let headers = request.headers();
        let mut options = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        if !options.any(|option| option.trim().eq_ignore_ascii_case("upgrade")) {
            return None;
        }
        let mut wishes = headers.get_all(UPGRADE).iter();
        let (Some(to), None) = (wishes.next(), wishes.next()) else {
            return None;
        };
        let is_http = |protocol: &str| {
            let protocol = protocol.trim().to_ascii_lowercase();
            protocol.starts_with("h2") || protocol.starts_with("http")
        };
        if to.to_str().ok()?.split(',').any(is_http) {
            return None;
        }
        Some(Self {
            to: to.clone(),
            client,
        })
    }

    /// Puts the wish into headers for the target.
    pub fn ask(&self, headers: &mut HeaderMap) {
        put(headers, self.to.clone());
    }

    /// Passes on bytes as soon as the client has the answer, while `held`.
    pub fn join(
        self,
        mut answer: Response<Incoming>,
        live: Arc<Live>,
        held: (Place, UnderWay),
    ) -> Response<Body> {
        let target = hyper::upgrade::on(&mut answer);
        let to = answer.headers().get(UPGRADE).cloned().unwrap_or(self.to);
        let client = self.client;
        // Ends with its connections, which end with the tunnel.
        tokio::spawn(async move {
            let _held = held;
            let (client, target) = match tokio::try_join!(client, target) {
                Ok(both) => both,
                Err(error) => {
                    tracing::debug!(%error, "an upgrade came to nothing");
                    return;
                }
            };
            pass_on(client, target, &live).await;
        });
        let mut answer = answer.map(|_| full(""));
        answer.extensions_mut().insert(Switched(to));
        answer
    }
}

/// Puts into an answer, where its connection goes on in another protocol, that it does: headers that speak of one
/// connection are not passed on.
pub fn announce(answer: &mut Response<Body>) {
    if let Some(Switched(to)) = answer.extensions_mut().remove() {
        put(answer.headers_mut(), to);
    }
}

fn put(headers: &mut HeaderMap, to: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, to);
}

async fn pass_on(client: Upgraded, target: Upgraded, live: &Live) {
    let (mut client, mut target) = (TokioIo::new(client), TokioIo::new(target));
    // The connection to the target has the tunnel's limits, and counts.
    let (limits, counts) = (RelayLimits::default(), Counts::default());
    let Err(error) = relay(&mut client, &mut target, &limits, &counts).await else {
        return;
    };
    tracing::debug!(
        error = &error as &dyn std::error::Error,
        "an upgraded connection broke"
    );
    live.count_failure(reason(&error));
    // With TLS a connection that is dropped has no proper end.
    if let Ok(client) = downcast::<TokioIo<Punctual<TcpStream>>>(client.into_inner()) {
        abort(client.io.into_inner().into_inner());
    }
}

fn reason(error: &RelayError) -> &'static str {
    match error {
        RelayError::Read(Side::Client, _) | RelayError::Write(Side::Client, _) => CLIENT_BROKE,
        _ => TARGET_BROKE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: (&str, &str) = ("connection", "keep-alive, Upgrade");
    const WEBSOCKET: (&str, &str) = ("upgrade", "websocket");

    /// Whether a request wishes it whose connection can go on in another protocol.
    fn is_wished(version: Version, said: &[(&'static str, &'static str)]) -> bool {
        let mut request = Request::new(full(""));
        *request.version_mut() = version;
        for &(name, value) in said {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(name, value);
        }
        let goes_on = hyper::upgrade::on(Request::new(()));
        request.extensions_mut().insert(goes_on);
        Upgrade::wished(&mut request).is_some()
    }

    #[test]
    fn a_connection_goes_on_in_what_is_no_http() {
        let cases: [(&[(&'static str, &'static str)], bool); 8] = [
            (&[WISH, WEBSOCKET], true),
            (&[WISH], false),
            (&[WEBSOCKET], false),
            (&[("connection", "close"), WEBSOCKET], false),
            // Further requests would pass all that routes and rules say.
            (&[WISH, ("upgrade", "h2c")], false),
            (&[WISH, ("upgrade", "websocket, H2C")], false),
            (&[WISH, ("upgrade", "HTTP/3.0")], false),
            (&[WISH, WEBSOCKET, ("upgrade", "h2c")], false),
        ];
        for (said, expected) in cases {
            assert_eq!(is_wished(Version::HTTP_11, said), expected, "{said:?}");
            assert!(!is_wished(Version::HTTP_10, said), "{said:?}");
            assert!(!is_wished(Version::HTTP_2, said), "{said:?}");
        }
    }
}
