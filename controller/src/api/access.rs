//! Reviews: a user asks who they are and what they may do.

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReviewStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Call;
use super::auth::{Attributes, Verb};
use super::errors::ApiError;
use super::limits::object_body;
use super::media::parse_body;
use super::path::Target;
use super::respond;
use crate::access::tokens::Role;

pub(super) async fn serve(target: &Target, call: Call, body: Body) -> Result<Response, ApiError> {
    if call.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let user = call.user;
    let body = object_body(&call.headers, body).await?;
    match target {
        Target::SelfReview => {
            let review = SelfSubjectReview {
                metadata: ObjectMeta::default(),
                status: Some(SelfSubjectReviewStatus {
                    user_info: Some(UserInfo {
                        username: Some(user.name()),
                        groups: Some(user.groups().into()),
                        ..UserInfo::default()
                    }),
                }),
            };
            respond::json(StatusCode::CREATED, &review)
        }
        _ => {
            let mut review: SelfSubjectAccessReview =
                serde_json::from_value(parse_body(&call.headers, &body)?).map_err(|error| {
                    ApiError::BadRequest(format!(
                        "the body is not a SelfSubjectAccessReview: {error}"
                    ))
                })?;
            review.status = Some(decide(&review, user.role)?);
            respond::json(StatusCode::CREATED, &review)
        }
    }
}

fn decide(
    review: &SelfSubjectAccessReview,
    role: Role,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let verdict = |allowed: bool, reason: String| SubjectAccessReviewStatus {
        allowed,
        reason: Some(reason),
        ..SubjectAccessReviewStatus::default()
    };
    if review.spec.non_resource_attributes.is_some() {
        return Ok(verdict(true, "every token may discover".into()));
    }
    let asked = review.spec.resource_attributes.as_ref().ok_or_else(|| {
        ApiError::BadRequest(
            "spec.resourceAttributes or spec.nonResourceAttributes is needed".into(),
        )
    })?;
    fn given(field: &Option<String>) -> Option<&str> {
        field.as_deref().filter(|text| !text.is_empty())
    }
    let verb = given(&asked.verb).unwrap_or_default();
    // Wildcards and verbs unknown here ask for everything.
    let (Some(verb), true) = (
        Verb::from_name(verb),
        given(&asked.resource).is_some_and(|resource| resource != "*"),
    ) else {
        return Ok(verdict(
            role == Role::Admin,
            format!("role {:?}", role.name()),
        ));
    };
    let attributes = Attributes {
        verb,
        group: given(&asked.group).unwrap_or_default(),
        resource: given(&asked.resource).unwrap_or_default(),
        subresource: given(&asked.subresource),
        namespace: given(&asked.namespace),
        name: given(&asked.name),
    };
    Ok(if attributes.allowed_to(role) {
        verdict(true, format!("role {:?}", role.name()))
    } else {
        verdict(false, attributes.refusal(role))
    })
}
