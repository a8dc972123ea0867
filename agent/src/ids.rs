//! What things on a node are called: functions, the slots that assignments fill, content.
//! Taken from protobuf messages once, at the edge; typed from there on, so that the name of a
//! function is never passed for that of an assignment.

use std::fmt;

use hive_proto::v1;
use sha2::{Digest as _, Sha256};

/// `namespace/name` of a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId {
    pub namespace: String,
    pub name: String,
}

/// `namespace/name` of an assignment: a place that is filled by one instance of a function. When
/// an assignment changes or is made anew under the same name, the slot stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    pub namespace: String,
    pub name: String,
}

/// A SHA-256. Names an artifact, or one state of an assignment by the hash of its encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl FunctionId {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn of(assignment: &v1::Assignment) -> Self {
        Self::new(&assignment.namespace, &assignment.function)
    }
}

impl SlotId {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn of(assignment: &v1::Assignment) -> Self {
        Self::new(&assignment.namespace, &assignment.name)
    }
}

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// `None` unless these are 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// `None` unless this is what `Display` writes.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        let digest = Self(digest);
        (digest.to_string() == text).then_some(digest)
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Twelve digits: enough to tell any two apart in a log.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}
