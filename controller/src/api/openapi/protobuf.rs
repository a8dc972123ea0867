//! Version 2 in its protobuf form (gnostic's `openapi.v2.Document`), which clients up to
//! Kubernetes 1.2x ask for and accept nothing else.
//!
//! Written from the JSON form, field by field; what is not written there means its default.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// Fields one after the other, as protobuf has them.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        encode_key(number, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u32, message: &Message) {
        self.bytes(number, &message.0);
    }

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, value: &Value) {
        for text in value.as_array().into_iter().flatten() {
            self.text(number, text);
        }
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value == &Value::Bool(true) {
            encode_key(number, WireType::Varint, &mut self.0);
            encode_varint(1, &mut self.0);
        }
    }

    fn number(&mut self, number: u32, value: &Value) {
        if let Some(integer) = value.as_i64() {
            encode_key(number, WireType::Varint, &mut self.0);
            encode_varint(integer as u64, &mut self.0);
        }
    }

    fn double(&mut self, number: u32, value: &Value) {
        if let Some(double) = value.as_f64() {
            encode_key(number, WireType::SixtyFourBit, &mut self.0);
            self.0.extend_from_slice(&double.to_le_bytes());
        }
    }

    /// A value of any form: as YAML, of which JSON is a part.
    fn any(&mut self, number: u32, value: &Value) {
        const YAML: u32 = 2;
        let mut any = Message::default();
        any.bytes(YAML, value.to_string().as_bytes());
        self.message(number, &any);
    }

    /// Entries of a map: name and value.
    fn named(&mut self, number: u32, fields: &Value, write: impl Fn(&Value) -> Message) {
        for (name, value) in fields.as_object().into_iter().flatten() {
            self.entry(number, name, &write(value));
        }
    }

    fn entry(&mut self, number: u32, name: &str, value: &Message) {
        const NAME: u32 = 1;
        const VALUE: u32 = 2;
        let mut entry = Message::default();
        entry.bytes(NAME, name.as_bytes());
        entry.message(VALUE, value);
        self.message(number, &entry);
    }

    fn extensions(&mut self, number: u32, fields: &Map<String, Value>) {
        const YAML: u32 = 2;
        for (name, value) in fields.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Message::default();
            any.bytes(YAML, value.to_string().as_bytes());
            self.entry(number, name, &any);
        }
    }
}

/// A message of one field.
fn wrapped(number: u32, inner: &Message) -> Message {
    let mut outer = Message::default();
    outer.message(number, inner);
    outer
}

pub(super) fn document(swagger: &Value) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, &swagger["info"]["title"]);
    info.text(2, &swagger["info"]["version"]);
    let mut paths = Message::default();
    paths.named(2, &swagger["paths"], path_item);
    let mut definitions = Message::default();
    definitions.named(1, &swagger["definitions"], schema);
    let mut document = Message::default();
    document.text(1, &swagger["swagger"]);
    document.message(2, &info);
    document.message(8, &paths);
    document.message(9, &definitions);
    document.0
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (number, method) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ] {
        if let Some(fields) = item[method].as_object() {
            message.message(number, &operation(fields));
        }
    }
    parameters(&mut message, 9, &item["parameters"]);
    message
}

fn operation(fields: &Map<String, Value>) -> Message {
    let field = |name: &str| fields.get(name).unwrap_or(&Value::Null);
    let mut responses = Message::default();
    responses.named(1, field("responses"), |response| {
        let mut message = Message::default();
        message.text(1, &response["description"]);
        if !response["schema"].is_null() {
            message.message(2, &wrapped(1, &schema(&response["schema"])));
        }
        wrapped(1, &message)
    });
    let mut message = Message::default();
    message.texts(6, field("produces"));
    message.texts(7, field("consumes"));
    parameters(&mut message, 8, field("parameters"));
    message.message(9, &responses);
    message.extensions(13, fields);
    message
}

fn parameters(message: &mut Message, number: u32, parameters: &Value) {
    /// Of a `ParametersItem`: a parameter, not a reference to one.
    const PARAMETER: u32 = 1;
    for parameter in parameters.as_array().into_iter().flatten() {
        let described = match parameter["in"].as_str() {
            Some("body") => {
                let mut body = Message::default();
                body.text(2, &parameter["name"]);
                body.text(3, &parameter["in"]);
                body.flag(4, &parameter["required"]);
                body.message(5, &schema(&parameter["schema"]));
                wrapped(1, &body)
            }
            place => {
                // The numbers of a parameter's later fields differ with where it is.
                let (form, kind) = if place == Some("path") {
                    (4, 5)
                } else {
                    (3, 6)
                };
                let mut simple = Message::default();
                simple.flag(1, &parameter["required"]);
                simple.text(2, &parameter["in"]);
                simple.text(3, &parameter["description"]);
                simple.text(4, &parameter["name"]);
                simple.text(kind, &parameter["type"]);
                wrapped(2, &wrapped(form, &simple))
            }
        };
        message.message(number, &wrapped(PARAMETER, &described));
    }
}

fn schema(schema_of: &Value) -> Message {
    let mut message = Message::default();
    let Some(fields) = schema_of.as_object() else {
        return message;
    };
    for (name, value) in fields {
        match name.as_str() {
            "$ref" => message.text(1, value),
            "format" => message.text(2, value),
            "title" => message.text(3, value),
            "description" => message.text(4, value),
            "default" => message.any(5, value),
            "multipleOf" => message.double(6, value),
            "maximum" => message.double(7, value),
            "exclusiveMaximum" => message.flag(8, value),
            "minimum" => message.double(9, value),
            "exclusiveMinimum" => message.flag(10, value),
            "maxLength" => message.number(11, value),
            "minLength" => message.number(12, value),
            "pattern" => message.text(13, value),
            "maxItems" => message.number(14, value),
            "minItems" => message.number(15, value),
            "uniqueItems" => message.flag(16, value),
            "maxProperties" => message.number(17, value),
            "minProperties" => message.number(18, value),
            "required" => message.texts(19, value),
            "enum" => {
                for choice in value.as_array().into_iter().flatten() {
                    message.any(20, choice);
                }
            }
            "additionalProperties" => {
                let mut item = Message::default();
                match value {
                    Value::Bool(_) => item.flag(2, value),
                    _ => item.message(1, &schema(value)),
                }
                message.message(21, &item);
            }
            "type" => {
                let mut kinds = Message::default();
                kinds.text(1, value);
                message.message(22, &kinds);
            }
            "items" => message.message(23, &wrapped(1, &schema(value))),
            "properties" => {
                let mut properties = Message::default();
                properties.named(1, value, schema);
                message.message(25, &properties);
            }
            _ => {}
        }
    }
    message.extensions(31, fields);
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prost::encoding::{decode_key, decode_varint};
    use serde_json::json;

    /// The content of the fields with this number.
    fn fields(mut bytes: &[u8], wanted: u32) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).unwrap();
            let content = match wire {
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).unwrap() as usize;
                    let (content, rest) = bytes.split_at(length);
                    bytes = rest;
                    content.to_vec()
                }
                WireType::SixtyFourBit => {
                    let (content, rest) = bytes.split_at(8);
                    bytes = rest;
                    content.to_vec()
                }
                _ => decode_varint(&mut bytes).unwrap().to_le_bytes().to_vec(),
            };
            if number == wanted {
                found.push(content);
            }
        }
        found
    }

    #[test]
    fn a_schema_reads_as_gnostic_numbers_it() {
        let bytes = schema(&json!({
            "type": "object",
            "description": "d",
            "properties": { "n": { "type": "integer", "minimum": 1.0, "maxLength": 3 } },
            "required": ["n"],
            "x-kubernetes-group-version-kind": [{ "kind": "K" }],
        }))
        .0;
        assert_eq!(fields(&bytes, 4), [b"d"]);
        assert_eq!(fields(&bytes, 19), [b"n"]);
        assert_eq!(fields(&fields(&bytes, 22)[0], 1), [b"object"]);
        let entry = fields(&fields(&bytes, 25)[0], 1);
        assert_eq!(fields(&entry[0], 1), [b"n"]);
        let inner = &fields(&entry[0], 2)[0];
        assert_eq!(fields(inner, 9), [1f64.to_le_bytes()]);
        assert_eq!(fields(inner, 11), [3u64.to_le_bytes()]);
        let extension = &fields(&bytes, 31)[0];
        let yaml = &fields(&fields(extension, 2)[0], 2)[0];
        assert_eq!(yaml, br#"[{"kind":"K"}]"#);
    }

    #[test]
    fn an_option_is_found_where_kubectl_looks_for_it() {
        let document = document(&json!({
            "swagger": "2.0",
            "paths": { "/p": { "patch": {
                "parameters": [{ "name": "dryRun", "in": "query", "type": "string" }],
                "responses": {},
            } } },
        }));
        let entry = &fields(&fields(&document, 8)[0], 2)[0];
        let patch = &fields(&fields(entry, 2)[0], 8)[0];
        // ParametersItem, Parameter, NonBodyParameter, QueryParameterSubSchema.
        let mut bytes = fields(patch, 8)[0].clone();
        for number in [1, 2, 3] {
            bytes = fields(&bytes, number)[0].clone();
        }
        assert_eq!(fields(&bytes, 4), [b"dryRun"]);
    }
}
