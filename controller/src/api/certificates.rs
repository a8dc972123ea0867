//! Requests for certificates: what one says of its sender, who may approve it, and its issue.
//!
//! Approval and certificate are one write: who approves is answered by the certificate. An approver
//! speaks for the user who is certified, and so must be allowed to impersonate that user.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_identity::{ClientRequest, Registration, client_certificate_fingerprint};
use hive_manifests::CERTIFICATES_GROUP;
use hive_manifests::certificates::{APPROVED, CLIENT_SIGNER, DENIED, FAILED, is};
use http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::audited::identity;
use super::auth::{self, User};
use super::errors::{ApiError, error_chain};
use super::metadata::{Part, invalid};
use crate::access::attributes::{Attributes, ResourceAttributes};
use crate::access::certificates::{DEFAULT_LIFETIME, MAX_LIFETIME, check_names};
use crate::access::user::UserInfo;
use crate::audit::{Event, Level, ObjectReference};
use crate::objects;
use crate::state::{Key, Object};

/// What the sender of a request says; the rest of its spec the API does.
const ASKED: [&str; 4] = ["request", "signerName", "expirationSeconds", "usages"];
/// What the API says about the sender.
const SENDER: [&str; 4] = ["username", "uid", "groups", "extra"];
/// Conditions that stay as they are once they are there.
const DECISIONS: [&str; 3] = [APPROVED, DENIED, FAILED];

/// Says in a new request who sent it, and refuses one that could never be approved.
pub(super) fn complete(user: &User, key: &Key, body: &mut Value) -> Result<(), ApiError> {
    parse(key, body)?;
    let spec = body["spec"]
        .as_object_mut()
        .expect("it has a request, so it is an object");
    for field in SENDER {
        spec.remove(field);
    }
    let UserInfo {
        name,
        uid,
        groups,
        extra,
    } = &user.info;
    spec.insert("username".into(), json!(name));
    spec.insert("groups".into(), json!(groups));
    if let Some(uid) = uid {
        spec.insert("uid".into(), json!(uid));
    }
    if !extra.is_empty() {
        spec.insert("extra".into(), json!(extra));
    }
    Ok(())
}

/// The signing request in an object, if it may be certified.
fn parse(key: &Key, body: &Value) -> Result<ClientRequest, ApiError> {
    let refuse = |why: String| invalid(key, "spec.request", "FieldValueInvalid", why);
    let text = body["spec"]["request"].as_str().unwrap_or_default();
    let pem = BASE64
        .decode(text)
        .map_err(|error| refuse(format!("it is not base64: {error}")))?;
    let request = ClientRequest::parse(&pem).map_err(|error| refuse(error_chain(&error)))?;
    // As Kubernetes words it, this is no mistake but a thing that may not be.
    check_names(&request).map_err(|why| ApiError::forbidden(key, why))?;
    Ok(request)
}

/// Holds an update to what may change: nothing but metadata, or a decision, which is carried out.
pub(super) async fn settle(
    context: &Api,
    user: &User,
    current: &Object,
    part: Part,
    body: &mut Value,
) -> Result<(), ApiError> {
    let (key, before) = (current.key(), current.body());
    match part {
        Part::Main => {
            if let Some(changed) = ASKED
                .into_iter()
                .find(|field| body["spec"][field] != before["spec"][field])
            {
                let field = format!("spec.{changed}");
                let message = "field is immutable: make another request".to_owned();
                return Err(invalid(key, &field, "FieldValueInvalid", message));
            }
            body["spec"] = before["spec"].clone();
            Ok(())
        }
        Part::Status if body["status"] == before["status"] => Ok(()),
        Part::Status => Err(ApiError::forbidden(
            key,
            "the swarm writes the status of a request; approve or deny it: `hivectl certificate approve`",
        )),
        Part::Approval => decide(context, user, current, body).await,
    }
}

async fn decide(
    context: &Api,
    user: &User,
    current: &Object,
    body: &mut Value,
) -> Result<(), ApiError> {
    const FIELD: &str = "status.conditions";
    let (key, before) = (current.key(), current.body());
    if body["status"]["conditions"] == before["status"]["conditions"] {
        return Ok(());
    }
    may(context, user, &approval(before)).await?;
    for decision in DECISIONS {
        if is(before, decision) && !is(body, decision) {
            let message =
                format!("{decision} is for good: to end a certificate, delete its request");
            return Err(invalid(key, FIELD, "FieldValueForbidden", message));
        }
    }
    if is(body, APPROVED) && is(body, DENIED) {
        let message = "Approved and Denied conditions are mutually exclusive".to_owned();
        return Err(invalid(key, FIELD, "FieldValueInvalid", message));
    }
    stamp(body, SystemTime::now());
    if !is(before, APPROVED) && is(body, APPROVED) {
        issue(context, user, key, body).await?;
    }
    Ok(())
}

/// Certifies whom the request names, in the name of who approves it.
async fn issue(context: &Api, user: &User, key: &Key, body: &mut Value) -> Result<(), ApiError> {
    let request = parse(key, body)?;
    let subject = UserInfo {
        name: request.user().to_owned(),
        groups: request.groups().to_vec(),
        ..UserInfo::default()
    };
    for asked in auth::impersonations(&subject) {
        may(context, user, &asked).await?;
    }
    let registration = Registration {
        name: key.name.clone(),
        uid: body["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    let lifetime = body["spec"]["expirationSeconds"]
        .as_u64()
        .map_or(DEFAULT_LIFETIME, Duration::from_secs)
        .min(MAX_LIFETIME);
    let issued = context
        .clients
        .issue(&request, &registration, SystemTime::now(), lifetime)
        .map_err(ApiError::internal)?;
    tracing::info!(
        request = key.name,
        user = request.user(),
        groups = ?request.groups(),
        fingerprint = issued.fingerprint,
        approver = user.info.name,
        "issued a client certificate"
    );
    body["status"]["certificate"] = json!(BASE64.encode(issued.pem));
    Ok(())
}

/// Tells the audit log whom a certificate that was issued just now is for: the approval alone names
/// only the request, which goes some day.
pub(super) async fn record(context: &Api, approver: &User, before: &Object, after: &Object) {
    let issued = after.body()["status"]["certificate"].as_str();
    let (Some(issued), true) = (issued, before.body()["status"]["certificate"].is_null()) else {
        return;
    };
    let Ok(request) = parse(after.key(), after.body()) else {
        return;
    };
    let name = after.key().name.clone();
    let uri = format!("/apis/{CERTIFICATES_GROUP}/v1/certificatesigningrequests/{name}/approval");
    let mut event = Event::begin(uri, "sign".to_owned());
    event.level = Level::Metadata;
    event.user = Some(identity(&approver.info));
    event.object = Some(ObjectReference {
        resource: after.key().resource.plural().to_owned(),
        name,
        api_group: CERTIFICATES_GROUP.to_owned(),
        ..ObjectReference::default()
    });
    event.code = StatusCode::OK.as_u16();
    event.notes = vec![
        ("hive.dev/certified-user", request.user().to_owned()),
        ("hive.dev/certified-groups", request.groups().join(",")),
    ];
    let pem = BASE64.decode(issued).ok();
    if let Some(fingerprint) = pem.and_then(|pem| client_certificate_fingerprint(&pem)) {
        event
            .notes
            .push(("hive.dev/certificate-sha256", fingerprint));
    }
    context.audit.record(&event).await;
}

/// What an approver must be allowed beside the write itself, as in Kubernetes.
fn approval(body: &Value) -> ResourceAttributes<'_> {
    ResourceAttributes {
        verb: "approve",
        group: CERTIFICATES_GROUP,
        resource: "signers",
        name: Some(body["spec"]["signerName"].as_str().unwrap_or(CLIENT_SIGNER)),
        ..ResourceAttributes::default()
    }
}

async fn may(context: &Api, user: &User, asked: &ResourceAttributes<'_>) -> Result<(), ApiError> {
    auth::authorize(context, user, &Attributes::Resource(asked.clone())).await
}

/// When conditions were made, where their writer left that out.
fn stamp(body: &mut Value, now: SystemTime) {
    let now = objects::timestamp(now);
    let conditions = body["status"]["conditions"].as_array_mut();
    for condition in conditions.into_iter().flatten() {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if !condition[field].is_string() {
                condition[field] = json!(now);
            }
        }
    }
}
