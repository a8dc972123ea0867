//! Objects of Kubernetes' own kinds as its Go clients send them: protobuf in a small envelope.
//!
//! `kubectl create` and controllers built on client-go send core kinds this way and no other. Bytes
//! become the JSON that everything else here reads; answers are always JSON, which those clients
//! accept. Hive's own kinds have no protobuf form, in Kubernetes neither.

mod fields;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Value, json};

use fields::{Field, Form, QUANTITY, UNKNOWN, message_of};

/// What every encoded object begins with.
const MAGIC: &[u8] = b"k8s\0";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    #[error("the body does not begin as Kubernetes' protobuf does")]
    NoEnvelope,
    #[error("the body is cut off or damaged")]
    Malformed,
    #[error("{0} can only be sent as application/json")]
    UnknownKind(String),
}

/// The object in an envelope, as JSON with its apiVersion and kind.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let bytes = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let envelope = message(UNKNOWN, bytes)?;
    let text = |field: &str| {
        envelope
            .pointer(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (api_version, kind) = (text("/typeMeta/apiVersion"), text("/typeMeta/kind"));
    let fields = message_of(api_version, kind)
        .ok_or_else(|| ProtobufError::UnknownKind(format!("{api_version} {kind}")))?;
    // Bytes are base64 in JSON, those of the envelope too.
    let raw = BASE64
        .decode(text("/raw"))
        .map_err(|_| ProtobufError::Malformed)?;
    let mut object = message(fields, &raw)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

/// Go leaves out of JSON what is empty, but not of protobuf: here both end as JSON without it.
fn message(fields: &[Field], mut bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).map_err(|_| ProtobufError::Malformed)?;
        let content = Content::read(wire, &mut bytes)?;
        let Some(field) = fields.iter().find(|field| field.number == number) else {
            continue;
        };
        match field.form {
            Form::TextMap | Form::BytesMap | Form::QuantityMap => {
                let (name, value) = entry(field, &content)?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                map[name] = value;
            }
            _ => {
                let Some(value) = scalar_or_message(field, &content)? else {
                    continue;
                };
                if field.repeated {
                    let list = object.entry(field.name).or_insert_with(|| json!([]));
                    if let Some(list) = list.as_array_mut() {
                        list.push(value);
                    }
                } else {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(Value::Object(object))
}

/// What a field carries on the wire.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Content<'a> {
    fn read(wire: WireType, bytes: &mut &'a [u8]) -> Result<Self, ProtobufError> {
        match wire {
            WireType::Varint => decode_varint(bytes)
                .map(Self::Number)
                .map_err(|_| ProtobufError::Malformed),
            WireType::SixtyFourBit => take(bytes, 8).map(Self::Bytes),
            WireType::ThirtyTwoBit => take(bytes, 4).map(Self::Bytes),
            WireType::LengthDelimited => {
                let length = decode_varint(bytes).map_err(|_| ProtobufError::Malformed)?;
                let length = usize::try_from(length).map_err(|_| ProtobufError::Malformed)?;
                take(bytes, length).map(Self::Bytes)
            }
            // Groups are older than Kubernetes.
            WireType::StartGroup | WireType::EndGroup => Err(ProtobufError::Malformed),
        }
    }

    fn bytes(&self) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(ProtobufError::Malformed),
        }
    }

    fn text(&self) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ProtobufError::Malformed)
    }

    fn number(&self) -> Result<i64, ProtobufError> {
        match self {
            // Two's complement, as int32 and int64 are written.
            Self::Number(number) => Ok(*number as i64),
            Self::Bytes(_) => Err(ProtobufError::Malformed),
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], ProtobufError> {
    let (taken, rest) = bytes
        .split_at_checked(length)
        .ok_or(ProtobufError::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

/// `None` for what JSON leaves out.
fn scalar_or_message(field: &Field, content: &Content) -> Result<Option<Value>, ProtobufError> {
    let value = match field.form {
        Form::Text => json!(content.text()?),
        Form::Bytes => json!(BASE64.encode(content.bytes()?)),
        Form::Number => json!(content.number()?),
        Form::Flag => json!(content.number()? != 0),
        Form::Time => return Ok(time(content.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?.map(Value::from)),
        Form::MicroTime => {
            return Ok(time(content.bytes()?, "%Y-%m-%dT%H:%M:%S.%6fZ")?.map(Value::from));
        }
        Form::Message(fields) => message(fields, content.bytes()?)?,
        Form::TextMap | Form::BytesMap | Form::QuantityMap => {
            return Err(ProtobufError::Malformed);
        }
    };
    let is_empty = match &value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(flag) => !flag,
        Value::Object(fields) => fields.is_empty(),
        Value::Null | Value::Array(_) => false,
    };
    // An entry of a list stays, or the ones after it would move.
    Ok((field.repeated || !is_empty).then_some(value))
}

fn entry(field: &Field, content: &Content) -> Result<(String, Value), ProtobufError> {
    const KEY: u32 = 1;
    const VALUE: u32 = 2;
    let (mut key, mut value) = (String::new(), json!(""));
    let mut bytes = content.bytes()?;
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).map_err(|_| ProtobufError::Malformed)?;
        let content = Content::read(wire, &mut bytes)?;
        match (number, field.form) {
            (KEY, _) => key = content.text()?.to_owned(),
            (VALUE, Form::BytesMap) => value = json!(BASE64.encode(content.bytes()?)),
            (VALUE, Form::QuantityMap) => {
                let quantity = message(QUANTITY, content.bytes()?)?;
                value = quantity.get("text").cloned().unwrap_or_else(|| json!("0"));
            }
            (VALUE, _) => value = json!(content.text()?),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Seconds and nanoseconds; both absent is no time at all.
fn time(mut bytes: &[u8], format: &str) -> Result<Option<String>, ProtobufError> {
    const SECONDS: u32 = 1;
    const NANOS: u32 = 2;
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).map_err(|_| ProtobufError::Malformed)?;
        let content = Content::read(wire, &mut bytes)?;
        match number {
            SECONDS => seconds = content.number()?,
            NANOS => nanos = content.number()?,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Malformed)?;
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed)?;
    Ok(Some(time.strftime(format).to_string()))
}

#[cfg(test)]
mod tests;
