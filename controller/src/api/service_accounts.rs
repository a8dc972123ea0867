//! Tokens of service accounts on request, and what others need to verify them.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::Response;
use hive_manifests::Resource;
use http::{HeaderValue, Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::errors::{ApiError, Cause};
use super::limits::object_body;
use super::media::parse_body;
use super::{Api, Call, respond};
use crate::access::service_accounts::{DEFAULT_LIFETIME, Grant, MAX_LIFETIME, MIN_LIFETIME, Named};
use crate::state::{Key, Object};

/// More than any token needs, and they fit a header.
const MAX_AUDIENCES: usize = 16;
const MAX_AUDIENCE_BYTES: usize = 256;

/// Keys change with the swarm's CA only; an hour is what Kubernetes says.
const KEYS_MAX_AGE: &str = "public, max-age=3600";

/// `POST serviceaccounts/{name}/token`
pub(super) async fn token(
    context: &Api,
    key: &Key,
    call: Call,
    body: Body,
) -> Result<Response, ApiError> {
    if call.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let body = object_body(&call.headers, body).await?;
    let mut request: TokenRequest =
        serde_json::from_value(with_audiences(parse_body(&call.headers, &body)?)).map_err(
            |error| ApiError::BadRequest(format!("the body is not a TokenRequest: {error}")),
        )?;
    let account = context.find(key).await?;
    if account.is_being_deleted() {
        return Err(ApiError::forbidden(
            key,
            "the service account is being deleted",
        ));
    }
    let spec = &mut request.spec;
    let (lifetime, warning) = lifetime(key, spec.expiration_seconds)?;
    if spec.audiences.is_empty() {
        spec.audiences = vec![context.issuer.url().to_owned()];
    }
    check_audiences(key, &spec.audiences)?;
    let bound_to = match &spec.bound_object_ref {
        None => None,
        Some(reference) => Some(bound_object(context, key, reference).await?),
    };
    spec.expiration_seconds = i64::try_from(lifetime.as_secs()).ok();
    let grant = Grant {
        audiences: spec.audiences.clone(),
        lifetime,
        bound_to,
    };
    let (token, end) = context.issuer.issue(&account, grant, SystemTime::now());
    let end = k8s_openapi::jiff::Timestamp::try_from(end).map_err(ApiError::internal)?;
    tracing::info!(account = %key, user = call.user.info.name, "issued a token");
    request.metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        ..ObjectMeta::default()
    };
    request.status = Some(TokenRequestStatus {
        expiration_timestamp: Time(end),
        token,
    });
    let response = respond::json(StatusCode::CREATED, &request)?;
    Ok(respond::warn(
        response,
        &warning.into_iter().collect::<Vec<_>>(),
    ))
}

/// Clients leave the audiences out, which the type takes for an error.
fn with_audiences(mut request: Value) -> Value {
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    if request["spec"]["audiences"].is_null() {
        request["spec"]["audiences"] = json!([]);
    }
    request
}

fn invalid(key: &Key, field: &str, message: String) -> ApiError {
    ApiError::Invalid {
        resource: key.resource,
        name: key.name.clone(),
        causes: vec![Cause {
            field: field.into(),
            reason: "FieldValueInvalid",
            message,
        }],
    }
}

/// As asked, within bounds; as Kubernetes does it, one that is too long is cut and too short refused.
fn lifetime(key: &Key, asked: Option<i64>) -> Result<(Duration, Option<String>), ApiError> {
    let Some(asked) = asked else {
        return Ok((DEFAULT_LIFETIME, None));
    };
    match u64::try_from(asked).map(Duration::from_secs) {
        Ok(wanted) if wanted > MAX_LIFETIME => {
            let warning = format!(
                "requested expiration of {asked} seconds shortened to {} seconds",
                MAX_LIFETIME.as_secs()
            );
            Ok((MAX_LIFETIME, Some(warning)))
        }
        Ok(wanted) if wanted >= MIN_LIFETIME => Ok((wanted, None)),
        _ => Err(invalid(
            key,
            "spec.expirationSeconds",
            format!(
                "{asked}: may not specify a duration less than {} seconds",
                MIN_LIFETIME.as_secs()
            ),
        )),
    }
}

fn check_audiences(key: &Key, audiences: &[String]) -> Result<(), ApiError> {
    let good = |audience: &String| !audience.is_empty() && audience.len() <= MAX_AUDIENCE_BYTES;
    if audiences.len() <= MAX_AUDIENCES && audiences.iter().all(good) {
        return Ok(());
    }
    Err(invalid(
        key,
        "spec.audiences",
        format!("at most {MAX_AUDIENCES}, of 1 to {MAX_AUDIENCE_BYTES} bytes each"),
    ))
}

/// A token may be bound to a Secret: who deletes that ends the token.
async fn bound_object(
    context: &Api,
    key: &Key,
    reference: &BoundObjectReference,
) -> Result<Named, ApiError> {
    const FIELD: &str = "spec.boundObjectRef";
    let kind = reference.kind.as_deref().unwrap_or_default();
    let version = reference.api_version.as_deref().unwrap_or("v1");
    if (version, kind) != ("v1", Resource::Secret.kind()) {
        return Err(invalid(
            key,
            FIELD,
            format!("cannot bind token to {kind:?} of {version:?}: only to a v1 Secret"),
        ));
    }
    let name = reference.name.as_deref().unwrap_or_default();
    let object = context
        .find(&Key::new(Resource::Secret, &key.namespace, name))
        .await?;
    let uid = Object::uid(&object);
    if reference
        .uid
        .as_deref()
        .is_some_and(|wanted| !wanted.is_empty() && wanted != uid)
    {
        let message = format!("the Secret {name:?} has another uid, {uid}");
        return Err(ApiError::conflict(object.key(), message));
    }
    Ok(Named {
        name: name.to_owned(),
        uid: uid.to_owned(),
    })
}

/// `/.well-known/openid-configuration`
pub(super) fn configuration(context: &Api, method: &Method) -> Result<Response, ApiError> {
    let state = context.replica.state();
    let own = context.replica.id();
    let api = state
        .controllers()
        .find(|(id, _)| *id == own)
        .map(|(_, member)| member.api.clone())
        .unwrap_or_default();
    let document = json!({
        "issuer": context.issuer.url(),
        "jwks_uri": format!("https://{api}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
    });
    public(method, &document, "application/json")
}

/// `/openid/v1/jwks`
pub(super) fn keys(context: &Api, method: &Method) -> Result<Response, ApiError> {
    public(
        method,
        &context.issuer.key_set(),
        "application/jwk-set+json",
    )
}

fn public(method: &Method, document: &Value, kind: &'static str) -> Result<Response, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed);
    }
    let mut response = respond::json(StatusCode::OK, document)?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static(KEYS_MAX_AGE),
    );
    Ok(response)
}
