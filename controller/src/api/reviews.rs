//! Reviews: who somebody is, and what they may do. Asked by creating one; nothing is stored.

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule,
    ResourceAttributes as AskedResource, ResourceRule, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::auth;
use super::errors::ApiError;
use super::limits::object_body;
use super::media::parse_body;
use super::respond;
use super::{Api, Call};
use crate::access::attributes::{Attributes, ResourceAttributes};
use crate::access::rbac;
use crate::access::user::{MASTERS, UserInfo};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    SelfSubject,
    SelfAccess,
    SelfRules,
    Access,
    LocalAccess,
    Token,
}

impl Review {
    pub const ALL: [Self; 6] = [
        Self::SelfSubject,
        Self::Token,
        Self::SelfAccess,
        Self::SelfRules,
        Self::Access,
        Self::LocalAccess,
    ];

    pub fn group(self) -> &'static str {
        match self {
            Self::SelfSubject | Self::Token => "authentication.k8s.io",
            Self::SelfAccess | Self::SelfRules | Self::Access | Self::LocalAccess => {
                "authorization.k8s.io"
            }
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Self::SelfSubject => "selfsubjectreviews",
            Self::Token => "tokenreviews",
            Self::SelfAccess => "selfsubjectaccessreviews",
            Self::SelfRules => "selfsubjectrulesreviews",
            Self::Access => "subjectaccessreviews",
            Self::LocalAccess => "localsubjectaccessreviews",
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::SelfSubject => "SelfSubjectReview",
            Self::Token => "TokenReview",
            Self::SelfAccess => "SelfSubjectAccessReview",
            Self::SelfRules => "SelfSubjectRulesReview",
            Self::Access => "SubjectAccessReview",
            Self::LocalAccess => "LocalSubjectAccessReview",
        }
    }

    pub fn namespaced(self) -> bool {
        self == Self::LocalAccess
    }

    pub fn by_plural(group: &str, plural: &str, namespaced: bool) -> Option<Self> {
        Self::ALL.into_iter().find(|review| {
            review.group() == group
                && review.plural() == plural
                && review.namespaced() == namespaced
        })
    }
}

pub(super) async fn serve(
    context: &Api,
    review: Review,
    namespace: Option<String>,
    call: Call,
    body: Body,
) -> Result<Response, ApiError> {
    if call.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let user = &call.user.info;
    let body = object_body(&call.headers, body).await?;
    match review {
        Review::SelfSubject => {
            let review = authentication::SelfSubjectReview {
                metadata: ObjectMeta::default(),
                status: Some(authentication::SelfSubjectReviewStatus {
                    user_info: Some(shown(user)),
                }),
            };
            respond::json(StatusCode::CREATED, &review)
        }
        Review::Token => {
            let mut review: authentication::TokenReview = parse(&call, &body, review)?;
            review.status = Some(of_token(context, &review.spec).await);
            // The token is its bearer's, and who reviews it holds it already.
            review.spec.token = None;
            respond::json(StatusCode::CREATED, &review)
        }
        Review::SelfAccess => {
            let mut review: SelfSubjectAccessReview = parse(&call, &body, review)?;
            let asked = asked(
                review.spec.resource_attributes.as_ref(),
                review.spec.non_resource_attributes.as_ref(),
            )?;
            review.status = Some(decide(context, user, &asked));
            respond::json(StatusCode::CREATED, &review)
        }
        Review::Access => {
            let mut review: SubjectAccessReview = parse(&call, &body, review)?;
            review.status = Some(of_another(context, &review.spec)?);
            respond::json(StatusCode::CREATED, &review)
        }
        Review::LocalAccess => {
            let mut review: LocalSubjectAccessReview = parse(&call, &body, review)?;
            let about = review
                .spec
                .resource_attributes
                .as_ref()
                .ok_or_else(|| bad("spec.resourceAttributes is needed".into()))?;
            let within = namespace.unwrap_or_default();
            if about.namespace.as_deref() != Some(&within) {
                return Err(bad(format!(
                    "spec.resourceAttributes.namespace must be the namespace of the review, {within:?}"
                )));
            }
            review.status = Some(of_another(context, &review.spec)?);
            respond::json(StatusCode::CREATED, &review)
        }
        Review::SelfRules => {
            let mut review: SelfSubjectRulesReview = parse(&call, &body, review)?;
            let namespace = given(&review.spec.namespace).ok_or_else(|| {
                bad("spec.namespace is needed: the rules of one namespace are listed".into())
            })?;
            review.status = Some(rules(context, user, namespace));
            respond::json(StatusCode::CREATED, &review)
        }
    }
}

fn parse<T: DeserializeOwned>(call: &Call, body: &[u8], review: Review) -> Result<T, ApiError> {
    serde_json::from_value(parse_body(&call.headers, body)?)
        .map_err(|error| bad(format!("the body is not a {}: {error}", review.kind())))
}

fn bad(message: String) -> ApiError {
    ApiError::BadRequest(message)
}

fn given(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

/// Whose token it is, and for which of the audiences that were asked for.
async fn of_token(
    context: &Api,
    spec: &authentication::TokenReviewSpec,
) -> authentication::TokenReviewStatus {
    let own = [context.issuer.url()];
    let asked: Vec<&str> = match spec.audiences.as_deref() {
        None | Some([]) => own.to_vec(),
        Some(asked) => asked.iter().map(String::as_str).collect(),
    };
    let token = given(&spec.token).unwrap_or_default();
    match auth::of_token(context, token, &asked).await {
        Ok((user, audiences)) => authentication::TokenReviewStatus {
            authenticated: Some(true),
            user: Some(shown(&user.info)),
            audiences: Some(audiences),
            error: None,
        },
        Err(error) => authentication::TokenReviewStatus {
            authenticated: Some(false),
            error: Some(error.to_string()),
            ..authentication::TokenReviewStatus::default()
        },
    }
}

/// A user as reviews show them.
fn shown(user: &UserInfo) -> authentication::UserInfo {
    let extra = user.extra.clone();
    authentication::UserInfo {
        username: Some(user.name.clone()),
        uid: user.uid.clone(),
        groups: Some(user.groups.clone()),
        extra: Some(extra).filter(|extra| !extra.is_empty()),
    }
}

fn asked<'a>(
    resource: Option<&'a AskedResource>,
    path: Option<&'a NonResourceAttributes>,
) -> Result<Attributes<'a>, ApiError> {
    match (resource, path) {
        (Some(asked), None) => Ok(Attributes::Resource(ResourceAttributes {
            verb: given(&asked.verb).unwrap_or_default(),
            group: given(&asked.group).unwrap_or_default(),
            resource: given(&asked.resource).unwrap_or_default(),
            subresource: given(&asked.subresource),
            namespace: given(&asked.namespace),
            name: given(&asked.name),
        })),
        (None, Some(asked)) => Ok(Attributes::Path {
            verb: given(&asked.verb).unwrap_or_default(),
            path: given(&asked.path).unwrap_or_default(),
        }),
        _ => Err(bad(
            "exactly one of spec.resourceAttributes and spec.nonResourceAttributes is needed"
                .into(),
        )),
    }
}

fn of_another(
    context: &Api,
    spec: &SubjectAccessReviewSpec,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let user = UserInfo {
        name: given(&spec.user).unwrap_or_default().to_owned(),
        groups: spec.groups.clone().unwrap_or_default(),
        uid: spec.uid.clone(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(bad(
            "at least one of spec.user and spec.groups is needed".into()
        ));
    }
    let asked = asked(
        spec.resource_attributes.as_ref(),
        spec.non_resource_attributes.as_ref(),
    )?;
    Ok(decide(context, &user, &asked))
}

fn decide(context: &Api, user: &UserInfo, asked: &Attributes<'_>) -> SubjectAccessReviewStatus {
    let index = context.access.of(&context.replica.state());
    let decision = rbac::decide(&index, user, asked);
    SubjectAccessReviewStatus {
        allowed: decision.allowed,
        reason: Some(decision.reason).filter(|reason| !reason.is_empty()),
        ..SubjectAccessReviewStatus::default()
    }
}

/// All that a user may do in a namespace. A rule that only the shield of the system's namespace
/// keeps out there is not in the list.
fn rules(context: &Api, user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
    let index = context.access.of(&context.replica.state());
    let mut status = SubjectRulesReviewStatus::default();
    let everything = user.is_in(MASTERS).then(everything);
    let mut seen: Vec<&PolicyRule> = Vec::new();
    for rule in rbac::held(&index, user, Some(namespace))
        .into_iter()
        .chain(everything.iter().flatten())
    {
        if seen.contains(&rule) {
            continue;
        }
        seen.push(rule);
        let verbs = rule.verbs.clone();
        match &rule.non_resource_urls {
            Some(urls) if !urls.is_empty() => status.non_resource_rules.push(NonResourceRule {
                verbs,
                non_resource_urls: Some(urls.clone()),
            }),
            _ => status.resource_rules.push(ResourceRule {
                verbs,
                api_groups: rule.api_groups.clone(),
                resources: rule.resources.clone(),
                resource_names: rule.resource_names.clone(),
            }),
        }
    }
    status
}

/// What the group of masters may, with or without a binding that says so.
fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    [
        PolicyRule {
            verbs: verbs.clone(),
            api_groups: all(),
            resources: all(),
            ..PolicyRule::default()
        },
        PolicyRule {
            verbs,
            non_resource_urls: all(),
            ..PolicyRule::default()
        },
    ]
}
