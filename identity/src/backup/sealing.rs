//! How the frames of a backup are sealed and opened.

use std::num::NonZeroU32;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::pbkdf2;
use serde::{Deserialize, Serialize};

use super::{BackupError, DIGEST_BYTES};

/// A forged header must not keep a restoring machine busy for hours.
const MAX_ITERATIONS: u32 = 10_000_000;

/// How the key follows from the passphrase: PBKDF2-HMAC-SHA256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    pub iterations: u32,
    /// Hex; fresh for each backup, so that no key is ever used for two.
    pub salt: String,
}

/// A key for one backup, with the number of the next frame.
pub(super) struct Sealing {
    key: LessSafeKey,
    header: [u8; DIGEST_BYTES],
    next: u64,
}

impl Sealing {
    pub(super) fn new(seal: &Seal, passphrase: &[u8], header: &[u8]) -> Result<Self, BackupError> {
        let iterations = NonZeroU32::new(seal.iterations)
            .filter(|iterations| iterations.get() <= MAX_ITERATIONS)
            .ok_or(BackupError::Damaged("impossible parameters of its seal"))?;
        let salt =
            hex::decode(&seal.salt).map_err(|_| BackupError::Damaged("its salt is not hex"))?;
        let mut key = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            passphrase,
            &mut key,
        );
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("the key has 32 bytes");
        let mut bound = [0; DIGEST_BYTES];
        bound.copy_from_slice(digest(&SHA256, header).as_ref());
        Ok(Self {
            key: LessSafeKey::new(key),
            header: bound,
            next: 0,
        })
    }

    /// The number of the frame, and whether it is the last: one cut off after a whole frame is noticed.
    fn nonce(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(last);
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    pub(super) fn seal(&mut self, frame: &mut Vec<u8>, last: bool) {
        let nonce = self.nonce(last);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(self.header), frame)
            .expect("a frame is far shorter than what the cipher takes");
    }

    pub(super) fn open(&mut self, frame: &mut Vec<u8>, last: bool) -> Result<(), BackupError> {
        let nonce = self.nonce(last);
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(self.header), frame)
            .map_err(|_| BackupError::WrongPassphrase)?
            .len();
        frame.truncate(plain);
        Ok(())
    }
}
