//! What an ID token says, checked as its client must (OpenID Connect Core, 3.1.3.7 and 12.2).
//!
//! The token and the occasion flow in; when it ends and whom it names flow out. It came straight from the
//! issuer over TLS, so its signature is left to the controllers, which believe nothing of what is found here.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;

use super::{Client, is_issuer};

/// Beyond it nobody means a time.
const FAR_SECONDS: f64 = 1e12;

/// What a token was given for.
#[derive(Clone, Copy)]
pub(super) enum Occasion<'a> {
    /// A code that a browser brought: the token repeats what only this sign-in knows.
    Browser { nonce: &'a str },
    /// A code that a person typed elsewhere; the secret device code binds the token to this process.
    Device,
    /// A refresh token: it names who signed in then.
    Renewal { subject: &'a str },
}

/// When a token ends, and what people recognise themselves by.
pub(super) fn check(
    token: &str,
    client: &Client,
    occasion: Occasion<'_>,
    now: SystemTime,
) -> Result<(SystemTime, String), &'static str> {
    let claims = claims(token).ok_or("it is no JSON Web Token")?;
    let issuer = claims["iss"].as_str().unwrap_or_default();
    if !is_issuer(&client.issuer, issuer) {
        return Err("it is another issuer's");
    }
    let (is_for_us, has_others) = match &claims["aud"] {
        Value::String(audience) => (*audience == client.id, false),
        Value::Array(list) => (
            list.iter().any(|audience| *audience == client.id),
            list.iter().any(|audience| *audience != client.id),
        ),
        _ => (false, false),
    };
    if !is_for_us {
        return Err("it is for another client");
    }
    match &claims["azp"] {
        Value::Null if has_others => {
            return Err("it is for several clients and does not say whose it is");
        }
        Value::Null => {}
        party if *party == client.id => {}
        _ => return Err("it was given to another client"),
    }
    let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty());
    let subject = subject.ok_or("it names nobody")?;
    match occasion {
        Occasion::Browser { nonce } if claims["nonce"] != nonce => {
            return Err("it is not the answer to this sign-in");
        }
        Occasion::Renewal { subject: known } if subject != known => {
            return Err("it is another person's than the one who signed in");
        }
        Occasion::Browser { .. } | Occasion::Device | Occasion::Renewal { .. } => {}
    }
    let expiry = end(&claims).ok_or("it does not say when it ends")?;
    if expiry <= now {
        return Err("it has expired already: is this machine's clock right?");
    }
    let name = ["email", "preferred_username"]
        .into_iter()
        .find_map(|claim| claims[claim].as_str())
        .unwrap_or(subject);
    Ok((expiry, name.to_owned()))
}

/// When a token ends that was checked before.
pub(super) fn expiry(token: &str) -> Option<SystemTime> {
    end(&claims(token)?)
}

/// Whom a token names that was checked before.
pub(super) fn subject(token: &str) -> Option<String> {
    claims(token)?["sub"].as_str().map(str::to_owned)
}

fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
}

fn end(claims: &Value) -> Option<SystemTime> {
    let seconds = claims["exp"].as_f64()?;
    (0.0..FAR_SECONDS)
        .contains(&seconds)
        .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn client() -> Client {
        Client {
            issuer: "https://login.example.org/realm".parse().unwrap(),
            id: "hive".into(),
            secret: None,
            scopes: Vec::new(),
            ca_file: None,
        }
    }

    fn token(claims: &Value) -> String {
        format!("e30.{}.x", BASE64.encode(claims.to_string()))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_must_be_the_answer_to_what_was_asked() {
        let good = json!({
            "iss": "https://login.example.org/realm", "aud": "hive", "sub": "1234", "exp": 2000,
            "nonce": "n", "email": "ada@example.org",
        });
        let browser = Occasion::Browser { nonce: "n" };
        let renewal = |subject| Occasion::Renewal { subject };
        let named = |name: &str| Ok((at(2000), name.to_owned()));
        for (claim, value, occasion, expected) in [
            ("", Value::Null, browser, named("ada@example.org")),
            ("email", Value::Null, browser, named("1234")),
            ("email", json!(["a"]), browser, named("1234")),
            ("aud", json!(["hive"]), browser, named("ada@example.org")),
            ("azp", json!("hive"), browser, named("ada@example.org")),
            (
                "iss",
                json!("https://login.example.org/realm/"),
                browser,
                Err("it is another issuer's"),
            ),
            ("iss", Value::Null, browser, Err("it is another issuer's")),
            (
                "aud",
                json!("other"),
                browser,
                Err("it is for another client"),
            ),
            ("aud", json!([]), browser, Err("it is for another client")),
            ("aud", Value::Null, browser, Err("it is for another client")),
            (
                "aud",
                json!(["hive", "other"]),
                browser,
                Err("it is for several clients and does not say whose it is"),
            ),
            (
                "azp",
                json!("other"),
                browser,
                Err("it was given to another client"),
            ),
            (
                "azp",
                json!(["hive"]),
                browser,
                Err("it was given to another client"),
            ),
            ("sub", Value::Null, browser, Err("it names nobody")),
            ("sub", json!(""), browser, Err("it names nobody")),
            (
                "nonce",
                json!("m"),
                browser,
                Err("it is not the answer to this sign-in"),
            ),
            (
                "nonce",
                Value::Null,
                browser,
                Err("it is not the answer to this sign-in"),
            ),
            (
                "nonce",
                Value::Null,
                Occasion::Device,
                named("ada@example.org"),
            ),
            (
                "nonce",
                Value::Null,
                renewal("1234"),
                named("ada@example.org"),
            ),
            (
                "sub",
                json!("1235"),
                renewal("1234"),
                Err("it is another person's than the one who signed in"),
            ),
            (
                "exp",
                Value::Null,
                browser,
                Err("it does not say when it ends"),
            ),
            (
                "exp",
                json!(-1),
                browser,
                Err("it does not say when it ends"),
            ),
            (
                "exp",
                json!(1e300),
                browser,
                Err("it does not say when it ends"),
            ),
            (
                "exp",
                json!(1000),
                browser,
                Err("it has expired already: is this machine's clock right?"),
            ),
        ] {
            let mut claims = good.clone();
            if !claim.is_empty() {
                claims[claim] = value.clone();
            }
            let found = check(&token(&claims), &client(), occasion, at(1000));
            assert_eq!(found, expected, "{claim} {value}");
        }
        // Several audiences are no harm where the token says whose it is.
        let mut claims = good;
        (claims["aud"], claims["azp"]) = (json!(["other", "hive"]), json!("hive"));
        assert!(check(&token(&claims), &client(), browser, at(1000)).is_ok());
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for bad in [
            "",
            "a.b",
            "a.e30",
            "..",
            "a.!.c",
            "e30.e30.",
            "e30.bnVsbA.",
            "e30.WzFd.",
        ] {
            assert!(expiry(bad).is_none() && subject(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn fuzzed_tokens_are_read_or_refused() {
        let client = client();
        hive_fuzz::Target::new("id_token", |input: &[u8]| {
            let claims = String::from_utf8_lossy(input);
            let token = format!("e30.{}.x", BASE64.encode(claims.as_bytes()));
            let _ = subject(&token);
            let occasion = Occasion::Browser { nonce: "n" };
            check(&token, &client, occasion, at(1000)).map(|_| ()).map_err(str::to_owned)
        })
        .seeds([
            r#"{"iss":"https://login.example.org/realm","aud":"hive","sub":"1","exp":2000,"nonce":"n"}"#,
            r#"{"iss":"https://login.example.org/realm","aud":["hive","b"],"azp":"hive","sub":"1","exp":2e3,"nonce":"n","email":"a@b"}"#,
        ])
        .words(["\"exp\":", "1e308", "-0.0", "\"aud\":", "[]", "null", "\"azp\":"])
        .at_most(4 * 1024)
        .hold();
    }
}
