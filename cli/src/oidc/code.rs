//! Signing in with a browser on this machine: an authorization code, bound to this process by PKCE,
//! that the browser brings to a port on loopback (RFC 8252, RFC 7636).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use super::http::printable;
use super::id_token::Occasion;
use super::{Issuer, OidcError, Tokens, is_issuer, random_text};

/// The head of a browser's request with the issuer's answer in it.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// For one connection to say what it wants.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Served at a time: browsers open some in advance and say nothing on them.
const MAX_CONNECTIONS: usize = 16;

const PATH: &str = "/callback";

/// A sign-in under way: where the browser is to come back to, and what it must bring.
pub struct Loopback {
    listener: TcpListener,
    redirect: String,
    expected: Arc<Expected>,
    nonce: String,
    /// The secret half of what the code is bound to.
    verifier: String,
    /// What a person opens.
    pub url: Url,
}

/// By what the browser's answer is known.
struct Expected {
    state: String,
    issuer: Url,
}

/// What a request to the port asks.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Code(String),
    Refused {
        error: String,
        detail: String,
    },
    /// An answer that another issuer gave to what this one was asked (RFC 9207).
    Foreign,
    /// Icons, pages of other people, wrong states.
    Nothing,
}

impl Loopback {
    /// Listens; port 0 is any that is free.
    pub async fn listen(issuer: &Issuer, port: u16) -> Result<Self, OidcError> {
        let failed = |source| OidcError::Listen { port, source };
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let redirect = format!("http://127.0.0.1:{port}{PATH}");
        let (state, nonce, verifier) = (random_text(), random_text(), random_text());
        let mut url = issuer.discovery.authorization.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &issuer.client.id)
            .append_pair("redirect_uri", &redirect)
            .append_pair("scope", &issuer.scope())
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge(&verifier))
            .append_pair("code_challenge_method", "S256");
        if issuer.discovery.offline_scope {
            // Without being asked again issuers give no refresh token (OpenID Connect Core, 11).
            query.append_pair("prompt", "consent");
        }
        drop(query);
        let issuer = issuer.client.issuer.clone();
        Ok(Self {
            listener,
            redirect,
            expected: Arc::new(Expected { state, issuer }),
            nonce,
            verifier,
            url,
        })
    }

    /// Waits for the browser, and gets the tokens for what it brings.
    pub async fn tokens(self, issuer: &Issuer, patience: Duration) -> Result<Tokens, OidcError> {
        let code = tokio::time::timeout(patience, self.code())
            .await
            .map_err(|_| OidcError::TooLate(patience))??;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &self.redirect),
            ("code_verifier", &self.verifier),
        ];
        let occasion = Occasion::Browser { nonce: &self.nonce };
        issuer.tokens(&form, occasion).await
    }

    /// The code that a browser brings; whoever else comes is sent away and waited past.
    async fn code(&self) -> Result<String, OidcError> {
        let mut open = JoinSet::new();
        loop {
            let ended = tokio::select! {
                accepted = self.listener.accept(), if open.len() < MAX_CONNECTIONS => {
                    // Whoever left before being let in is no concern of ours.
                    if let Ok((stream, _)) = accepted {
                        let served = serve(stream, self.expected.clone());
                        open.spawn(tokio::time::timeout(CONNECTION_TIMEOUT, served));
                    }
                    continue;
                }
                Some(ended) = open.join_next() => ended,
            };
            match ended {
                Ok(Ok(Some(Asked::Code(code)))) => return Ok(code),
                Ok(Ok(Some(Asked::Refused { error, detail }))) => {
                    return Err(OidcError::Refused { error, detail });
                }
                Ok(Ok(Some(Asked::Foreign))) => {
                    return Err(OidcError::Answer {
                        url: self.expected.issuer.to_string(),
                        why: "the browser brought the answer of another issuer".to_owned(),
                    });
                }
                Ok(Ok(Some(Asked::Nothing) | None) | Err(_)) | Err(_) => {}
            }
        }
    }
}

/// Answers one request; `None` where nobody spoke HTTP.
async fn serve(mut stream: TcpStream, expected: Arc<Expected>) -> Option<Asked> {
    let head = read_head(&mut stream).await?;
    let asked = asked(&head, &expected);
    let (status, text) = match &asked {
        Asked::Code(_) => (
            "200 OK",
            "The terminal goes on from here. This page can be closed.",
        ),
        Asked::Refused { .. } | Asked::Foreign => {
            ("200 OK", "Nobody was signed in; the terminal says why.")
        }
        Asked::Nothing => ("404 Not Found", "Nothing is here."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    // A browser that does not wait for our page has brought its code all the same.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    Some(asked)
}

/// The first line of a request.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece).await.ok()?;
        head.extend_from_slice(&piece[..count]);
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
        if count == 0 || head.len() > MAX_HEAD_BYTES {
            return None;
        }
    }
    let end = head.windows(2).position(|end| end == b"\r\n")?;
    String::from_utf8(head[..end].to_vec()).ok()
}

/// What a request line asks; only who knows the state is listened to. Pure.
fn asked(line: &str, expected: &Expected) -> Asked {
    let target = line
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next())
        .filter(|target| target.starts_with('/'))
        .and_then(|target| Url::parse(&format!("http://127.0.0.1{target}")).ok());
    let Some(url) = target.filter(|url| url.path() == PATH) else {
        return Asked::Nothing;
    };
    let value = |name: &str| {
        let mut pairs = url.query_pairs();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    if value("state").as_deref() != Some(&expected.state) {
        return Asked::Nothing;
    }
    if value("iss").is_some_and(|named| !is_issuer(&expected.issuer, &named)) {
        return Asked::Foreign;
    }
    match (value("error"), value("code")) {
        (Some(error), _) => Asked::Refused {
            error: printable(&error),
            detail: value("error_description")
                .map(|text| format!(": {}", printable(&text)))
                .unwrap_or_default(),
        },
        (None, Some(code)) => Asked::Code(code),
        (None, None) => Asked::Nothing,
    }
}

fn challenge(verifier: &str) -> String {
    BASE64.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expected() -> Expected {
        Expected {
            state: "s".to_owned(),
            issuer: "https://login.example.org".parse().unwrap(),
        }
    }

    #[test]
    fn a_challenge_is_as_the_standard_has_it() {
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn only_who_knows_the_state_is_listened_to() {
        let code = |code: &str| Asked::Code(code.to_owned());
        for (line, wanted) in [
            ("GET /callback?code=a%2Fb&state=s HTTP/1.1", code("a/b")),
            (
                "GET /callback?code=a&state=s&iss=https%3A%2F%2Flogin.example.org HTTP/1.1",
                code("a"),
            ),
            (
                "GET /callback?code=a&state=s&iss=https%3A%2F%2Fevil.example HTTP/1.1",
                Asked::Foreign,
            ),
            ("GET /callback?code=a&state=t HTTP/1.1", Asked::Nothing),
            ("GET //callback?code=a&state=s HTTP/1.1", Asked::Nothing),
            ("GET @evil/callback?code=a&state=s HTTP/1.1", Asked::Nothing),
            ("GET /callback?code=a HTTP/1.1", Asked::Nothing),
            ("GET /favicon.ico HTTP/1.1", Asked::Nothing),
            ("POST /callback?code=a&state=s HTTP/1.1", Asked::Nothing),
            ("GET /callback?state=s HTTP/1.1", Asked::Nothing),
            ("nonsense", Asked::Nothing),
            (
                "GET /callback?error=access_denied&error_description=no%1b&state=s HTTP/1.1",
                Asked::Refused {
                    error: "access_denied".to_owned(),
                    detail: ": no".to_owned(),
                },
            ),
        ] {
            assert_eq!(asked(line, &expected()), wanted, "{line}");
        }
    }
    #[test]
    fn fuzzed_requests_sign_nobody_in_without_the_state() {
        let expected = expected();
        hive_fuzz::Target::new("callback", |input: &[u8]| {
            let line = String::from_utf8_lossy(input);
            match asked(&line, &expected) {
                Asked::Nothing => Err("nothing".to_owned()),
                _ => {
                    let query = Url::parse(&format!("http://a{}", line.split(' ').nth(1).unwrap()))
                        .unwrap();
                    let mut pairs = query.query_pairs();
                    assert!(
                        pairs.any(|(key, value)| key == "state" && value == "s"),
                        "{line:?}"
                    );
                    Ok(())
                }
            }
        })
        .seeds([
            "GET /callback?code=a%2Fb&state=s&iss=https%3A%2F%2Flogin.example.org HTTP/1.1",
            "GET /callback?error=access_denied&error_description=no&state=s HTTP/1.1",
        ])
        .words([
            "state=s", "&", "%", "%2", "code=", "error=", "iss=", "//", "@", ":1", " ",
        ])
        .at_most(MAX_HEAD_BYTES)
        .hold();
    }
    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let loopback = Loopback {
            listener,
            redirect: String::new(),
            expected: Arc::new(expected()),
            nonce: String::new(),
            verifier: String::new(),
            url: "https://login.example.org".parse().unwrap(),
        };
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let browser = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let asked = b"GET /callback?code=a&state=s HTTP/1.1\r\n\r\n";
            stream.write_all(asked).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let both = async { tokio::join!(loopback.code(), browser) };
        let (code, answer) = tokio::time::timeout(CONNECTION_TIMEOUT, both)
            .await
            .unwrap();
        assert_eq!(code.unwrap(), "a");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("closed."),
            "{answer}"
        );
    }
}
