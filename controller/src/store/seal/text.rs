//! A short text in a file of its own, such as a private key: sealed, or as it is.
//!
//! A sealed one is JSON that names its key. The name of the file is bound to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::keys::{KeyId, Keys, UnknownKey};
use super::{Broken, Purpose, SealReference, Sealer};

#[derive(Serialize, Deserialize)]
struct Sealed {
    seal: SealReference,
    content: String,
}

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error(transparent)]
    Key(#[from] UnknownKey),
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// As it is to stand in the file of that name.
pub fn seal(keys: &Keys, name: &str, text: &str) -> String {
    let Some(sealer) = keys.begin(Purpose::PrivateKey) else {
        return text.to_owned();
    };
    let mut out = BytesMut::new();
    Sealer::begin_record(&mut out);
    out.put_slice(text.as_bytes());
    sealer.seal_record(name.as_bytes(), &mut out, 0);
    let sealed = Sealed {
        seal: sealer.reference(),
        content: BASE64.encode(&out),
    };
    let mut json = serde_json::to_string(&sealed).expect("texts have a JSON form");
    json.push('\n');
    json
}

/// The text in the file of that name.
pub fn open(keys: &Keys, name: &str, stored: &str) -> Result<String, TextError> {
    let Some(sealed) = parse(stored) else {
        return Ok(stored.to_owned());
    };
    let sealer = keys.open(&sealed.seal, Purpose::PrivateKey)?;
    let content = BASE64.decode(&sealed.content).map_err(|_| Broken)?;
    let text = sealer.open_record(name.as_bytes(), &content)?;
    Ok(String::from_utf8(text).map_err(|_| Broken)?)
}

/// The key with which it is sealed, if it is.
pub fn key_of(stored: &str) -> Option<KeyId> {
    Some(parse(stored)?.seal.key)
}

fn parse(stored: &str) -> Option<Sealed> {
    serde_json::from_str(stored).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_opens_with_its_key_under_its_name() {
        let keys = Keys::of(1);
        let stored = seal(&keys, "ca.key", "-----BEGIN");
        assert!(!stored.contains("BEGIN"));
        assert_eq!(key_of(&stored), keys.first());
        assert_eq!(open(&keys, "ca.key", &stored).unwrap(), "-----BEGIN");
        assert!(matches!(
            open(&keys, "device.key", &stored),
            Err(TextError::Broken(_))
        ));
        for others in [Keys::default(), Keys::of(2)] {
            assert!(matches!(
                open(&others, "ca.key", &stored),
                Err(TextError::Key(_))
            ));
        }
        // One from before, and one of who does not seal.
        assert_eq!(open(&keys, "ca.key", "-----BEGIN").unwrap(), "-----BEGIN");
        assert_eq!(seal(&Keys::default(), "ca.key", "-----BEGIN"), "-----BEGIN");
    }
}
