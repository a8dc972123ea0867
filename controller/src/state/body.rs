//! An object's content as canonical JSON text, and where in it stands what everyone asks for.
//!
//! A body is encoded once, by whoever proposes it; log, network, snapshots and clients carry those
//! bytes. A replica only puts the resourceVersion in, and parses no JSON to do it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const VERSION_FIELD: &str = "resourceVersion";

/// Bytes that are no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBody {
    #[error("ends too early")]
    Short,
    #[error("is not UTF-8")]
    NotText,
    #[error("names parts that are outside of it")]
    Parts,
}

/// The content of an object, complete but for `metadata.resourceVersion`. Keys are sorted, so equal
/// content has equal bytes. Cloning shares them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Body(pub(super) Text);

impl Body {
    pub fn to_value(&self) -> Value {
        self.0.to_value()
    }

    pub(super) fn put(&self, out: &mut impl BufMut) {
        self.0.put(out);
    }

    pub(super) fn get(input: Bytes) -> Result<Self, MalformedBody> {
        Text::get(input).map(Self)
    }

    /// True if the text is JSON, which only its author can make wrong.
    pub(super) fn is_json(&self) -> bool {
        serde_json::from_slice::<serde::de::IgnoredAny>(&self.0.bytes).is_ok()
    }

    /// Bytes of its JSON text.
    pub(super) fn len(&self) -> usize {
        self.0.bytes.len()
    }
}

impl From<&Value> for Body {
    fn from(value: &Value) -> Self {
        Self(Text::encode(value))
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

// Bodies can hold secrets: only their size is printed.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.bytes.len())
    }
}

/// A part of a text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn of(start: usize, end: usize) -> Self {
        Self {
            start: offset(start),
            length: offset(end - start),
        }
    }

    fn start(self) -> usize {
        self.start as usize
    }

    fn end(self) -> usize {
        self.start as usize + self.length as usize
    }

    /// Where it is after `removed` bytes at `at` gave way to `added` others.
    fn moved(self, at: u32, removed: u32, added: u32) -> Self {
        match self.start >= at + removed {
            true => Self {
                start: self.start - removed + added,
                ..self
            },
            false => self,
        }
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("an object is far smaller than 4 GiB")
}

/// Where things stand in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    /// The resourceVersion with its key and comma: of no length where it is yet to be put in.
    /// `None` in a text that has no metadata.
    version: Option<Span>,
    /// Without its quotes.
    uid: Span,
    labels: Span,
    is_being_deleted: bool,
}

/// Stands for no position, in the binary form.
const NOWHERE: u32 = u32::MAX;

/// Six numbers and a flag.
const LAYOUT_BYTES: usize = 25;

/// JSON text and its layout.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Text {
    bytes: Bytes,
    layout: Layout,
}

impl Text {
    fn encode(value: &Value) -> Self {
        let mut out = Vec::with_capacity(1024);
        let mut layout = Layout::default();
        match value {
            Value::Object(fields) => {
                out.push(b'{');
                for (name, value) in fields {
                    open_field(&mut out, name);
                    match value {
                        Value::Object(metadata) if name == "metadata" => {
                            layout = encode_metadata(&mut out, metadata);
                        }
                        _ => encode(&mut out, value),
                    }
                }
                out.push(b'}');
            }
            _ => encode(&mut out, value),
        }
        out.shrink_to_fit();
        Self {
            bytes: out.into(),
            layout,
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn part(&self, span: Span) -> &str {
        self.bytes
            .get(span.start()..span.end())
            .and_then(|part| std::str::from_utf8(part).ok())
            .unwrap_or_default()
    }

    /// A text that does not parse was never checked by its author; it shows as nothing rather than
    /// taking this replica down.
    pub(super) fn to_value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &str {
        self.part(self.layout.uid)
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        self.layout.is_being_deleted
    }

    pub(super) fn labels(&self) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
        #[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
        struct Shared<'a>(#[serde(borrow)] Cow<'a, str>);

        let text = self.part(self.layout.labels);
        let labels: BTreeMap<Shared<'_>, Shared<'_>> =
            serde_json::from_str(text).unwrap_or_default();
        labels.into_iter().map(|(k, v)| (k.0, v.0)).collect()
    }

    /// The same with this resourceVersion.
    pub(super) fn at(&self, revision: u64) -> Self {
        let Some(version) = self.layout.version else {
            return self.clone();
        };
        let before = &self.bytes[..version.start()];
        let after = &self.bytes[version.end()..];
        let follows = after.first() == Some(&b'"');
        let leads = !follows && before.last() != Some(&b'{');
        let field = format!(
            "{}\"{VERSION_FIELD}\":\"{revision}\"{}",
            if leads { "," } else { "" },
            if follows { "," } else { "" },
        );
        let bytes = [before, field.as_bytes(), after].concat();
        let moved = |span: Span| span.moved(version.start, version.length, offset(field.len()));
        Self {
            bytes: bytes.into(),
            layout: Layout {
                version: Some(Span {
                    start: version.start,
                    length: offset(field.len()),
                }),
                // An empty part may stand anywhere.
                uid: moved(self.layout.uid),
                labels: moved(self.layout.labels),
                is_being_deleted: self.layout.is_being_deleted,
            },
        }
    }

    /// True when they differ in their resourceVersions at most.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        let parts = |text: &Self| {
            let version = text.layout.version.unwrap_or_default();
            let (start, end) = (version.start(), version.end());
            (text.bytes.slice(..start), text.bytes.slice(end..))
        };
        self.layout.version.is_some() == other.layout.version.is_some()
            && parts(self) == parts(other)
    }

    pub(super) fn put(&self, out: &mut impl BufMut) {
        let Layout {
            version,
            uid,
            labels,
            is_being_deleted,
        } = self.layout;
        let version = version.unwrap_or(Span {
            start: NOWHERE,
            length: 0,
        });
        for span in [version, uid, labels] {
            out.put_u32_le(span.start);
            out.put_u32_le(span.length);
        }
        out.put_u8(is_being_deleted.into());
        out.put_slice(&self.bytes);
    }

    /// Takes all of `input`, without copying it.
    pub(super) fn get(mut input: Bytes) -> Result<Self, MalformedBody> {
        if input.len() < LAYOUT_BYTES {
            return Err(MalformedBody::Short);
        }
        let mut span = || Span {
            start: input.get_u32_le(),
            length: input.get_u32_le(),
        };
        let (version, uid, labels) = (span(), span(), span());
        let layout = Layout {
            version: (version.start != NOWHERE).then_some(version),
            uid,
            labels,
            is_being_deleted: input.get_u8() != 0,
        };
        Self::of(input, layout)
    }

    fn of(bytes: Bytes, layout: Layout) -> Result<Self, MalformedBody> {
        let text = std::str::from_utf8(&bytes).map_err(|_| MalformedBody::NotText)?;
        let inside = |span: Span| {
            let end = span.start.checked_add(span.length);
            end.is_some() && text.get(span.start()..span.end()).is_some()
        };
        let apart = |span: Span| {
            layout.version.is_none_or(|version| {
                span.start >= version.start + version.length || span.end() <= version.start()
            })
        };
        let is_possible = layout.version.is_none_or(inside)
            && [layout.uid, layout.labels]
                .into_iter()
                .all(|span| inside(span) && apart(span));
        match is_possible {
            true => Ok(Self { bytes, layout }),
            false => Err(MalformedBody::Parts),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct TextParts<'a> {
    layout: Layout,
    json: Cow<'a, str>,
}

// For an answer to another controller; snapshots and the log use the binary form.
impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = std::str::from_utf8(&self.bytes).map_err(serde::ser::Error::custom)?;
        let layout = self.layout;
        TextParts {
            layout,
            json: json.into(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = TextParts::deserialize(deserializer)?;
        Self::of(parts.json.into_owned().into(), parts.layout).map_err(serde::de::Error::custom)
    }
}

fn encode_metadata(out: &mut Vec<u8>, metadata: &serde_json::Map<String, Value>) -> Layout {
    out.push(b'{');
    let mut layout = Layout::default();
    let mut version = None;
    for (name, value) in metadata {
        if name == VERSION_FIELD {
            continue;
        }
        if name.as_str() > VERSION_FIELD && version.is_none() {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            version = Some(out.len());
            encode_key(out, name);
        } else {
            open_field(out, name);
        }
        let start = out.len();
        encode(out, value);
        match (name.as_str(), value) {
            ("uid", Value::String(uid)) if out.len() - start == uid.len() + 2 => {
                layout.uid = Span::of(start + 1, out.len() - 1);
            }
            ("labels", _) => layout.labels = Span::of(start, out.len()),
            ("deletionTimestamp", Value::String(_)) => layout.is_being_deleted = true,
            _ => {}
        }
    }
    let at = version.unwrap_or(out.len());
    layout.version = Some(Span::of(at, at));
    out.push(b'}');
    layout
}

fn open_field(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    encode_key(out, name);
}

fn encode_key(out: &mut Vec<u8>, name: &str) {
    encode(out, name);
    out.push(b':');
}

fn encode<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("JSON has a text, and a Vec takes any write");
}

#[cfg(test)]
mod tests;
