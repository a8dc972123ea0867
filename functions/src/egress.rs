//! Which hosts a function may send requests to.
//!
//! Every outgoing request of a guest, of either WASI version, passes [`Egress`] with its URI. It
//! must let none through that `spec.allowedHosts` does not name, and it says so in the log. Raw
//! sockets are closed elsewhere (see `guest`): this is the only way out.

use std::{str::FromStr, sync::Arc};

use http::{Uri, uri::Scheme};
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use crate::logs::RequestLog;

/// The hosts of `spec.allowedHosts`. Empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Pattern>);

/// An entry that is none of the four forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an allowed host: write \"host\", \"host:port\", \"*.suffix\" or \"*\", without \
     scheme or path"
)]
pub struct InvalidHostPattern(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    host: Host,
    /// None: the scheme's own port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Every host on every port.
    Any,
    /// Lower case, with the dot: ".example.com" matches every host below example.com.
    Below(String),
    /// Lower case.
    Exactly(String),
}

impl FromStr for Pattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, InvalidHostPattern> {
        let invalid = || InvalidHostPattern(text.to_owned());
        if text == "*" {
            return Ok(Self {
                host: Host::Any,
                port: None,
            });
        }
        let (host, port) = split_port(text).ok_or_else(invalid)?;
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && is_host(&suffix[1..]) => {
                Host::Below(suffix.to_owned())
            }
            None if is_host(&host) => Host::Exactly(host),
            _ => return Err(invalid()),
        };
        Ok(Self { host, port })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, taken apart.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    // The colons inside the brackets of an IPv6 address end no host.
    let host_end = text.rfind(']').map_or(0, |end| end + 1);
    match text[host_end..].find(':') {
        Some(colon) => {
            let (host, port) = text.split_at(host_end + colon);
            Some((host, Some(port[1..].parse().ok()?)))
        }
        None => Some((text, None)),
    }
}

fn is_host(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !text.is_empty()
                && text.split('.').all(|label| {
                    !label.is_empty()
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                })
        }
    }
}

impl AllowedHosts {
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, InvalidHostPattern> {
        entries
            .iter()
            .map(|entry| entry.as_ref().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a request to `uri` may leave. Without a port, entry and request mean the scheme's
    /// own: 80 or 443.
    pub fn allow(&self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else {
            return false;
        };
        let default_port = default_port(uri);
        let port = uri.port_u16().unwrap_or(default_port);
        // A host's name may be written with the root's dot, and in any case.
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.0.iter().any(|pattern| match &pattern.host {
            Host::Any => true,
            Host::Below(suffix) => {
                host.len() > suffix.len()
                    && host.ends_with(suffix.as_str())
                    && port == pattern.port.unwrap_or(default_port)
            }
            Host::Exactly(exactly) => {
                host == *exactly && port == pattern.port.unwrap_or(default_port)
            }
        })
    }
}

fn default_port(uri: &Uri) -> u16 {
    if uri.scheme() == Some(&Scheme::HTTP) {
        80
    } else {
        443
    }
}

/// The way out of one request's guest.
pub(crate) struct Egress {
    pub allowed: Arc<AllowedHosts>,
    pub log: RequestLog,
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
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let uri = request.uri();
        if !self.allowed.allow(uri) {
            let host = uri.host().unwrap_or_default();
            let entry = match uri.port_u16() {
                Some(port) if port != default_port(uri) => format!("{host}:{port}"),
                _ => host.to_owned(),
            };
            self.log.hive(format!(
                "request to {entry} refused: to allow it, add \"{entry}\" to spec.allowedHosts"
            ));
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        Box::new(async move {
            let (response, io) = default_send_request(request, options).await?;
            Ok((
                response.map(BodyExt::boxed_unsync),
                Box::new(io) as Box<dyn Future<Output = _> + Send>,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn allows(entry: &str, uri: &str) -> bool {
        AllowedHosts::parse(&[entry])
            .unwrap()
            .allow(&uri.parse().unwrap())
    }

    #[test]
    fn only_what_an_entry_names_may_leave() {
        let cases = [
            ("example.com", "https://example.com/", true),
            ("example.com", "http://example.com/", true),
            ("example.com", "https://EXAMPLE.com:443/x?y", true),
            ("Example.Com", "https://example.com./", true),
            ("example.com", "https://example.com:8443/", false),
            ("example.com", "http://example.com:443/", false),
            ("example.com", "https://www.example.com/", false),
            ("example.com", "https://example.com.evil.org/", false),
            ("example.com", "https://example.com@evil.org/", false),
            ("example.com", "https://evil.org/example.com", false),
            ("example.com:8080", "http://example.com:8080/", true),
            ("example.com:8080", "http://example.com/", false),
            ("*.example.com", "https://a.example.com/", true),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://evilexample.com/", false),
            ("*.example.com", "https://a.example.com:81/", false),
            ("*.example.com:81", "https://a.example.com:81/", true),
            ("*", "http://10.0.0.1:9999/", true),
            ("10.0.0.1:9999", "http://10.0.0.1:9999/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("[::1]", "http://[::2]/", false),
        ];
        for (entry, uri, expected) in cases {
            assert_eq!(allows(entry, uri), expected, "{entry} against {uri}");
        }
        let none = AllowedHosts::default();
        assert!(!none.allow(&"https://example.com/".parse().unwrap()));
    }

    #[test]
    fn entries_of_no_form_are_refused() {
        for entry in [
            "",
            "https://example.com",
            "example.com/path",
            "example.com:",
            "example.com:port",
            "example.com:99999",
            "*example.com",
            "a.*.com",
            "*.",
            "**",
            "user@host",
            "[::1",
            "[zz]",
        ] {
            assert!(AllowedHosts::parse(&[entry]).is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn a_suffix_matches_exactly_what_is_below_it(
            host in "[ab.]{1,8}", suffix in "[ab]{1,2}(\\.[ab]{1,2})?"
        ) {
            let Ok(uri) = format!("https://{host}/").parse::<Uri>() else { return Ok(()) };
            let bare = host.strip_suffix('.').unwrap_or(&host);
            let below = bare.strip_suffix(&suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
            prop_assert_eq!(
                AllowedHosts::parse(&[format!("*.{suffix}")]).unwrap().allow(&uri),
                below
            );
        }
    }

    async fn send(allowed: &[String], uri: String) -> (Sent, Vec<String>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink: crate::LogSink = {
            let lines = lines.clone();
            Arc::new(move |record: crate::LogRecord| lines.lock().unwrap().push(record.text))
        };
        let mut egress = Egress {
            allowed: Arc::new(AllowedHosts::parse(allowed).unwrap()),
            log: RequestLog::new(sink, "hello".into(), None),
        };
        let request = http::Request::get(uri).body(WasiBody::default()).unwrap();
        let sent =
            Box::into_pin(egress.send_request(request, None, Box::new(async { Ok(()) }))).await;
        drop(egress);
        let lines = lines.lock().unwrap().clone();
        (sent, lines)
    }

    #[tokio::test]
    async fn a_refused_request_reaches_nobody_and_the_log_says_what_to_add() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, lines) = send(&["example.com".to_owned()], format!("http://{address}/")).await;
        assert!(matches!(sent.err().unwrap(), Error::HttpRequestDenied));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(&format!("add \"{address}\" to spec.allowedHosts")));
        // Had it connected, it would be accepted before us.
        let us = TcpStream::connect(address).await.unwrap();
        let (_, first) = listener.accept().await.unwrap();
        assert_eq!(first, us.local_addr().unwrap());
    }

    #[tokio::test]
    async fn an_allowed_request_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let (sent, lines) = send(&[address.to_string()], format!("http://{address}/path")).await;
        assert_eq!(sent.ok().unwrap().0.status(), 204);
        assert!(lines.is_empty());
        assert!(server.await.unwrap().starts_with("GET /path HTTP/1.1"));
    }
}
