//! One declared object: its key, its revision, and its content as text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes};
use hive_manifests::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Body, MalformedBody, Text};

/// Names an object. Ordered by resource, namespace, name: a list is a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub resource: Resource,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: Resource, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            resource,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.resource.plural())?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A stored object: its text, and the parsed form once somebody asked for it.
#[derive(Serialize, Deserialize)]
pub struct Object {
    key: Key,
    revision: u64,
    /// `metadata.resourceVersion` in it always equals `revision`.
    text: Text,
    #[serde(skip)]
    parsed: OnceLock<Box<Value>>,
}

impl Object {
    pub fn new(key: Key, body: impl Into<Body>, revision: u64) -> Self {
        Self {
            key,
            revision,
            text: body.into().0.at(revision),
            parsed: OnceLock::new(),
        }
    }

    /// The same content at another revision.
    #[must_use]
    pub fn at(&self, revision: u64) -> Self {
        Self {
            key: self.key.clone(),
            revision,
            text: self.text.at(revision),
            parsed: OnceLock::new(),
        }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The whole object as JSON, metadata included. Parsed at the first call and kept as long as
    /// the object is current, at some five times the size of its text: for what is read again and
    /// again. Whoever looks at many objects once takes [`Object::to_value`].
    pub fn body(&self) -> &Value {
        self.parsed.get_or_init(|| Box::new(self.text.to_value()))
    }

    /// The whole object as JSON, parsed for this caller unless it was already.
    pub fn to_value(&self) -> Cow<'_, Value> {
        match self.parsed.get() {
            Some(parsed) => Cow::Borrowed(parsed),
            None => Cow::Owned(self.text.to_value()),
        }
    }

    /// The object as JSON text with sorted keys, shared by every list and watch.
    pub fn encoded(&self) -> &Bytes {
        self.text.bytes()
    }

    /// Bytes of its JSON text, which is nearly all that it takes.
    pub fn size(&self) -> usize {
        self.encoded().len()
    }

    pub fn uid(&self) -> &str {
        self.text.uid()
    }

    pub fn labels(&self) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
        self.text.labels()
    }

    pub fn is_being_deleted(&self) -> bool {
        self.text.is_being_deleted()
    }

    /// The body as one of the typed kinds.
    ///
    /// # Errors
    /// When the stored body does not fit the type: it passed validation by an older or newer version.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.encoded())
    }

    /// True when `body` differs from this object in its resourceVersion at most.
    pub(super) fn same_content(&self, body: &Body) -> bool {
        self.text.same_content(&body.0)
    }

    /// For the history, which nobody reads field by field: the same without its parsed form.
    pub(super) fn without_parsed(this: Arc<Self>) -> Arc<Self> {
        match this.parsed.get() {
            Some(_) => Arc::new(Self::clone(&this)),
            None => this,
        }
    }

    /// Key and revision as JSON, then the text.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        serde_json::to_writer(&mut *out, &(&self.key, self.revision))
            .expect("names and numbers have a JSON form, and a Vec takes any write");
        let length = out.len() - start - 4;
        let length = u32::try_from(length).expect("an object is far smaller than 4 GiB");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.text.put(out);
    }

    pub(super) fn get(mut input: &[u8]) -> Result<Self, MalformedObject> {
        if input.len() < 4 {
            return Err(MalformedBody::Short.into());
        }
        let length = input.get_u32_le() as usize;
        if input.len() < length {
            return Err(MalformedBody::Short.into());
        }
        let (head, text) = input.split_at(length);
        let (key, revision) = serde_json::from_slice(head)?;
        Ok(Self {
            key,
            revision,
            text: Text::get(Bytes::copy_from_slice(text))?,
            parsed: OnceLock::new(),
        })
    }
}

/// Bytes that are no object.
#[derive(Debug, thiserror::Error)]
pub enum MalformedObject {
    #[error("the name of an object")]
    Key(#[from] serde_json::Error),
    #[error("the content of an object")]
    Body(#[from] MalformedBody),
}

impl Clone for Object {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            revision: self.revision,
            text: self.text.clone(),
            parsed: OnceLock::new(),
        }
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.revision == other.revision && self.text == other.text
    }
}

impl fmt::Debug for Object {
    // Bodies can hold secrets: only what names the object is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}
