//! Create, update and patch: read, change, admit, compare-and-swap.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use hive_manifests::{FieldPath, Resource};
use http::{Method, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use super::super::admission;
use super::super::auth::User;
use super::super::certificates;
use super::super::errors::ApiError;
use super::super::guard;
use super::super::limits::object_body;
use super::super::media::{PatchKind, Sent, parse_object};
use super::super::metadata::ownership::{self, Author, Ownership};
use super::super::metadata::{self, Part, Stamp};
use super::super::patch::Patch;
use super::super::path::{ObjectPath, Subresource};
use super::super::query::{FieldValidation, dry_run};
use super::super::respond::{self, Shape};
use super::super::{Api, Call};
use super::apply;
use crate::access::escalation::Write;
use crate::deletion;
use crate::objects;
use crate::state::{Command, Key, Object, Outcome, Rejection};
use crate::store::ProposeError;

/// Attempts of a write that others keep overtaking, or of a generated name that is taken. Each
/// means that somebody else succeeded; Kubernetes' own number for names.
pub(super) const ATTEMPTS: usize = 8;

/// Letters of Kubernetes' generated names: no vowels and no 0, 1, 3, so no words and no look-alikes.
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// How a write is to be done and shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    /// Who writes.
    pub user: &'a User,
    /// By what name the fields written are owned.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'static str,
    pub dry_run: bool,
    pub validation: FieldValidation,
}

/// What a write came to.
pub(super) enum Written {
    Stored(Arc<Object>),
    /// What a dry run would have stored.
    Imagined(Key, Value),
}

impl Written {
    pub fn body(&self) -> &Value {
        match self {
            Self::Stored(object) => object.body(),
            Self::Imagined(_, body) => body,
        }
    }

    pub fn respond(&self, code: StatusCode, shape: Shape) -> Response {
        match self {
            Self::Stored(object) => respond::object(code, shape, object),
            Self::Imagined(key, body) => respond::body(code, shape, key.resource, body),
        }
    }
}

impl<'a> Options<'a> {
    pub fn of(call: &'a Call, subresource: Option<&Subresource>) -> Result<Self, ApiError> {
        let kind = match call.method {
            Method::POST => "CreateOptions",
            Method::PATCH => "PatchOptions",
            _ => "UpdateOptions",
        };
        let named = call.query.field_manager.as_deref();
        Ok(Self {
            user: &call.user,
            manager: ownership::manager(named, &call.headers, kind)?,
            subresource: subresource.map_or("", Subresource::name),
            dry_run: dry_run(kind, &call.query.dry_run)?,
            validation: call.query.field_validation(kind)?,
        })
    }

    pub fn author<'n>(&self, now: &'n str) -> Author<'n>
    where
        'a: 'n,
    {
        Author {
            manager: self.manager,
            subresource: self.subresource,
            now,
        }
    }
}

/// What a request wants to be there.
pub(super) struct Proposal {
    pub body: Value,
    /// Fields that the client named more than once.
    pub repeated: Vec<FieldPath>,
    pub ownership: Ownership,
}

impl Proposal {
    /// What a client writes outright: it owns what that changes.
    pub fn changed(mut body: Value) -> Self {
        let sent = ownership::take(&mut body);
        Self {
            body,
            repeated: Vec::new(),
            ownership: Ownership::Changed { sent },
        }
    }

    fn sent(sent: &Sent) -> Self {
        Self {
            repeated: sent.repeated.clone(),
            ..Self::changed(sent.value.clone())
        }
    }
}

pub(super) async fn create(
    context: &Api,
    path: &ObjectPath,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let (shape, options) = (call.shape()?, Options::of(call, None)?);
    if path.resource.namespaced() && path.namespace.is_none() {
        return Err(ApiError::MethodNotAllowed);
    }
    let body = object_body(&call.headers, body).await?;
    let mut sent = parse_object(&call.headers, &body)?;
    sent.value = path.conform(sent.value)?;
    let is_generated = sent.value["metadata"]["name"]
        .as_str()
        .is_none_or(str::is_empty);
    for attempt in 1.. {
        let proposal = Proposal::sent(&sent);
        let (written, warnings) = match create_once(context, path.resource, proposal, options).await
        {
            Err(ApiError::AlreadyExists { .. }) if is_generated && attempt < ATTEMPTS => continue,
            result => result?,
        };
        let response = written.respond(StatusCode::CREATED, shape);
        return Ok(respond::warn(response, &warnings));
    }
    unreachable!("the last attempt returns")
}

/// Completes, admits and stores a new object.
pub(super) async fn create_once(
    context: &Api,
    resource: Resource,
    proposal: Proposal,
    options: Options<'_>,
) -> Result<(Written, Vec<String>), ApiError> {
    let stamp = stamp();
    let (key, mut body) = metadata::prepare_create(resource, proposal.body, &stamp)?;
    admission::check_level(&context.replica.state(), resource)?;
    let warnings = admission::complete(
        &context.replica.state(),
        &key,
        &mut body,
        &proposal.repeated,
        options.validation,
    )?;
    if resource == Resource::CertificateSigningRequest {
        certificates::complete(options.user, &key, &mut body)?;
    }
    admission::check_namespace(context, &key).await?;
    admission::check_function(context, &key, &body, None).await?;
    let write = Write {
        key: &key,
        before: None,
        body: &body,
    };
    guard::check(context, options.user, write).await?;
    let author = options.author(&stamp.now);
    let nothing = Value::Object(serde_json::Map::new());
    ownership::record(
        &key,
        &nothing,
        &mut body,
        &proposal.ownership,
        author,
        Part::Main,
    )?;
    let written = store_new(context, &key, body, options).await?;
    Ok((written, warnings))
}

async fn store_new(
    context: &Api,
    key: &Key,
    body: Value,
    options: Options<'_>,
) -> Result<Written, ApiError> {
    if options.dry_run {
        return match context.find(key).await {
            Ok(_) => Err(ApiError::AlreadyExists {
                resource: key.resource,
                name: key.name.clone(),
            }),
            Err(ApiError::NotFound { .. }) => {
                admission::check_quotas(context, key, None, &body)?;
                Ok(Written::Imagined(key.clone(), body))
            }
            Err(error) => Err(error),
        };
    }
    let command = Command::Create {
        key: key.clone(),
        body: body.into(),
    };
    match context.propose(command).await {
        Ok(Outcome::Created(object)) => Ok(Written::Stored(object)),
        Ok(other) => unreachable!("a creation is answered by what was created, not {other:?}"),
        Err(error) => Err(ApiError::proposing(key, error)),
    }
}

fn stamp() -> Stamp {
    let mut random = [0; SUFFIX_LENGTH];
    SystemRandom::new()
        .fill(&mut random)
        .expect("the system's random source works");
    Stamp {
        now: objects::timestamp(SystemTime::now()),
        uid: objects::fresh_uid(),
        suffix: random
            .iter()
            .map(|byte| char::from(SUFFIX_LETTERS[usize::from(*byte) % SUFFIX_LETTERS.len()]))
            .collect(),
    }
}

pub(super) async fn update(
    context: &Api,
    path: &ObjectPath,
    key: &Key,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let (shape, options) = (call.shape()?, Options::of(call, path.subresource.as_ref())?);
    let body = object_body(&call.headers, body).await?;
    let mut sent = parse_object(&call.headers, &body)?;
    sent.value = path.conform(sent.value)?;
    let (written, warnings) = modify(context, key, part(path), options, |_| {
        Ok(Proposal::sent(&sent))
    })
    .await?;
    Ok(respond::warn(
        written.respond(StatusCode::OK, shape),
        &warnings,
    ))
}

pub(super) async fn patch(
    context: &Api,
    path: &ObjectPath,
    key: &Key,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let (shape, options) = (call.shape()?, Options::of(call, path.subresource.as_ref())?);
    let kind = PatchKind::sent(&call.headers)?;
    if kind == PatchKind::Apply {
        return apply::apply(context, path, key, call, body).await;
    }
    apply::refuse_force(call)?;
    let body = object_body(&call.headers, body).await?;
    let (patch, repeated) = Patch::parse(kind, key.resource, &body)?;
    let result = modify(context, key, part(path), options, |current| {
        let mut body = current.body().clone();
        patch
            .apply(&mut body)
            .map_err(|message| metadata::invalid(key, "", "FieldValueInvalid", message))?;
        Ok(Proposal {
            repeated: repeated.clone(),
            ..Proposal::changed(path.conform(body)?)
        })
    })
    .await;
    let (written, warnings) = result.map_err(|error| match error {
        // As Kubernetes has it: what a patch makes is invalid, while what is sent whole is malformed.
        ApiError::Strict { resource, causes } => ApiError::Invalid {
            resource,
            name: key.name.clone(),
            causes,
        },
        other => other,
    })?;
    Ok(respond::warn(
        written.respond(StatusCode::OK, shape),
        &warnings,
    ))
}

pub(super) fn part(path: &ObjectPath) -> Part {
    match path.subresource {
        Some(Subresource::Status) => Part::Status,
        Some(Subresource::Approval) => Part::Approval,
        _ => Part::Main,
    }
}

/// Replaces an object by what `change` makes of it. Where that names a resourceVersion, it must be
/// the current one; otherwise the change is made again until nobody came in between.
pub(super) async fn modify(
    context: &Api,
    key: &Key,
    part: Part,
    options: Options<'_>,
    change: impl Fn(&Object) -> Result<Proposal, ApiError>,
) -> Result<(Written, Vec<String>), ApiError> {
    let now = objects::timestamp(SystemTime::now());
    let mut current = context.find(key).await?;
    let mut is_newest = false;
    for _ in 0..ATTEMPTS {
        let proposal = change(&current)?;
        if !names_revision(&proposal.body, current.revision())? {
            // Perhaps it is only this replica that is behind.
            if is_newest {
                return Err(ApiError::modified(key));
            }
            current = newest(context, key).await?;
            is_newest = true;
            continue;
        }
        let mut body = metadata::prepare_update(&current, proposal.body, part)?;
        let warnings = admission::complete(
            &context.replica.state(),
            key,
            &mut body,
            &proposal.repeated,
            options.validation,
        )?;
        metadata::settle_update(&current, &mut body)?;
        if key.resource == Resource::CertificateSigningRequest {
            certificates::settle(context, options.user, &current, part, &mut body).await?;
        }
        ownership::record(
            key,
            current.body(),
            &mut body,
            &proposal.ownership,
            options.author(&now),
            part,
        )?;
        admission::check_function(context, key, &body, Some(current.body())).await?;
        admission::check_taken(context, key, &body, current.body())?;
        let write = Write {
            key,
            before: Some(current.body()),
            body: &body,
        };
        guard::check(context, options.user, write).await?;
        if options.dry_run {
            admission::check_quotas(context, key, Some(&current), &body)?;
            let revision = current.revision().to_string();
            body["metadata"]["resourceVersion"] = revision.into();
            return Ok((Written::Imagined(key.clone(), body), warnings));
        }
        match replace(context, body, &current).await {
            Ok(object) => {
                if part == Part::Approval {
                    certificates::record(context, options.user, &current, &object).await;
                }
                return Ok((Written::Stored(object), warnings));
            }
            Err(ProposeError::Rejected(Rejection::Conflict { .. })) => {
                current = newest(context, key).await?;
                is_newest = true;
            }
            Err(error) => return Err(ApiError::proposing(key, error)),
        }
    }
    Err(ApiError::modified(key))
}

/// Writes `body` over `current`, or deletes it if that was all it waited for.
async fn replace(
    context: &Api,
    body: Value,
    current: &Object,
) -> Result<Arc<Object>, ProposeError> {
    let command = deletion::replacement(current, body);
    match context.propose(command).await? {
        Outcome::Replaced(object) | Outcome::Unchanged(object) | Outcome::Deleted(object) => {
            Ok(object)
        }
        other => unreachable!("a replacement is answered by an object, not {other:?}"),
    }
}

async fn newest(context: &Api, key: &Key) -> Result<Arc<Object>, ApiError> {
    let state = context.newest().await?;
    state
        .get(key)
        .cloned()
        .ok_or_else(|| ApiError::not_found(key))
}

/// Whether a body is about this revision: it says so, or says nothing.
fn names_revision(body: &Value, revision: u64) -> Result<bool, ApiError> {
    match &body["metadata"]["resourceVersion"] {
        Value::Null => Ok(true),
        Value::String(text) if text.is_empty() => Ok(true),
        Value::String(text) => match text.parse::<u64>() {
            Ok(named) => Ok(named == revision),
            Err(_) => Err(ApiError::BadRequest(format!(
                "metadata.resourceVersion: {text:?} is not one that this API gave out"
            ))),
        },
        _ => Err(ApiError::BadRequest(
            "metadata.resourceVersion is not a string".into(),
        )),
    }
}
