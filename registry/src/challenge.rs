//! What a registry asks for when it answers 401: `WWW-Authenticate`, as RFC 9110 writes it.
//!
//! Only the scheme, the realm and the service are taken. A scope that it names is not: which one is
//! needed is known here, and some registries name a placeholder.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// A challenge is some hundred bytes. Longer ones are refused before they are read.
const MAX_CHALLENGE_BYTES: usize = 4 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A token, to be had at the realm.
    Bearer {
        realm: String,
        service: Option<String>,
    },
    /// Name and password with each request.
    Basic,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    #[error("the registry asks for credentials and does not say of which kind")]
    Absent,
    #[error("the registry asks for credentials in words that cannot be read")]
    Malformed,
    #[error("the registry asks for credentials of kind {0:?}, which is neither Bearer nor Basic")]
    Unknown(String),
}

/// What is asked for, best first: a token tells the registry less than a password.
pub fn challenges(headers: &HeaderMap) -> Result<Vec<Challenge>, ChallengeError> {
    let mut known = Vec::new();
    let mut other = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        if value.len() > MAX_CHALLENGE_BYTES {
            return Err(ChallengeError::Malformed);
        }
        let text = value.to_str().map_err(|_| ChallengeError::Malformed)?;
        for (scheme, parameters) in parse(text)? {
            let named = |name: &str| {
                let found = parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            match (&*scheme.to_ascii_lowercase(), named("realm")) {
                ("bearer", Some(realm)) => known.push(Challenge::Bearer {
                    realm,
                    service: named("service"),
                }),
                ("basic", _) => known.push(Challenge::Basic),
                _ => other = Some(scheme.chars().take(32).collect()),
            }
        }
    }
    // Stable: of two alike, the first.
    known.sort_by_key(|challenge| *challenge == Challenge::Basic);
    match (known.is_empty(), other) {
        (false, _) => Ok(known),
        (true, Some(scheme)) => Err(ChallengeError::Unknown(scheme)),
        (true, None) => Err(ChallengeError::Absent),
    }
}

type Parameters = Vec<(String, String)>;

/// Schemes and their parameters. A comma separates parameters as well as challenges: what is followed
/// by a word and no `=` begins a challenge.
fn parse(text: &str) -> Result<Vec<(String, Parameters)>, ChallengeError> {
    let mut rest = text;
    let mut all: Vec<(String, Parameters)> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Ok(all);
        }
        let word = token(&mut rest)?;
        let after = rest.trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            // "abc==" stands alone behind its scheme; no registry asks for such.
            Some(value) if !value.starts_with('=') => {
                rest = value.trim_start_matches([' ', '\t']);
                let value = match rest.starts_with('"') {
                    true => quoted(&mut rest)?,
                    false => token(&mut rest)?.to_owned(),
                };
                let (_, parameters) = all.last_mut().ok_or(ChallengeError::Malformed)?;
                parameters.push((word.to_owned(), value));
                let next = rest.trim_start_matches([' ', '\t']);
                if !(next.is_empty() || next.starts_with(',')) {
                    return Err(ChallengeError::Malformed);
                }
            }
            Some(_) => return Err(ChallengeError::Malformed),
            None => all.push((word.to_owned(), Vec::new())),
        }
    }
}

fn token<'a>(rest: &mut &'a str) -> Result<&'a str, ChallengeError> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    match word.is_empty() {
        true => Err(ChallengeError::Malformed),
        false => Ok(word),
    }
}

fn quoted(rest: &mut &str) -> Result<String, ChallengeError> {
    let mut value = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => {
                *rest = &rest[at + 1..];
                return Ok(value);
            }
            '\\' => value.push(letters.next().ok_or(ChallengeError::Malformed)?.1),
            letter => value.push(letter),
        }
    }
    Err(ChallengeError::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(values: &[&str]) -> Result<Vec<Challenge>, ChallengeError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        challenges(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn registries_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull""#;
        let ghcr = r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#;
        for (values, expected) in [
            (
                &[hub][..],
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                )],
            ),
            (
                &[ghcr],
                vec![bearer("https://ghcr.io/token", Some("ghcr.io"))],
            ),
            (&["Basic realm=\"Registry\""], vec![Challenge::Basic]),
            (&["basic"], vec![Challenge::Basic]),
            (
                &[r#"Basic realm="a, b", Bearer realm="https://a/t""#],
                vec![bearer("https://a/t", None), Challenge::Basic],
            ),
            (
                &["Basic realm=x", r#"bearer REALM = "https://a/\"t""#],
                vec![bearer("https://a/\"t", None), Challenge::Basic],
            ),
            (&[r#"Negotiate, Basic realm="x""#], vec![Challenge::Basic]),
        ] {
            assert_eq!(of(values), Ok(expected), "{values:?}");
        }
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        assert_eq!(of(&[]), Err(ChallengeError::Absent));
        assert_eq!(
            of(&["Negotiate"]),
            Err(ChallengeError::Unknown("Negotiate".to_owned()))
        );
        assert_eq!(
            of(&["Bearer service=a"]),
            Err(ChallengeError::Unknown("Bearer".to_owned()))
        );
        let long = "Basic ".repeat(1000);
        for bad in [
            "realm=\"x\"",
            "Bearer realm=\"x",
            "Bearer realm=",
            "Bearer realm=\"a\"\"b\"",
            "Bearer abc==",
            "\"",
            &long,
        ] {
            assert_eq!(of(&[bad]), Err(ChallengeError::Malformed), "{bad}");
        }
    }
}
