//! Bytes that look random and are the same each time, and what they come to.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// More than all buffers on the way hold together.
pub const MUCH: usize = 64 << 20;

/// What is sent at a time.
const PIECE: usize = 64 << 10;

pub struct Noise {
    state: u64,
    left: usize,
}

impl Noise {
    pub fn new(bytes: usize) -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            left: bytes,
        }
    }
}

impl Iterator for Noise {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let size = self.left.min(PIECE);
        if size == 0 {
            return None;
        }
        self.left -= size;
        let mut piece = Vec::with_capacity(size + 8);
        while piece.len() < size {
            // Marsaglia's xorshift.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            piece.extend_from_slice(&self.state.to_le_bytes());
        }
        piece.truncate(size);
        Some(piece.into())
    }
}

/// `<bytes> <SHA-256>`
#[derive(Default)]
pub struct Sum {
    hash: Sha256,
    bytes: usize,
}

impl Sum {
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len();
    }

    pub fn text(self) -> String {
        let hash = self.hash.finalize();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {hex}", self.bytes)
    }
}

/// Of that much noise.
pub fn sum(bytes: usize) -> String {
    let mut sum = Sum::default();
    Noise::new(bytes).for_each(|piece| sum.add(&piece));
    sum.text()
}
