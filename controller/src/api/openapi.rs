//! OpenAPI documents: what `kubectl explain`, client-side validation and strict clients read.
//!
//! Version 3, one document a group and version, and version 2, one for everything, as JSON and in the
//! protobuf form of older clients. The schemas are those that validate. Documents change only with
//! the program: each is made once, and its ETag is its digest.

mod operations;
mod protobuf;
mod swagger;

use std::sync::LazyLock;

use axum::response::Response;
use bytes::Bytes;
use hive_manifests::schema::structural;
use hive_manifests::{GROUP, RBAC_GROUP, Resource, controller_schema, openapi_schema};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use k8s_openapi::api::{
    authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::accept;
use super::errors::ApiError;
use super::respond;
use super::reviews::Review;

/// Group versions that have a document, by the path under `/openapi/v3/`.
const GROUP_VERSIONS: [(&str, &str); 7] = [
    ("api/v1", "v1"),
    ("apis/hive.dev/v1", "hive.dev/v1"),
    ("apis/apps/v1", "apps/v1"),
    (
        "apis/rbac.authorization.k8s.io/v1",
        "rbac.authorization.k8s.io/v1",
    ),
    ("apis/certificates.k8s.io/v1", "certificates.k8s.io/v1"),
    ("apis/authentication.k8s.io/v1", "authentication.k8s.io/v1"),
    ("apis/authorization.k8s.io/v1", "authorization.k8s.io/v1"),
];

/// The media type of version 2's protobuf form as clients ask for it. It is none by the rules, and
/// what Go reads an answer's type with refuses it: the answer's differs, as Kubernetes' does.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
pub(super) const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document as it is sent.
struct Document {
    bytes: Bytes,
    content_type: &'static str,
    /// Hex of its SHA-256.
    digest: String,
}

impl Document {
    fn new(bytes: Vec<u8>, content_type: &'static str) -> Self {
        Self {
            digest: hex::encode_upper(Sha256::digest(&bytes)),
            bytes: bytes.into(),
            content_type,
        }
    }

    fn json(document: &Value) -> Self {
        Self::new(document.to_string().into_bytes(), "application/json")
    }

    /// The document, unless the client has it already.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.digest);
        let mut response = respond::unless_known(headers, &etag, self.bytes.clone());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

static VERSION_3: LazyLock<Vec<(&str, Document)>> = LazyLock::new(|| {
    GROUP_VERSIONS
        .into_iter()
        .map(|(path, api_version)| (path, Document::json(&version_3(path, api_version))))
        .collect()
});

struct Version2 {
    json: Document,
    protobuf: Document,
}

static VERSION_2: LazyLock<Version2> = LazyLock::new(|| {
    let swagger = swagger::document();
    Version2 {
        json: Document::json(&swagger),
        protobuf: Document::new(protobuf::document(&swagger), PROTOBUF),
    }
});

pub(super) fn index() -> Result<Response, ApiError> {
    let paths: Map<String, Value> = VERSION_3
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.digest);
            ((*path).to_owned(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    respond::json(StatusCode::OK, &json!({ "paths": paths }))
}

pub(super) fn document(path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let (_, document) = VERSION_3
        .iter()
        .find(|(known, _)| *known == path)
        .ok_or(ApiError::NoSuchPath)?;
    Ok(document.answer(headers))
}

pub(super) fn everything(headers: &HeaderMap) -> Result<Response, ApiError> {
    let wanted = accept::ranges(headers)?.iter().find_map(|range| {
        if matches!(range.media_type, PROTOBUF_ASKED | PROTOBUF) {
            Some(&VERSION_2.protobuf)
        } else {
            range.takes_json().then_some(&VERSION_2.json)
        }
    });
    Ok(wanted.ok_or(ApiError::NotAcceptable)?.answer(headers))
}

fn version_3(path: &str, api_version: &str) -> Value {
    let kinds = kinds(api_version);
    let schemas = schemas(&kinds, "#/components/schemas/");
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Hive", "version": env!("CARGO_PKG_VERSION") },
        "paths": operations::paths(path, &kinds),
        "components": { "schemas": schemas },
    })
}

/// What deletions are answered with, and what they may be sent: as Kubernetes names them.
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The schemas of kinds and of what goes with them. `place` is where they lie in the document.
fn schemas(kinds: &[Kind], place: &str) -> Map<String, Value> {
    let mut schemas = Map::new();
    for kind in kinds {
        schemas.insert(kind.schema_name(), kind.schema());
        if kind.is_listed() {
            let item = format!("{place}{}", kind.schema_name());
            schemas.insert(kind.list_name(), kind.list_schema(&item));
        }
    }
    for (name, schema) in [
        (STATUS, structural::<meta::Status>()),
        (DELETE_OPTIONS, structural::<meta::DeleteOptions>()),
    ] {
        if kinds.iter().any(Kind::is_listed) {
            schemas.insert(name.to_owned(), schema);
        }
    }
    schemas
}

/// A kind that has a schema: one that is stored, one that is only asked, or one that is only seen.
#[derive(Clone, Copy)]
struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    namespaced: bool,
    asked: Asked,
}

#[derive(Clone, Copy)]
enum Asked {
    Stored(Resource),
    Review(Review),
    Controller,
    Scale,
    TokenRequest,
}

impl Kind {
    fn of(resource: Resource) -> Self {
        Self {
            group: resource.group(),
            version: resource.version(),
            name: resource.kind(),
            plural: resource.plural(),
            namespaced: resource.namespaced(),
            asked: Asked::Stored(resource),
        }
    }

    fn asked(review: Review) -> Self {
        Self {
            group: review.group(),
            version: "v1",
            name: review.kind(),
            plural: review.plural(),
            namespaced: review.namespaced(),
            asked: Asked::Review(review),
        }
    }

    const CONTROLLER: Self = Self {
        group: GROUP,
        version: "v1",
        name: "Controller",
        plural: "controllers",
        namespaced: false,
        asked: Asked::Controller,
    };

    const SCALE: Self = Self {
        group: "autoscaling",
        version: "v1",
        name: "Scale",
        plural: "",
        namespaced: true,
        asked: Asked::Scale,
    };

    const TOKEN_REQUEST: Self = Self {
        group: "authentication.k8s.io",
        version: "v1",
        name: "TokenRequest",
        plural: "",
        namespaced: true,
        asked: Asked::TokenRequest,
    };

    fn is_hive_s(&self) -> bool {
        self.group == GROUP
    }

    fn is_listed(&self) -> bool {
        matches!(self.asked, Asked::Stored(_) | Asked::Controller)
    }

    fn list_name(&self) -> String {
        format!("{}List", self.schema_name())
    }

    /// `item` is where the schema of one lies.
    fn list_schema(&self, item: &str) -> Value {
        let mut metadata = structural::<meta::ListMeta>();
        metadata["description"] =
            json!("Of which revision the list is, and where its next page begins.");
        json!({
            "type": "object",
            "description": format!("A list of objects of the kind {}.", self.name),
            "properties": {
                "apiVersion": { "type": "string", "description": "Group and version of the list." },
                "kind": { "type": "string", "description": "The kind of this list." },
                "metadata": metadata,
                "items": {
                    "type": "array",
                    "description": "The objects, sorted by namespace and name.",
                    "items": { "$ref": item },
                },
            },
            "required": ["items"],
            "x-kubernetes-group-version-kind": [{
                "group": self.group,
                "version": self.version,
                "kind": format!("{}List", self.name),
            }],
        })
    }

    /// Names as Kubernetes gives them: `io.k8s.api.core.v1.Secret`, `dev.hive.v1.Function`.
    fn schema_name(&self) -> String {
        let package = match self.group {
            "" => "io.k8s.api.core",
            "apps" => "io.k8s.api.apps",
            RBAC_GROUP => "io.k8s.api.rbac",
            "authentication.k8s.io" => "io.k8s.api.authentication",
            "authorization.k8s.io" => "io.k8s.api.authorization",
            "autoscaling" => "io.k8s.api.autoscaling",
            "certificates.k8s.io" => "io.k8s.api.certificates",
            _ => "dev.hive",
        };
        format!("{package}.{}.{}", self.version, self.name)
    }

    fn group_version_kind(&self) -> Value {
        json!({ "group": self.group, "version": self.version, "kind": self.name })
    }

    fn schema(&self) -> Value {
        let mut schema = match self.asked {
            Asked::Stored(resource) => openapi_schema(resource).clone(),
            Asked::Controller => controller_schema().clone(),
            Asked::Scale => structural::<autoscaling::Scale>(),
            Asked::TokenRequest => structural::<authentication::TokenRequest>(),
            Asked::Review(Review::SelfSubject) => structural::<authentication::SelfSubjectReview>(),
            Asked::Review(Review::Token) => structural::<authentication::TokenReview>(),
            Asked::Review(Review::SelfAccess) => {
                structural::<authorization::SelfSubjectAccessReview>()
            }
            Asked::Review(Review::SelfRules) => {
                structural::<authorization::SelfSubjectRulesReview>()
            }
            Asked::Review(Review::Access) => structural::<authorization::SubjectAccessReview>(),
            Asked::Review(Review::LocalAccess) => {
                structural::<authorization::LocalSubjectAccessReview>()
            }
        };
        schema["x-kubernetes-group-version-kind"] = json!([self.group_version_kind()]);
        name_types(&mut schema);
        schema
    }
}

fn kinds(api_version: &str) -> Vec<Kind> {
    let stored = Resource::ALL.into_iter().map(Kind::of);
    let reviews = Review::ALL.into_iter().map(Kind::asked);
    let of_version = |kind: &Kind| match kind.group {
        "" => kind.version == api_version,
        group => format!("{group}/{}", kind.version) == api_version,
    };
    let mut kinds: Vec<Kind> = stored
        .chain(reviews)
        .chain([Kind::CONTROLLER])
        .filter(of_version)
        .collect();
    // Where objects have them.
    match api_version {
        "v1" => kinds.push(Kind::TOKEN_REQUEST),
        "hive.dev/v1" => kinds.push(Kind::SCALE),
        _ => {}
    }
    kinds
}

/// A quantity is an integer or a string, which structural schemas say with an extension and no type.
/// Clients that don't know it would show an object: they are told the form that is always right.
fn name_types(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("x-kubernetes-int-or-string") && !fields.contains_key("type") {
                fields.insert("type".into(), json!("string"));
            }
            fields.values_mut().for_each(name_types);
        }
        Value::Array(items) => items.iter_mut().for_each(name_types),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
