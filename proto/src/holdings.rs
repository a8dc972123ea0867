//! How nodes say which artifacts are on their disk, so that functions go where nothing need be fetched.
//! It only decides between nodes that are equally good otherwise, so the beginning of a digest is enough.

/// Artifacts that a node tells: 4 KiB on a metered link. Most nodes have a handful.
pub const AT_MOST: usize = 512;

/// How an artifact is told: by the first 8 bytes of its SHA-256: of a million artifacts no two begin
/// alike in all but one of thirty million swarms.
pub fn prefix(sha256: &[u8; 32]) -> u64 {
    let (first, _) = sha256.split_at(8);
    first
        .iter()
        .fold(0, |prefix, byte| (prefix << 8) | u64::from(*byte))
}

/// The same of a digest in hex; `None` where it is no digest.
pub fn prefix_of_hex(sha256: &str) -> Option<u64> {
    u64::from_str_radix(sha256.get(..16)?, 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn agents_and_controllers_call_an_artifact_alike() {
        let digest: [u8; 32] = std::array::from_fn(|index| index as u8 + 0xa0);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(prefix(&digest), 0xa0a1_a2a3_a4a5_a6a7);
        assert_eq!(prefix_of_hex(&hex), Some(prefix(&digest)));
        for other in ["", "a0a1", "not a digest at all"] {
            assert_eq!(prefix_of_hex(other), None, "{other:?}");
        }
    }
}
