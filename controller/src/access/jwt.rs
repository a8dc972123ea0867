//! JSON Web Tokens: taking apart, verifying, signing. Knows signatures, not what claims mean.
//!
//! Who verifies names the key, and the key the algorithm: what a token's own header says of it must
//! agree and is never followed ("none", or a public key taken for a shared secret).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longer ones are not looked at. With some groups and audiences one has 1 to 2 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// A public key, as far as tokens are signed with it.
#[derive(Clone, PartialEq, Eq)]
pub enum VerifyingKey {
    /// "EdDSA"
    Ed25519([u8; 32]),
    /// "RS256", of 2048 bits and more; big-endian.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// "ES256": both coordinates of the point.
    P256 { x: Vec<u8>, y: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    pub alg: String,
    #[serde(default)]
    pub kid: Option<String>,
    /// Extensions that must be understood; there is none that is.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

/// Taken apart, and not yet believed.
pub struct Unverified<'a> {
    pub header: Header,
    signed: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

/// Never quotes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("the token is not a JSON Web Token")]
    Malformed,
    #[error("the token is signed in a way that its key is not for")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token's claims cannot be read")]
    Claims,
}

impl<'a> Unverified<'a> {
    pub fn parse(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| JwtError::Malformed);
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        Ok(Self {
            header,
            signed,
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }

    /// What may be read to find the key, and for nothing else.
    pub fn unverified_claims<T: DeserializeOwned>(&self) -> Result<T, JwtError> {
        serde_json::from_slice(&self.claims).map_err(|_| JwtError::Claims)
    }

    /// The claims, once the signature is known to be that key's.
    pub fn verify<T: DeserializeOwned>(&self, key: &VerifyingKey) -> Result<T, JwtError> {
        if self.header.alg != key.algorithm() {
            return Err(JwtError::Algorithm);
        }
        let (message, signature) = (self.signed.as_bytes(), self.signature.as_slice());
        match key {
            VerifyingKey::Ed25519(public) => {
                UnparsedPublicKey::new(&ED25519, public).verify(message, signature)
            }
            VerifyingKey::Rsa { modulus, exponent } => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            VerifyingKey::P256 { x, y } => {
                let uncompressed = [&[4], x.as_slice(), y.as_slice()].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed)
                    .verify(message, signature)
            }
        }
        .map_err(|_| JwtError::Signature)?;
        self.unverified_claims()
    }
}

impl VerifyingKey {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa { .. } => "RS256",
            Self::P256 { .. } => "ES256",
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.algorithm())
    }
}

/// A token with these claims, signed "EdDSA".
pub fn sign(key: &Ed25519KeyPair, kid: &str, claims: &impl Serialize) -> String {
    let header = serde_json::json!({ "alg": "EdDSA", "kid": kid, "typ": "JWT" });
    let claims = serde_json::to_vec(claims).expect("claims are plain data");
    let signed = format!(
        "{}.{}",
        BASE64.encode(header.to_string()),
        BASE64.encode(claims)
    );
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::{Value, json};

    fn pair() -> (Ed25519KeyPair, VerifyingKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, VerifyingKey::Ed25519(public))
    }

    fn verify(token: &str, key: &VerifyingKey) -> Result<Value, JwtError> {
        Unverified::parse(token)?.verify(key)
    }

    #[test]
    fn a_token_reads_back_with_its_key_only() {
        let (pair, key) = pair();
        let claims = json!({ "sub": "joe", "exp": 1 });
        let token = sign(&pair, "k1", &claims);
        assert_eq!(Unverified::parse(&token).unwrap().header.kid.unwrap(), "k1");
        assert_eq!(verify(&token, &key), Ok(claims));
        let other = VerifyingKey::Ed25519([9; 32]);
        assert_eq!(verify(&token, &other), Err(JwtError::Signature));
    }

    /// What openssl signed.
    #[test]
    fn rsa_signatures_are_verified() {
        let modulus = BASE64
            .decode("xP2thF75KKQpvfcXnmgZbiUs_j-A_xsQ6-r411g9jkOo0AfbqAJSRuPFulTCJl5xZJVdoVsdJcbQB6I_e4NVQTb_XKhG3YP_gXZEvtlujNk-mUITY69o0l7XhAgg9mEVdUDhPLUjlc8BZoDH4b2Jyeyrm9zpwgfsaBV45rbnjey8e9uT3OVSYh5QXQ040ixgj_EaUbO2c_zsmOEi4Y2bZrFrGIh0QBCpL4aT2Hp6HDqSH7EEMVojKNg6X8GPtWgPjKZwD6mEGj3jU15esQa8CRDuQsCFGaGSRxI_dNgFvQaB3zlwcW-vYvdwBtEw8iH9w4j0kWsMDKLqCnZEasOdaw")
            .unwrap();
        let key = VerifyingKey::Rsa {
            modulus,
            exponent: vec![1, 0, 1],
        };
        let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiJqb2UifQ.Rq8w0pz6I0bOYnjd7OcWCNLB1tLvwTroP86KnqyItM9IvUTq5cKruVre8rKTG0T9LovIn6D1lxPBavmTCJQRm50WcQvpdh_WpwJdfpqPk2tMcDHzvxjhaUyXiu55e2rK3n-xLqPgYRKUusoHx3W7ozZ_Fn_NOaYyZlhk4NPuOnwk3j69g85uleqVMDuswGnRWVyZADum0vQ2X07CvF8jzk7i5OkDYr44Ap0HUuGlTEUtuWrvHiNHo-9j4-wZ1pV_pA2Hlw3MU8C4FNbKu9M8QxU6y8jWFISd2ru15rj32p-oz3sxpxbgRF6QD0j8Ma2Z5C3xoLCd32a38TCQfSPhbA";
        assert_eq!(verify(token, &key), Ok(json!({ "sub": "joe" })));
        let (head, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{}.{signature}", head.replace("joe", "jane"));
        let forged = forged.replace(
            &BASE64.encode("{\"sub\":\"joe\"}"),
            &BASE64.encode("{\"sub\":\"bob\"}"),
        );
        assert_eq!(verify(&forged, &key), Err(JwtError::Signature));
    }

    #[test]
    fn elliptic_signatures_are_verified() {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let key = VerifyingKey::P256 {
            x: point[1..33].to_vec(),
            y: point[33..].to_vec(),
        };
        let signed = format!(
            "{}.{}",
            BASE64.encode("{\"alg\":\"ES256\"}"),
            BASE64.encode("{\"sub\":\"joe\"}")
        );
        let signature = pair.sign(&random, signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", BASE64.encode(signature));
        assert_eq!(verify(&token, &key), Ok(json!({ "sub": "joe" })));
    }

    #[test]
    fn the_header_does_not_choose_how_it_is_verified() {
        let (pair, key) = pair();
        let token = sign(&pair, "k", &json!({}));
        let rest = token.split_once('.').unwrap().1;
        for header in [
            "{\"alg\":\"none\"}",
            "{\"alg\":\"HS256\"}",
            "{\"alg\":\"RS256\"}",
        ] {
            let forged = format!("{}.{rest}", BASE64.encode(header));
            assert_eq!(verify(&forged, &key), Err(JwtError::Algorithm), "{header}");
        }
        let critical = format!(
            "{}.{rest}",
            BASE64.encode("{\"alg\":\"EdDSA\",\"crit\":[\"b64\"]}")
        );
        assert_eq!(verify(&critical, &key), Err(JwtError::Malformed));
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(verify(&unsigned, &key), Err(JwtError::Signature));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in "[A-Za-z0-9_=-]{0,20}([.][A-Za-z0-9_-]{0,40}){0,4}") {
            let (_, key) = pair();
            prop_assert!(verify(&text, &key).is_err());
        }

        #[test]
        fn no_changed_character_passes(position in 0usize..1000, letter in "[A-Za-z0-9_-]") {
            let (pair, key) = pair();
            let claims = json!({ "sub": "joe" });
            let token = sign(&pair, "k", &claims);
            let position = position % token.len();
            let mut changed = token.clone();
            changed.replace_range(position..=position, &letter);
            // The last letter of each part holds bits that mean nothing; those are refused too.
            prop_assert!(changed == token || verify(&changed, &key).is_err());
        }
    }
}
