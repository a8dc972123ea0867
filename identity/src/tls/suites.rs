//! Which cipher suite a link or a request is to have: the side that dials says it, and servers go by that.

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};

/// All that ring has for TLS 1.3, the fastest on this processor first.
pub(super) fn by_speed() -> Vec<SupportedCipherSuite> {
    ordered(has_aes()).to_vec()
}

/// AES with 128 bits has ten rounds where 256 bits have fourteen, and is as strong as the key exchange (X25519). Where
/// it has to be computed without instructions for it, as on a Raspberry Pi 4, ChaCha20 is several times faster.
fn ordered(has_aes: bool) -> [SupportedCipherSuite; 3] {
    let (aes_128, aes_256) = (TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384);
    match has_aes {
        true => [aes_128, aes_256, TLS13_CHACHA20_POLY1305_SHA256],
        false => [TLS13_CHACHA20_POLY1305_SHA256, aes_128, aes_256],
    }
}

/// Whether the processor has instructions for AES and for GCM.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;
    use rustls::crypto::ring::default_provider;

    use super::*;

    #[test]
    fn the_fastest_comes_first() {
        for (has_aes, first) in [
            (true, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (false, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        ] {
            assert_eq!(ordered(has_aes)[0].suite(), first, "AES: {has_aes}");
        }
    }

    #[test]
    fn none_is_left_out() {
        let all = default_provider().cipher_suites;
        for suite in all.into_iter().filter(|it| it.tls13().is_some()) {
            assert!(by_speed().contains(&suite), "{suite:?}");
        }
    }
}
