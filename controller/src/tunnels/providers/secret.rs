//! Tokens in Secrets: read as they are now, and never written to a log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;

use super::Trouble;
use crate::state::{Key, State};

/// A token of a tunnel is some 200 characters, an API token 40.
const MAX_TOKEN: usize = 4096;

/// What opens something. It is not printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(String);

impl Token {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A text without it.
    pub fn hide_in(&self, text: &str) -> String {
        match self.0.is_empty() {
            true => text.to_owned(),
            false => text.replace(&self.0, "[token]"),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

/// What a Secret has under a key.
pub fn read(state: &State, namespace: &str, name: &str, key: &str) -> Result<Token, Trouble> {
    let object = Key::new(Resource::Secret, namespace, name);
    let Some(secret) = state.get(&object) else {
        let message = format!(
            "secret {name} is not in namespace {namespace}: create it with the key {key} \
             (kubectl create secret generic {name} --from-file={key}=FILE)"
        );
        return Err(Trouble::new("SecretNotFound", message));
    };
    let bad = |what: &str| {
        let message = format!("secret {name} {what}: write the token alone under the key {key}");
        Trouble::new("SecretInvalid", message)
    };
    let value = secret.to_value();
    let Some(text) = value["data"][key].as_str() else {
        return Err(bad(&format!("has no key {key}")));
    };
    let bytes = BASE64.decode(text).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| bad(&format!("has no text under the key {key}")))?;
    // Files end with a line's end.
    let token = text.trim();
    let is_one_word = token.bytes().all(|c| c.is_ascii_graphic());
    if token.is_empty() || token.len() > MAX_TOKEN || !is_one_word {
        return Err(bad(&format!("has no token under the key {key}")));
    }
    Ok(Token::new(token))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::objects;
    use crate::state::Command;

    #[test]
    fn a_token_is_read_or_what_is_wrong_is_said() {
        let mut state = State::default();
        let key = Key::new(Resource::Secret, "default", "s");
        let data = json!({
            "good": BASE64.encode("eyJhIjoi\n"),
            "empty": "",
            "two": BASE64.encode("two words"),
            "bytes": BASE64.encode([0xff, 0xfe]),
            "long": BASE64.encode("x".repeat(MAX_TOKEN + 1)),
        });
        let body = objects::fresh(&key, json!({}), json!({ "data": data })).into();
        state.apply(Command::Create { key, body }).unwrap();
        let token = read(&state, "default", "s", "good").unwrap();
        assert_eq!(token.expose(), "eyJhIjoi");
        for (name, key, reason, says) in [
            (
                "none",
                "good",
                "SecretNotFound",
                "secret none is not in namespace default",
            ),
            ("s", "other", "SecretInvalid", "secret s has no key other"),
            (
                "s",
                "empty",
                "SecretInvalid",
                "secret s has no token under the key empty",
            ),
            ("s", "two", "SecretInvalid", "secret s has no token"),
            ("s", "bytes", "SecretInvalid", "secret s has no text"),
            ("s", "long", "SecretInvalid", "secret s has no token"),
        ] {
            let trouble = read(&state, "default", name, key).unwrap_err();
            assert_eq!(trouble.reason, reason, "{key}");
            assert!(trouble.message.starts_with(says), "{}", trouble.message);
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::new("eyJhIjoi");
        assert_eq!(format!("{token:?}"), "[token]");
        let line = token.hide_in("Settings: map[token:eyJhIjoi]");
        assert_eq!(line, "Settings: map[token:[token]]");
        assert_eq!(Token::new("").hide_in("as it is"), "as it is");
    }
}
