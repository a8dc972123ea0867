//! Reads manifests: YAML or JSON text of several documents, with the line of every field.
//!
//! Text flows in; JSON values flow out, each with a map from field paths to lines, so that an error
//! reads `function.yaml:7: spec.replica: unknown field`. Size, depth, the number of nodes and what
//! aliases may expand to are bounded before memory is spent; duplicate keys are errors.

mod tree;

use std::io::Read;

use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError, Options};

use crate::{FieldError, FieldPath};
use tree::{Lines, Placed, Unplaced};

/// Manifests are written by people or templates: the largest of Kubernetes' own is 6 MB. What is
/// larger is a component or a disk image by mistake, and must be refused before it is parsed.
pub const MAX_MANIFEST_BYTES: usize = 16 * 1024 * 1024;

/// One function each for the largest swarm that is tested.
const MAX_DOCUMENTS: usize = 10_000;
/// Every document full of fields; what is built of them stays below 200 MiB.
const MAX_NODES: usize = 1_000_000;
/// Kubernetes' own types need 20. A level takes up to 20 KiB of stack in an unoptimised build, and
/// threads have 2 MiB.
const MAX_DEPTH: usize = 50;
/// Events that aliases may repeat in all: enough to share a block of settings between thousands of
/// documents, far too little for a "billion laughs".
const MAX_ALIASED_EVENTS: usize = 200_000;

/// One document of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub value: Value,
    /// The file it is from, or "stdin".
    pub source: String,
    /// Where it begins, from 1.
    pub line: usize,
    lines: Lines,
}

/// Why text cannot be read as manifests.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error(
        "{file}: larger than {} MiB, the most that is read of a manifest; a component is named by spec.artifact.path, not written into it",
        MAX_MANIFEST_BYTES / (1024 * 1024)
    )]
    TooLarge { file: String },
    #[error(
        "{file}: not text in UTF-8; is it a component? Name it by spec.artifact.path of a manifest"
    )]
    NotText { file: String },
    #[error("{file}:{line}: {message}")]
    Syntax {
        file: String,
        line: usize,
        message: String,
    },
    #[error("{file}: cannot be read")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
}

impl Document {
    /// One that was made from another text: where each of its fields stands there.
    pub fn placed(value: Value, source: &str, places: &[(FieldPath, usize)]) -> Self {
        Self {
            value,
            source: source.to_owned(),
            line: 1,
            lines: Lines::of(places),
        }
    }

    /// The line of a field, or of the nearest thing around it that is there: a missing field is
    /// shown where it should be. `None` when the text did not say (escapes that only JSON has).
    pub fn line_of(&self, path: &FieldPath) -> Option<usize> {
        self.lines.line_of(path.segments())
    }

    /// An error as people read it: `function.yaml:7: spec.replica: unknown field; did you mean
    /// "replicas"?`.
    pub fn locate(&self, error: &FieldError) -> String {
        let line = self.line_of(&error.path).unwrap_or(self.line);
        format!("{}:{line}: {error}", self.source)
    }
}

/// Reads a manifest from an open file, of which at most [`MAX_MANIFEST_BYTES`] are taken.
pub fn read(reader: impl Read, source: &str) -> Result<Vec<Document>, DocumentError> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_MANIFEST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| DocumentError::Read {
            file: source.to_owned(),
            source: error,
        })?;
    check_size(bytes.len(), source)?;
    let text = String::from_utf8(bytes).map_err(|_| DocumentError::NotText {
        file: source.to_owned(),
    })?;
    parse(&text, source)
}

/// The documents of a manifest in order; empty ones are left out and Lists taken apart.
pub fn parse(text: &str, source: &str) -> Result<Vec<Document>, DocumentError> {
    check_size(text.len(), source)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parts = match from_yaml(text) {
        Ok(parts) => parts,
        // Not all JSON is YAML (surrogate escapes, objects in a row), and where both fail, the
        // words of the JSON parser are the ones that fit.
        Err(_) if text.trim_start().starts_with('{') => from_json(text, source)?,
        Err(error) => return Err(syntax(&error, source)),
    };
    let mut documents = Vec::with_capacity(parts.len());
    for (value, lines) in parts {
        for (value, lines) in items_of_list(value, lines) {
            documents.push(Document {
                line: lines.line().unwrap_or(1),
                source: source.to_owned(),
                value,
                lines,
            });
        }
    }
    Ok(documents)
}

fn check_size(size: usize, source: &str) -> Result<(), DocumentError> {
    if size > MAX_MANIFEST_BYTES {
        return Err(DocumentError::TooLarge {
            file: source.to_owned(),
        });
    }
    Ok(())
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            // A node begins, and a list or an object ends too.
            max_events: 3 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_total_scalar_bytes: MAX_MANIFEST_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED_EVENTS,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // "no" is Norway and "on" a switch's name: only true and false are truth values.
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    }
}

fn from_yaml(text: &str) -> Result<Vec<(Value, Lines)>, YamlError> {
    let trees: Vec<Placed> = serde_saphyr::from_multiple_with_options(text, options())?;
    Ok(trees
        .into_iter()
        .map(|tree| tree.value.split(tree::line(tree.referenced)))
        .collect())
}

fn from_json(text: &str, source: &str) -> Result<Vec<(Value, Lines)>, DocumentError> {
    serde_json::Deserializer::from_str(text)
        .into_iter::<Unplaced>()
        .map(|tree| tree.map(|tree| tree.split(0)))
        .collect::<Result<_, _>>()
        .map_err(|error| {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            DocumentError::Syntax {
                file: source.to_owned(),
                line: error.line().max(1),
                message: message.strip_suffix(&place).unwrap_or(&message).to_owned(),
            }
        })
}

fn syntax(error: &YamlError, source: &str) -> DocumentError {
    let line = error.location().map_or(1, |l| l.line().max(1));
    DocumentError::Syntax {
        file: source.to_owned(),
        line: usize::try_from(line).unwrap_or(usize::MAX),
        message: explain(error),
    }
}

/// The parser's message without its place, and in plain words where people meet it often.
fn explain(error: &YamlError) -> String {
    match error.without_snippet() {
        YamlError::AliasError { error, .. } => explain(error),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            format!("duplicate key {key:?}")
        }
        YamlError::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => {
                format!("nested more than {MAX_DEPTH} levels deep")
            }
            BudgetBreach::Documents { .. } => {
                format!("more than {MAX_DOCUMENTS} documents; split the manifest")
            }
            BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
                format!("more than {MAX_NODES} values; split the manifest")
            }
            other => format!("more than is read of one manifest: {other:?}"),
        },
        YamlError::AliasReplayLimitExceeded { .. } => format!(
            "aliases repeat more than {MAX_ALIASED_EVENTS} values; write them out where needed"
        ),
        YamlError::Message { msg, .. } | YamlError::ExternalMessage { msg, .. } => msg.clone(),
        YamlError::NonFiniteFloat { value, .. } => {
            format!("{value} is not a number that a manifest can hold; put it in quotes")
        }
        other => {
            let text = other.to_string();
            let place = other
                .location()
                .map(|l| format!(" at line {}, column {}", l.line(), l.column()));
            place
                .and_then(|place| text.strip_suffix(&place))
                .unwrap_or(&text)
                .to_owned()
        }
    }
}

/// What `hivectl get -o yaml` prints of several objects is applied as those objects.
fn items_of_list(mut value: Value, mut lines: Lines) -> Vec<(Value, Lines)> {
    if value["apiVersion"] == "v1"
        && value["kind"] == "List"
        && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take)
    {
        return items
            .into_iter()
            .enumerate()
            .map(|(index, item)| (item, lines.take_item(index)))
            .collect();
    }
    vec![(value, lines)]
}
