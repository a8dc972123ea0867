//! One declared object: its key, its JSON body, and the parts of the body that everyone asks for.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use hive_manifests::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// A stored object. `body.metadata.resourceVersion` always equals [`Object::revision`].
#[derive(Serialize, Deserialize)]
pub struct Object {
    key: Key,
    revision: u64,
    body: Value,
    #[serde(skip)]
    encoded: OnceLock<Bytes>,
}

impl Object {
    pub fn new(key: Key, mut body: Value, revision: u64) -> Self {
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), revision.to_string().into());
        }
        Self {
            key,
            revision,
            body,
            encoded: OnceLock::new(),
        }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The whole object as JSON, metadata included.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The body as JSON text; encoded once, shared by every list and watch.
    pub fn encoded(&self) -> &Bytes {
        self.encoded
            .get_or_init(|| Bytes::from(self.body.to_string()))
    }

    /// Bytes of its JSON text, which is nearly all that it takes.
    pub fn size(&self) -> usize {
        self.encoded().len()
    }

    pub fn uid(&self) -> &str {
        self.body["metadata"]["uid"].as_str().unwrap_or_default()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.body["metadata"]["labels"].get(name)?.as_str()
    }

    pub fn is_being_deleted(&self) -> bool {
        self.body["metadata"]["deletionTimestamp"].is_string()
    }

    /// The body as one of the typed kinds.
    ///
    /// # Errors
    /// When the stored body does not fit the type: it passed validation by an older or newer version.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.body)
    }

    /// True when `body` differs from this object in its resourceVersion at most.
    pub(super) fn same_content(&self, body: &Value) -> bool {
        let (Some(a), Some(b)) = (self.body.as_object(), body.as_object()) else {
            return false;
        };
        a.len() == b.len()
            && a.iter().all(|(field, value)| match b.get(field) {
                None => false,
                Some(other) if field == "metadata" => same_metadata(value, other),
                Some(other) => value == other,
            })
    }
}

fn same_metadata(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let relevant = |map: &'_ serde_json::Map<String, Value>| {
        map.keys().filter(|k| *k != "resourceVersion").count()
    };
    relevant(a) == relevant(b)
        && a.iter()
            .filter(|(k, _)| *k != "resourceVersion")
            .all(|(k, v)| b.get(k) == Some(v))
}

impl Clone for Object {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            revision: self.revision,
            body: self.body.clone(),
            encoded: OnceLock::new(),
        }
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.revision == other.revision && self.body == other.body
    }
}

impl fmt::Debug for Object {
    // Bodies can hold secrets: only what names the object is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}
