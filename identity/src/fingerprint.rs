//! SHA-256 digests that name things: a key, a CA certificate, a token at rest.
//! Each is a type of its own, so one can't be passed for another; all are written in lower-case hex.
//! Nothing here is secret.

use rustls_pki_types::CertificateDer;

/// A text or byte string that is no SHA-256 digest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FingerprintError {
    #[error("a fingerprint has 64 hexadecimal digits, this has {found} characters")]
    TextLength { found: usize },
    #[error("a fingerprint has hexadecimal digits only")]
    NotHex(#[source] hex::FromHexError),
    #[error("a fingerprint has 32 bytes, this has {found}")]
    ByteLength { found: usize },
}

macro_rules! sha256_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest of `bytes`.
            pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
                let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
                Self(digest.as_ref().try_into().expect("SHA-256 yields 32 bytes"))
            }

            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(digest: [u8; 32]) -> Self {
                Self(digest)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = $crate::FingerprintError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                let found = bytes.len();
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| $crate::FingerprintError::ByteLength { found })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::FingerprintError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                // Counted first: hex would complain of an odd length, which helps nobody who
                // lost the end of a line while copying.
                let found = text.chars().count();
                if found != 64 {
                    return Err($crate::FingerprintError::TextLength { found });
                }
                let mut digest = [0; 32];
                hex::decode_to_slice(text, &mut digest)
                    .map_err($crate::FingerprintError::NotHex)?;
                Ok(Self(digest))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use sha256_newtype;

sha256_newtype! {
    /// Names a key, and so the process that owns it: SHA-256 of its SubjectPublicKeyInfo in DER.
    KeyFingerprint
}

sha256_newtype! {
    /// Names a cluster's CA: SHA-256 of its certificate in DER. A join token pins this.
    CaFingerprint
}

impl KeyFingerprint {
    pub(crate) fn of_public_key(spki_der: &[u8]) -> Self {
        Self::of_bytes(spki_der)
    }
}

impl CaFingerprint {
    /// The fingerprint that `certificate` would be pinned by.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self::of_bytes(certificate)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_form_is_lower_hex_and_reads_back() {
        let fingerprint = KeyFingerprint::from([0xab; 32]);
        assert_eq!(fingerprint.to_string(), "ab".repeat(32));
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!("AB".repeat(32).parse(), Ok(fingerprint));
        let json = serde_json::to_string(&fingerprint).unwrap();
        assert_eq!(json, format!("\"{fingerprint}\""));
        assert_eq!(
            serde_json::from_str::<KeyFingerprint>(&json).unwrap(),
            fingerprint
        );
    }

    #[test]
    fn malformed_text_says_what_is_wrong() {
        assert_eq!(
            "abc".parse::<CaFingerprint>(),
            Err(FingerprintError::TextLength { found: 3 })
        );
        assert!(matches!(
            "g".repeat(64).parse::<CaFingerprint>(),
            Err(FingerprintError::NotHex(_))
        ));
        // 64 characters, more bytes: must not reach the decoder's length check as a panic.
        assert!("é".repeat(64).parse::<CaFingerprint>().is_err());
        assert_eq!(
            CaFingerprint::try_from(&[1, 2][..]),
            Err(FingerprintError::ByteLength { found: 2 })
        );
    }
}
