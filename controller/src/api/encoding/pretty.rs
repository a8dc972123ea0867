//! JSON with one value a line, made of JSON without a look at what it says: pieces of the text go
//! in as they come.

/// Spaces a level, as Kubernetes has it.
const STEP: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Indented {
    /// What was made so far.
    pub out: Vec<u8>,
    depth: usize,
    within: Within,
    /// After a bracket: whether there is anything in it is not known yet.
    opened: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    Text,
    /// In a text, after a backslash.
    Escape,
}

impl Indented {
    pub fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            self.take(*byte);
        }
    }

    fn take(&mut self, byte: u8) {
        match (self.within, byte) {
            (Within::Escape, _) => self.within = Within::Text,
            (Within::Text, b'\\') => self.within = Within::Escape,
            (Within::Text, b'"') => self.within = Within::Nothing,
            (Within::Text, _) => {}
            (Within::Nothing, b' ' | b'\n' | b'\r' | b'\t') => return,
            (Within::Nothing, b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                if !std::mem::take(&mut self.opened) {
                    self.line();
                }
            }
            (Within::Nothing, b',') => {
                self.out.push(b',');
                return self.line();
            }
            (Within::Nothing, b':') => return self.out.extend(b": "),
            (Within::Nothing, _) => {
                if std::mem::take(&mut self.opened) {
                    self.line();
                }
                match byte {
                    b'{' | b'[' => {
                        self.depth += 1;
                        self.opened = true;
                    }
                    b'"' => self.within = Within::Text,
                    _ => {}
                }
            }
        }
        self.out.push(byte);
    }

    fn line(&mut self) {
        self.out.push(b'\n');
        self.out
            .extend(std::iter::repeat_n(b' ', STEP * self.depth));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\\\\"{}\\[\\],: ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn indented(text: &str, pieces: usize) -> String {
        let mut made = Indented::default();
        for piece in text.as_bytes().chunks(pieces) {
            made.push(piece);
        }
        String::from_utf8(made.out).unwrap()
    }

    #[test]
    fn as_people_know_it() {
        let value = json!({ "a": [1, { "b": "x, {y}: \\\"" }], "c": {}, "d": [] });
        assert_eq!(
            indented(&value.to_string(), 3),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x, {y}: \\\\\\\"\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}"
        );
    }

    proptest! {
        #[test]
        fn it_says_the_same_in_the_form_that_everybody_makes(value in any_json(), pieces in 1_usize..9) {
            let wanted = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(&indented(&value.to_string(), pieces), &wanted);
            // Also of what has spaces already.
            prop_assert_eq!(&indented(&wanted, pieces), &wanted);
        }
    }
}
