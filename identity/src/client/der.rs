//! The few structures of X.509 that rcgen cannot write: a name with several organizations, which are
//! a user's groups, and what such a name stands in.

use std::time::SystemTime;

use rcgen::{KeyPair, SigningKey};
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, Tag, construct_der};

use crate::ca::since_epoch;

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const ED25519: &[u64] = &[1, 3, 101, 112];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// Of a GeneralName: a URI.
const URI_TAG: u64 = 6;
/// The first bit of a key usage: digitalSignature.
const DIGITAL_SIGNATURE: &[u8] = &[0x80];
/// Later years do not fit a UTCTime (RFC 5280, 4.1.2.5).
const FIRST_GENERALIZED_YEAR: i32 = 2050;

/// What a certificate says.
pub(super) struct Contents<'a> {
    pub serial: &'a [u8],
    /// A Name in DER.
    pub issuer: &'a [u8],
    pub user: &'a str,
    pub groups: &'a [String],
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// A SubjectPublicKeyInfo in DER.
    pub public_key: &'a [u8],
    pub uri: &'a str,
}

/// A signed certificate for a client and nothing else.
pub(super) fn certificate(contents: &Contents<'_>, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let to_be_signed = construct_der(|writer| {
        writer.write_sequence(|writer| {
            // Version 3.
            writer
                .next()
                .write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(contents.serial, true);
            algorithm(writer.next());
            writer.next().write_der(contents.issuer);
            writer.next().write_sequence(|writer| {
                time(writer.next(), contents.not_before);
                time(writer.next(), contents.not_after);
            });
            name(writer.next(), contents.user, contents.groups);
            writer.next().write_der(contents.public_key);
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| {
                    // cA is false where it is left out.
                    extension(writer.next(), BASIC_CONSTRAINTS, true, |writer| {
                        writer.write_sequence(|_| {});
                    });
                    extension(writer.next(), KEY_USAGE, true, |writer| {
                        writer.write_bitvec_bytes(DIGITAL_SIGNATURE, 1);
                    });
                    extension(writer.next(), EXTENDED_KEY_USAGE, false, |writer| {
                        writer.write_sequence(|writer| oid(writer.next(), CLIENT_AUTH));
                    });
                    extension(writer.next(), SUBJECT_ALT_NAME, false, |writer| {
                        writer.write_sequence(|writer| {
                            let tag = Tag::context(URI_TAG);
                            writer.next().write_tagged_implicit(tag, |writer| {
                                writer.write_ia5_string(contents.uri);
                            });
                        });
                    });
                });
            });
        });
    });
    signed(&to_be_signed, key)
}

/// A signed PKCS#10 request for `key`.
pub(super) fn request(
    user: &str,
    groups: &[String],
    public_key: &[u8],
    key: &KeyPair,
) -> Result<Vec<u8>, rcgen::Error> {
    let to_be_signed = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            name(writer.next(), user, groups);
            writer.next().write_der(public_key);
            // No attributes.
            writer
                .next()
                .write_tagged_implicit(Tag::context(0), |writer| writer.write_set(|_| {}));
        });
    });
    signed(&to_be_signed, key)
}

fn signed(to_be_signed: &[u8], key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let signature = key.sign(to_be_signed)?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(to_be_signed);
            algorithm(writer.next());
            writer
                .next()
                .write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

/// Groups first, as Go and OpenSSL write them.
fn name(writer: DERWriter<'_>, user: &str, groups: &[String]) {
    let groups = groups.iter().map(|group| (ORGANIZATION, group.as_str()));
    writer.write_sequence(|writer| {
        for (kind, text) in groups.chain([(COMMON_NAME, user)]) {
            writer.next().write_set(|writer| {
                writer.next().write_sequence(|writer| {
                    oid(writer.next(), kind);
                    writer.next().write_utf8_string(text);
                });
            });
        }
    });
}

fn extension(
    writer: DERWriter<'_>,
    kind: &[u64],
    critical: bool,
    value: impl FnOnce(DERWriter<'_>),
) {
    writer.write_sequence(|writer| {
        oid(writer.next(), kind);
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&construct_der(value));
    });
}

fn algorithm(writer: DERWriter<'_>) {
    writer.write_sequence(|writer| oid(writer.next(), ED25519));
}

fn oid(writer: DERWriter<'_>, components: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(components));
}

fn time(writer: DERWriter<'_>, at: SystemTime) {
    let at = since_epoch(at);
    if at.year() < FIRST_GENERALIZED_YEAR {
        writer.write_utctime(&UTCTime::from_datetime(at));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(at));
    }
}
