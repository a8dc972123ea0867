//! Encryption of what is written to this controller's disk: keys from a file outside the data
//! directory, and a [`Sealer`] of its own for each file that is written.
//!
//! AES-256-GCM under a key that HKDF-SHA-256 derives from the operator's key and 32 random bytes of
//! each file, so that no two files share a key. Keys are never logged. Who can write to the disk can
//! still put back an older file, or remove one; see docs/decisions/0004-secrets-at-rest.md.

pub mod file;
mod hex_bytes;
pub mod keys;
pub mod stock;
pub mod text;

use bytes::{BufMut, BytesMut};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};

use self::keys::{Key, KeyId};
use super::runtime;

/// Bytes that sealing adds behind a text: GCM's tag.
const TAG_BYTES: usize = 16;

/// Bytes that a sealed record has in front.
pub const NONCE_BYTES: usize = NONCE_LEN;

const SALT_BYTES: usize = 32;

/// What a file is. Part of what its key is derived from, so that nothing sealed as one thing opens
/// as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    LogSegment,
    WholeFile,
    PrivateKey,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Purpose::LogSegment => b"hive at rest 1: log segment",
            Purpose::WholeFile => b"hive at rest 1: whole file",
            Purpose::PrivateKey => b"hive at rest 1: private key",
        }
    }
}

/// Which key a file is sealed with; stands in the file, unsealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReference {
    pub key: KeyId,
    #[serde(with = "hex_bytes")]
    salt: [u8; SALT_BYTES],
}

/// What was sealed cannot be opened: it was altered, moved, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seal does not match: this was altered after it was written, or belongs elsewhere")]
pub struct Broken;

/// Seals and opens the content of one file.
pub struct Sealer {
    reference: SealReference,
    key: LessSafeKey,
}

impl SealReference {
    /// For a new file.
    fn fresh(key: KeyId) -> Self {
        let mut salt = [0; SALT_BYTES];
        runtime::fill_random(&mut salt);
        Self { key, salt }
    }
}

impl Sealer {
    fn new(key: &Key, reference: SealReference, purpose: Purpose) -> Self {
        let prk = Salt::new(HKDF_SHA256, &reference.salt).extract(key.secret());
        let info = [purpose.label()];
        let derived = prk
            .expand(&info, &AES_256_GCM)
            .expect("one AES-256 key is no longer than HKDF can give");
        Self {
            reference,
            key: LessSafeKey::new(UnboundKey::from(derived)),
        }
    }

    pub fn reference(&self) -> SealReference {
        self.reference
    }

    /// Begins a record that [`Sealer::seal_record`] seals once its content stands behind this.
    pub fn begin_record(out: &mut BytesMut) {
        out.put_bytes(0, NONCE_BYTES);
    }

    /// Seals the record that was begun at `start` and ends with `out`. `place` says where the record
    /// stands; elsewhere it does not open.
    ///
    /// The nonce is random, not the place: a place is written twice when a torn tail was cut off, when
    /// a process died before its sync, or when somebody put back an older image of the disk, and two
    /// texts under one nonce would give both away. NIST SP 800-38D, 8.3 allows 2^32 random nonces a
    /// key; a segment has fewer than 2^18 records.
    pub fn seal_record(&self, place: &[u8], out: &mut BytesMut, start: usize) {
        let mut nonce = [0; NONCE_BYTES];
        runtime::fill_random(&mut nonce);
        let (front, content) = out[start..].split_at_mut(NONCE_BYTES);
        front.copy_from_slice(&nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place),
                content,
            )
            .expect("a record is far shorter than GCM's limit of 64 GB");
        out.put_slice(tag.as_ref());
    }

    /// What was sealed as `sealed` by [`Sealer::seal_record`] at `place`.
    pub fn open_record(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Broken> {
        let (nonce, content) = sealed.split_at_checked(NONCE_BYTES).ok_or(Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken)?;
        let mut content = content.to_vec();
        let length = self
            .key
            .open_in_place(nonce, Aad::from(place), &mut content)
            .map_err(|_| Broken)?
            .len();
        content.truncate(length);
        Ok(content)
    }

    /// Seals the chunk of that number, in place. No number may be used twice for one file.
    fn seal_chunk(&self, header: &[u8], number: u64, is_last: bool, chunk: &mut Vec<u8>) {
        self.key
            .seal_in_place_append_tag(chunk_nonce(number, is_last), Aad::from(header), chunk)
            .expect("a chunk is far shorter than GCM's limit of 64 GB");
    }

    fn open_chunk(
        &self,
        header: &[u8],
        number: u64,
        is_last: bool,
        chunk: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let length = self
            .key
            .open_in_place(chunk_nonce(number, is_last), Aad::from(header), chunk)
            .map_err(|_| Broken)?
            .len();
        chunk.truncate(length);
        Ok(())
    }
}

/// A counter and whether it is the last, as in STREAM (Hoang et al., 2015): chunks can be neither
/// reordered nor left off.
fn chunk_nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[8] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::keys::Keys;
    use super::*;

    fn sealed(sealer: &Sealer, place: &[u8], content: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::from(&b"before"[..]);
        Sealer::begin_record(&mut out);
        out.put_slice(content);
        sealer.seal_record(place, &mut out, 6);
        assert!(out.starts_with(b"before"));
        out[6..].to_vec()
    }

    #[test]
    fn a_record_opens_where_it_was_sealed_and_nowhere_else() {
        let keys = Keys::of(1);
        let sealer = keys.begin(Purpose::LogSegment).unwrap();
        let out = sealed(&sealer, b"here", b"secret");
        assert_eq!(out.len(), NONCE_BYTES + 6 + TAG_BYTES);
        assert!(!out.windows(6).any(|window| window == b"secret"));

        let again = keys.open(&sealer.reference(), Purpose::LogSegment).unwrap();
        assert_eq!(again.open_record(b"here", &out).unwrap(), b"secret");
        assert_eq!(again.open_record(b"there", &out), Err(Broken));
        for bit in 0..8 * out.len() {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(again.open_record(b"here", &flipped), Err(Broken), "{bit}");
        }
        for length in 0..out.len() {
            assert_eq!(again.open_record(b"here", &out[..length]), Err(Broken));
        }
        let other_salt = keys.begin(Purpose::LogSegment).unwrap();
        assert_eq!(other_salt.open_record(b"here", &out), Err(Broken));
        let other_purpose = keys.open(&sealer.reference(), Purpose::WholeFile).unwrap();
        assert_eq!(other_purpose.open_record(b"here", &out), Err(Broken));
    }

    /// A place that is written again, as after a torn write, never sees the same nonce.
    #[test]
    fn one_place_never_has_the_same_nonce_twice() {
        let sealer = Keys::of(1).begin(Purpose::LogSegment).unwrap();
        let nonces: BTreeSet<Vec<u8>> = (0..1000)
            .map(|_| sealed(&sealer, b"here", b"x")[..NONCE_BYTES].to_vec())
            .collect();
        assert_eq!(nonces.len(), 1000);
    }
}
