//! Who owns which field: `metadata.managedFields` of what clients write.
//!
//! Pure. The swarm's own writers (reconcilers, gateway) are no managers: what they write nobody
//! owns, so that no declaration ever meets a conflict with the swarm itself.

use hive_manifests::{Resource, openapi_schema};
use hive_merge::{Applied, ApplyError, Managers, Operation, Path, Scope, Writer};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{Part, invalid};
use crate::api::errors::{ApiError, Cause};
use crate::state::Key;

/// Characters of a manager's name, as Kubernetes has it.
const MAX_MANAGER_CHARS: usize = 128;

/// Bytes that managedFields may take as JSON. A manager takes as much as the names of its fields;
/// together with the largest object it fits into what a snapshot holds of one.
const MAX_MANAGED_BYTES: usize = 2 << 20;

/// Clients that also apply by comparing with an annotation, which says what they applied last.
/// Who changes to server-side apply keeps its fields.
const CLIENT_SIDE: [(&str, &str); 2] = [
    (
        "kubectl",
        "kubectl.kubernetes.io/last-applied-configuration",
    ),
    ("hivectl", "hive.dev/last-applied-configuration"),
];

/// Who writes an object, and through which of its subresources.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Author<'a> {
    pub manager: &'a str,
    pub subresource: &'static str,
    /// RFC 3339.
    pub now: &'a str,
}

/// Who a request says that it is by, or who its program is.
pub(in crate::api) fn manager<'a>(
    named: Option<&'a str>,
    headers: &'a HeaderMap,
    options: &'static str,
) -> Result<&'a str, ApiError> {
    let Some(name) = named else {
        let agent = headers
            .get(header::USER_AGENT)
            // Only visible ASCII is text here.
            .and_then(|agent| agent.to_str().ok())
            .and_then(|agent| agent.split('/').next())
            .filter(|name| !name.is_empty())
            .unwrap_or("unknown");
        return Ok(&agent[..agent.len().min(MAX_MANAGER_CHARS)]);
    };
    let refuse =
        |message: String| ApiError::option(options, "fieldManager", "FieldValueInvalid", message);
    if name.chars().count() > MAX_MANAGER_CHARS {
        return Err(refuse(format!(
            "Too long: may not be more than {MAX_MANAGER_CHARS} characters"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(refuse(format!(
            "Invalid value: {name:?}: should only contain printable characters"
        )));
    }
    Ok(name)
}

/// Takes `metadata.managedFields` out of a body.
pub(in crate::api) fn take(body: &mut Value) -> Option<Value> {
    body.get_mut("metadata")?
        .as_object_mut()?
        .remove("managedFields")
}

impl Part {
    fn scope(self) -> Scope {
        match self {
            Self::Main => Scope::Main,
            Self::Status | Self::Approval => Scope::Status,
        }
    }
}

fn writer<'a>(resource: Resource, author: Author<'a>, operation: Operation) -> Writer<'a> {
    Writer {
        manager: author.manager,
        operation,
        api_version: resource.api_version(),
        subresource: author.subresource,
        now: author.now,
    }
}

/// What is stored was checked when it came in; what can't be read has no owners.
fn stored(body: &Value) -> Managers {
    Managers::from_json(body["metadata"].get("managedFields")).unwrap_or_default()
}

/// The managers that an update starts from: those it sent, for whoever mends them, or those that
/// are there. One empty entry clears them.
fn starting_from(
    key: &Key,
    before: &Value,
    sent: Option<&Value>,
    author: Author<'_>,
) -> Result<Managers, ApiError> {
    let sent = match sent {
        // A patch, or a client that read before it wrote, sends what is there.
        Some(sent)
            if author.subresource.is_empty()
                && before["metadata"].get("managedFields") != Some(sent) =>
        {
            sent
        }
        _ => return Ok(stored(before)),
    };
    if *sent == json!([{}]) {
        return Ok(Managers::default());
    }
    let refuse = |message: String| {
        let field = "metadata.managedFields";
        invalid(
            key,
            field,
            "FieldValueInvalid",
            format!("Invalid value: {message}"),
        )
    };
    let managers = Managers::from_json(Some(sent)).map_err(|error| {
        let why = std::error::Error::source(&error).map(|source| format!(": {source}"));
        refuse(format!("{error}{}", why.unwrap_or_default()))
    })?;
    for entry in managers.entries() {
        if entry.manager.chars().count() > MAX_MANAGER_CHARS {
            return Err(refuse(format!(
                "a manager has more than {MAX_MANAGER_CHARS} characters"
            )));
        }
        if entry.api_version != key.resource.api_version() {
            return Err(refuse(format!(
                "the apiVersion of {:?} is not {}",
                entry.manager,
                key.resource.api_version()
            )));
        }
        if !matches!(entry.subresource.as_str(), "" | "status" | "scale") {
            return Err(refuse(format!(
                "there is no subresource {:?}",
                entry.subresource
            )));
        }
        if !entry.time.is_empty() && entry.time.parse::<jiff::Timestamp>().is_err() {
            return Err(refuse(format!("{:?} is not a time", entry.time)));
        }
    }
    match managers.entries().is_empty() {
        true => Ok(stored(before)),
        false => Ok(managers),
    }
}

/// What a declaration makes of an object; an object that is not there yet is an empty one.
pub(in crate::api) fn apply(
    key: &Key,
    before: &Value,
    declared: &Value,
    author: Author<'_>,
    part: Part,
    force: bool,
) -> Result<Applied, ApiError> {
    let by = writer(key.resource, author, Operation::Apply);
    let mut managers = stored(before);
    let annotation = CLIENT_SIDE
        .iter()
        .find(|(manager, _)| *manager == author.manager && author.subresource.is_empty())
        .map(|(_, annotation)| *annotation)
        .filter(|annotation| before["metadata"]["annotations"].get(annotation).is_some());
    if let Some(annotation) = annotation {
        let path = Path::fields(["metadata", "annotations", annotation]);
        let kept = [path.clone()];
        managers.take_over(
            &by,
            |entry| entry.fields.contains(&path),
            &kept.iter().collect(),
        );
    }
    let schema = openapi_schema(key.resource);
    let result = hive_merge::apply(
        schema,
        before,
        declared,
        &managers,
        &by,
        part.scope(),
        force,
    );
    let mut applied = result.map_err(|error| refusal(key, error))?;
    take(&mut applied.object);
    if let Some(annotation) = annotation {
        let remembered = last_applied(key.resource, author.manager, declared);
        applied.object["metadata"]["annotations"][annotation] = remembered.into();
    }
    Ok(applied)
}

/// What the annotation of a client says that it applied, so that it can go back to comparing with it.
fn last_applied(resource: Resource, manager: &str, declared: &Value) -> String {
    /// All annotations of an object together may have 256 KiB.
    const MAX_BYTES: usize = 192 << 10;

    let mut declared = declared.clone();
    // hivectl writes no values of these there: secrets must not be copied to where nobody looks for them.
    if manager == "hivectl" && matches!(resource, Resource::Secret | Resource::ConfigMap) {
        for field in ["data", "binaryData"] {
            let values = declared.get_mut(field).and_then(Value::as_object_mut);
            values
                .into_iter()
                .flat_map(|values| values.values_mut())
                .for_each(|value| *value = "".into());
        }
    }
    let text = format!("{declared}\n");
    match text.len() > MAX_BYTES {
        true => String::new(),
        false => text,
    }
}

fn refusal(key: &Key, error: ApplyError) -> ApiError {
    match error {
        ApplyError::Conflicts(conflicts) => ApiError::ApplyConflict {
            message: conflicts.to_string(),
            causes: conflicts
                .0
                .into_iter()
                .map(|conflict| Cause {
                    field: conflict.path.to_string(),
                    reason: "FieldManagerConflict",
                    message: format!("conflict with {}", conflict.manager),
                })
                .collect(),
        },
        ApplyError::Config(error) => invalid(key, "", "FieldValueInvalid", error.to_string()),
    }
}

/// How the managers of a body come about.
pub(in crate::api) enum Ownership {
    /// By what differs; with the managedFields that the request sent.
    Changed { sent: Option<Value> },
    /// By a declaration.
    Declared(Managers),
}

/// Writes into a complete body who owns what of it. `before` is what it replaces; an empty object
/// for a new one. A body that changes nothing keeps the entries of before with their times.
pub(in crate::api) fn record(
    key: &Key,
    before: &Value,
    body: &mut Value,
    ownership: &Ownership,
    author: Author<'_>,
    part: Part,
) -> Result<(), ApiError> {
    let managers = match ownership {
        Ownership::Declared(managers) => managers.clone(),
        Ownership::Changed { sent } => hive_merge::update(
            openapi_schema(key.resource),
            before,
            body,
            &starting_from(key, before, sent.as_ref(), author)?,
            &writer(key.resource, author, Operation::Update),
            part.scope(),
        ),
    };
    let managed = if same_content(before, body) && managers.own_the_same(&stored(before)) {
        before["metadata"].get("managedFields").cloned()
    } else {
        let managed = managers.to_json();
        let bytes = managed.to_string().len();
        if bytes > MAX_MANAGED_BYTES {
            return Err(invalid(
                key,
                "metadata.managedFields",
                "FieldValueTooLong",
                format!(
                    "Too long: the owners of the fields take {bytes} bytes, at most {MAX_MANAGED_BYTES} are kept: \
                     clear them by an update with managedFields: [{{}}]"
                ),
            ));
        }
        Some(managed).filter(|managed| *managed != json!([]))
    };
    if let Some(managed) = managed {
        body["metadata"]["managedFields"] = managed;
    }
    Ok(())
}

/// True when two bodies differ at most in what is not content.
fn same_content(a: &Value, b: &Value) -> bool {
    fn equal(a: &Value, b: &Value, ignored: &[&str]) -> bool {
        fn fields<'v>(
            value: &'v Value,
            ignored: &[&str],
        ) -> impl Iterator<Item = (&'v String, &'v Value)> {
            let fields = value.as_object().into_iter().flatten();
            fields.filter(|(name, _)| !ignored.contains(&name.as_str()))
        }
        fields(a, ignored).eq(fields(b, ignored))
    }
    equal(a, b, &["metadata"])
        && equal(
            &a["metadata"],
            &b["metadata"],
            &["managedFields", "resourceVersion"],
        )
}
