//! Apply and update: what becomes of an object and of those who own its fields.
//!
//! The rules are those of Kubernetes' structured-merge-diff. Who applies owns exactly what the
//! declaration says; who updates owns what the update changed, and takes it from everyone else.

use std::fmt;

use serde_json::Value;

use crate::compare::compare;
use crate::config::{self, ConfigError};
use crate::field_set::FieldSet;
use crate::managers::{Entry, Managers, Operation, Writer};
use crate::path::Path;
use crate::remove::remove;
use crate::scope::Scope;
use crate::tracked::{to_field_set, with_named_parents};

/// What a declaration made of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub object: Value,
    pub managers: Managers,
}

/// A field that the declaration would change although another manager owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As [`Entry`] shows itself.
    pub manager: String,
    pub path: Path,
}

/// At least one conflict; those of one manager are together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

/// In Kubernetes' words, which kubectl shows as they are.
impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.0.as_slice() {
            let Conflict { manager, path } = one;
            return write!(
                f,
                "Apply failed with 1 conflict: conflict with {manager}: {path}"
            );
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last: Option<&str> = None;
        for Conflict { manager, path } in &self.0 {
            if last != Some(manager) {
                let separator = if last.is_some() { "\n" } else { "" };
                write!(f, "{separator}conflicts with {manager}:")?;
                last = Some(manager);
            }
            write!(f, "\n- {path}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Conflicts(Conflicts),
    #[error("the declaration cannot be merged")]
    Config(#[from] ConfigError),
}

/// Makes the object as its manager declares it. `live` is the object without managedFields;
/// an empty one is created. What the manager owned before and no longer declares goes, unless
/// somebody else owns it. `force` takes fields from others instead of refusing.
pub fn apply(
    schema: &Value,
    live: &Value,
    declared: &Value,
    managers: &Managers,
    by: &Writer<'_>,
    scope: Scope,
    force: bool,
) -> Result<Applied, ApplyError> {
    let mut declared = scope.of_object(declared);
    config::without_nulls(&mut declared);
    config::check(schema, &declared)?;
    let mut managers = managers.clone();
    let before = managers.take(by);
    let fields = to_field_set(schema, &declared);
    let mut others = managers.clone();
    managers.add(entry(by, fields.clone()));
    let merged = crate::merge(schema, live, &declared);
    let object = match before {
        Some(before) => {
            let pruned = prune(schema, merged, &managers.owned(), &before.fields);
            // A list or map that was emptied by that, but is declared, is an empty one.
            crate::merge(schema, &pruned, &declared)
        }
        None => merged,
    };
    let changes = compare(schema, live, &object);
    let written = changes.written();
    let conflicts = conflicts(&others, &written);
    if !conflicts.is_empty() && !force {
        return Err(ApplyError::Conflicts(Conflicts(conflicts)));
    }
    strip(&mut others, &written.union(&changes.removed));
    others.add(entry(by, fields));
    Ok(Applied {
        object,
        managers: others,
    })
}

/// The managers after somebody wrote `after` over `live`, both without managedFields. A creation
/// starts from an empty object.
pub fn update(
    schema: &Value,
    live: &Value,
    after: &Value,
    managers: &Managers,
    by: &Writer<'_>,
    scope: Scope,
) -> Managers {
    let changes = compare(schema, live, after);
    let written = scope.of_fields(changes.written());
    let mut managers = managers.clone();
    strip(&mut managers, &written.union(&changes.removed));
    managers.add(entry(by, written));
    managers.sum_up_old_updates();
    managers
}

fn entry(by: &Writer<'_>, fields: FieldSet) -> Entry {
    Entry {
        manager: by.manager.to_owned(),
        operation: by.operation,
        api_version: by.api_version.to_owned(),
        subresource: by.subresource.to_owned(),
        time: by.now.to_owned(),
        fields,
    }
}

fn conflicts(others: &Managers, written: &FieldSet) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = others
        .entries()
        .iter()
        .flat_map(|entry| {
            let manager = entry.to_string();
            let fields = entry.fields.intersection(written);
            fields.paths().into_iter().map(move |path| Conflict {
                manager: manager.clone(),
                path,
            })
        })
        .collect();
    conflicts.sort_by(|a, b| (&a.manager, &a.path).cmp(&(&b.manager, &b.path)));
    conflicts
}

/// Takes fields from everyone; who is left with none is no manager any more.
fn strip(managers: &mut Managers, fields: &FieldSet) {
    managers.entries_mut().retain_mut(|entry| {
        entry.fields = entry.fields.difference(fields);
        !entry.fields.is_empty()
    });
}

/// Removes what the applying manager owned before and nobody, itself included, owns now. A list or
/// map that is emptied by that goes too, unless somebody owns it as such. What nobody ever owned
/// stays: the swarm's own writers are no managers.
fn prune(schema: &Value, merged: Value, owned: &FieldSet, before: &FieldSet) -> Value {
    let gone = before.difference(&with_named_parents(schema, owned));
    match gone.is_empty() {
        true => merged,
        false => remove(schema, &merged, &gone, owned),
    }
}

impl Managers {
    /// Hands what updates own over to an applier that is the same client by another method, but for
    /// `kept`: those places stay with the updates that own them.
    pub fn take_over(
        &mut self,
        by: &Writer<'_>,
        is_predecessor: impl Fn(&Entry) -> bool,
        kept: &FieldSet,
    ) {
        let mut taken = FieldSet::default();
        self.entries_mut().retain_mut(|entry| {
            if entry.operation != Operation::Update
                || entry.subresource != by.subresource
                || !is_predecessor(entry)
            {
                return true;
            }
            taken = taken.union(&entry.fields.difference(kept));
            entry.fields = entry.fields.intersection(kept);
            !entry.fields.is_empty()
        });
        self.add(entry(by, taken));
    }
}
