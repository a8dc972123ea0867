//! Requests as they come: signed JSON (RFC 7515), and the keys that sign it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;

#[derive(Deserialize)]
struct Flat {
    protected: String,
    payload: String,
    signature: String,
}

/// What is signed along with the payload.
#[derive(Deserialize)]
pub struct Header {
    alg: String,
    pub nonce: String,
    pub url: String,
    #[serde(default)]
    pub jwk: Option<Jwk>,
    #[serde(default)]
    pub kid: Option<String>,
}

/// A public key of P-256 (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Jwk {
    /// RFC 7638.
    pub fn thumbprint(&self) -> String {
        let Self { kty, crv, x, y } = self;
        let canonical = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#);
        BASE64.encode(digest(&SHA256, canonical.as_bytes()))
    }

    fn point(&self) -> Option<Vec<u8>> {
        let x = BASE64.decode(&self.x).ok()?;
        let y = BASE64.decode(&self.y).ok()?;
        let is_p256 = self.kty == "EC" && self.crv == "P-256";
        is_p256.then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    }
}

/// A request that was read, and not believed yet.
pub struct Signed {
    pub header: Header,
    pub payload: Vec<u8>,
    message: String,
    signature: Vec<u8>,
}

impl Signed {
    pub fn parse(body: &[u8]) -> Option<Self> {
        let flat: Flat = serde_json::from_slice(body).ok()?;
        let header = BASE64.decode(&flat.protected).ok()?;
        Some(Self {
            header: serde_json::from_slice(&header).ok()?,
            payload: BASE64.decode(&flat.payload).ok()?,
            message: format!("{}.{}", flat.protected, flat.payload),
            signature: BASE64.decode(&flat.signature).ok()?,
        })
    }

    pub fn is_by(&self, key: &Jwk) -> bool {
        let Some(point) = key.point() else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let verified = key.verify(self.message.as_bytes(), &self.signature);
        self.header.alg == "ES256" && verified.is_ok()
    }
}
