//! Who owns which fields of an object: `metadata.managedFields`, read and written.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::field_set::{BadFields, FieldSet};

/// Entries of updates that an object keeps apart; more are summed up, the oldest first. Kubernetes'
/// own number.
pub const MAX_UPDATE_ENTRIES: usize = 10;

/// Who the summed up updates are said to be by, as in Kubernetes.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager came to own fields. Its order is that in which entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes, how, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    pub operation: Operation,
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// What one manager owns by one kind of operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// RFC 3339 in UTC with whole seconds, so that texts sort as times do. May be empty.
    pub time: String,
    pub fields: FieldSet,
}

/// As conflicts name it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// Why JSON is not a list of managers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    #[error("managedFields is not a list of objects")]
    NotAList,
    #[error("managedFields[{index}].{field}: {message}")]
    Field {
        index: usize,
        field: &'static str,
        message: &'static str,
    },
    #[error("managedFields[{index}].fieldsV1")]
    Fields {
        index: usize,
        #[source]
        source: BadFields,
    },
}

/// All managers of an object. None of them is there twice, and each owns something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    entries: Vec<Entry>,
}

impl Managers {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn entries_mut(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    /// From `metadata.managedFields`; absent is empty.
    pub fn from_json(value: Option<&Value>) -> Result<Self, BadEntry> {
        let entries = match value {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(BadEntry::NotAList),
        };
        let mut managers = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let entry = entry.as_object().ok_or(BadEntry::NotAList)?;
            managers.add(read(index, entry)?);
        }
        Ok(managers)
    }

    /// As `metadata.managedFields`, in Kubernetes' order.
    pub fn to_json(&self) -> Value {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|e| {
            (
                e.operation,
                &e.time,
                &e.manager,
                &e.api_version,
                &e.subresource,
            )
        });
        entries.into_iter().map(write).collect()
    }

    /// True when the same managers own the same fields, whatever the times.
    pub fn own_the_same(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().all(|entry| {
                other
                    .entries
                    .iter()
                    .any(|theirs| is_same(theirs, entry) && theirs.fields == entry.fields)
            })
    }

    /// The entry that such a writer adds to.
    pub fn find(&self, by: &Writer<'_>) -> Option<&Entry> {
        self.entries.iter().find(|entry| is_by(entry, by))
    }

    /// Takes a writer's entry out.
    pub(crate) fn take(&mut self, by: &Writer<'_>) -> Option<Entry> {
        let position = self.entries.iter().position(|entry| is_by(entry, by))?;
        Some(self.entries.remove(position))
    }

    /// Adds an entry, or its fields and later time to the one that is there.
    pub(crate) fn add(&mut self, entry: Entry) {
        if entry.fields.is_empty() {
            return;
        }
        match self.entries.iter_mut().find(|known| is_same(known, &entry)) {
            None => self.entries.push(entry),
            Some(known) => {
                known.fields = known.fields.union(&entry.fields);
                known.time = std::mem::take(&mut known.time).max(entry.time);
            }
        }
    }

    /// What anyone owns.
    pub(crate) fn owned(&self) -> FieldSet {
        self.entries
            .iter()
            .fold(FieldSet::default(), |set, entry| set.union(&entry.fields))
    }

    /// Sums the oldest updates up until there are no more than [`MAX_UPDATE_ENTRIES`], as far as
    /// they are of one version and subresource.
    pub(crate) fn sum_up_old_updates(&mut self) {
        let is_update = |entry: &Entry| entry.operation == Operation::Update;
        let mut surplus = self
            .entries
            .iter()
            .filter(|entry| is_update(entry))
            .count()
            .saturating_sub(MAX_UPDATE_ENTRIES);
        if surplus == 0 {
            return;
        }
        let (mut updates, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(is_update);
        updates.sort_by_key(|entry| Reverse(entry.time.clone()));
        let mut sums: BTreeMap<(String, String), Entry> = BTreeMap::new();
        while surplus > 0 {
            let Some(oldest) = updates.pop() else { break };
            let kind = (oldest.api_version.clone(), oldest.subresource.clone());
            match sums.get_mut(&kind) {
                None => {
                    sums.insert(kind, oldest);
                }
                Some(sum) => {
                    sum.manager = ANCIENT_CHANGES.to_owned();
                    sum.fields = sum.fields.union(&oldest.fields);
                    sum.time = oldest.time;
                    surplus -= 1;
                }
            }
        }
        kept.append(&mut updates);
        self.entries = kept;
        sums.into_values().for_each(|sum| self.add(sum));
    }
}

/// The version of an apply does not matter: the same manager applies one declaration.
fn is_same(a: &Entry, b: &Entry) -> bool {
    a.manager == b.manager
        && a.operation == b.operation
        && a.subresource == b.subresource
        && (a.operation == Operation::Apply || a.api_version == b.api_version)
}

fn is_by(entry: &Entry, by: &Writer<'_>) -> bool {
    entry.manager == by.manager
        && entry.operation == by.operation
        && entry.subresource == by.subresource
        && (by.operation == Operation::Apply || entry.api_version == by.api_version)
}

fn read(index: usize, entry: &Map<String, Value>) -> Result<Entry, BadEntry> {
    let bad = |field, message| BadEntry::Field {
        index,
        field,
        message,
    };
    let text = |field: &'static str| match entry.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(bad(field, "not text")),
    };
    let operation = match text("operation")?.as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(bad("operation", "must be `Apply` or `Update`")),
    };
    if text("fieldsType")? != "FieldsV1" {
        return Err(bad("fieldsType", "must be `FieldsV1`"));
    }
    let fields = match entry.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::default(),
        Some(Value::Object(fields)) => {
            FieldSet::from_json(fields).map_err(|source| BadEntry::Fields { index, source })?
        }
        Some(_) => return Err(bad("fieldsV1", "not an object")),
    };
    Ok(Entry {
        manager: text("manager")?,
        operation,
        api_version: text("apiVersion")?,
        subresource: text("subresource")?,
        time: text("time")?,
        fields,
    })
}

fn write(entry: &Entry) -> Value {
    let mut written = json!({
        "manager": entry.manager,
        "operation": entry.operation.name(),
        "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields.to_json(),
    });
    for (field, text) in [("time", &entry.time), ("subresource", &entry.subresource)] {
        if !text.is_empty() {
            written[field] = json!(text);
        }
    }
    written
}
