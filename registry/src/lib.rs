//! Images of components in OCI registries: what they are called, what is in them, how they are asked
//! for and given.
//!
//! References, credentials and registries' answers flow in; requests flow out. Nothing here opens a
//! connection, reads a clock or waits: whoever has the machines in hand sends what they ask for, and
//! decides which addresses may be asked.

mod ask;
mod challenge;
mod credentials;
mod digest;
mod manifest;
pub mod media;
mod pull;
mod push;
mod reference;
mod session;

#[cfg(test)]
mod fuzz;

pub use ask::{Answer, Ask, AskError, Wants};
pub use challenge::{Challenge, ChallengeError, challenges};
pub use credentials::{
    Credentials, CredentialsError, Login, Lookup, MAX_CREDENTIALS_BYTES, Secret,
};
pub use digest::{BadDigest, Digest};
pub use manifest::{
    Choice, Descriptor, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError,
    component_of_spin,
};
pub use pull::{Blob, Image, Pull, PullError};
pub use push::{Push, PushError};
pub use reference::{MAX_REFERENCE_BYTES, Reference, ReferenceError};
