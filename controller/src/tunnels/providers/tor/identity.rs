//! The key of an onion service, which is its address: in Secrets in the form in which C tor tells keys on its control
//! port, so that services come from there and go there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use safelog::DisplayRedacted;
use tor_hscrypto::pk::{HsIdKey, HsIdKeypair};
use tor_llcrypto::pk::ed25519::{ExpandedKeypair, Keypair};
use tor_llcrypto::rng::CautiousRng;

use super::super::Token;

/// What stands before the key.
const FORM: &str = "ED25519-V3:";

/// Bytes of a key: a scalar, and what its signatures are made with.
const KEY: usize = 64;

pub struct Identity(ExpandedKeypair);

impl Identity {
    /// One that nobody else has.
    pub fn make() -> Self {
        let keypair = Keypair::generate(&mut CautiousRng);
        Self(ExpandedKeypair::from(&keypair))
    }

    /// `None` of what is no key.
    pub fn read(token: &Token) -> Option<Self> {
        let key = token.expose().strip_prefix(FORM)?;
        let key: [u8; KEY] = BASE64.decode(key).ok()?.try_into().ok()?;
        ExpandedKeypair::from_secret_key_bytes(key).map(Self)
    }

    pub fn write(&self) -> Token {
        let key = BASE64.encode(self.0.to_secret_key_bytes());
        Token::new(format!("{FORM}{key}"))
    }

    pub fn into_keypair(self) -> HsIdKeypair {
        HsIdKeypair::from(self.0)
    }

    /// The address: 56 letters and digits, and `.onion`.
    pub fn host(&self) -> String {
        let id = HsIdKey::from(*self.0.public()).id();
        id.display_unredacted().to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Of the key that is 64 times the byte 1, by another implementation of Ed25519 and SHA3.
    const HOST: &str = "cmfoqiqb24ds4357ycqyqt5viy3fktiusrnxtejfz56ohdkhp5iu3eid.onion";

    #[test]
    fn a_key_keeps_its_address() {
        let made = Identity::make();
        let again = Identity::read(&made.write()).unwrap();
        assert_eq!(again.host(), made.host());
        assert_ne!(Identity::make().host(), made.host());
        let known = Token::new(format!("{FORM}{}", BASE64.encode([1; KEY])));
        assert_eq!(Identity::read(&known).unwrap().host(), HOST);
    }

    #[test]
    fn what_is_no_key_is_none() {
        let short = format!("{FORM}{}", BASE64.encode([1; KEY - 1]));
        let other = format!("RSA1024:{}", BASE64.encode([1; KEY]));
        for text in ["", FORM, "ED25519-V3:***", &*short, &*other] {
            assert!(Identity::read(&Token::new(text)).is_none(), "{text}");
        }
    }
}
