//! Says what is wrong with an object, naming the field, and the nearest name that would be right.
//!
//! A JSON object flows in; a list of [`FieldError`]s comes out, empty when the object is good. First
//! the shape is compared with the kind's schema, then the rules that a schema cannot express are
//! asked. It never panics, whatever it is given, and never repeats the content of a Secret.

mod autoscaling;
mod certificates;
mod config;
mod fields;
mod findings;
mod function;
mod hosts;
mod http;
mod metadata;
mod names;
mod owners;
mod placement;
pub mod quota;
mod rbac;
mod rollout;
mod schedules;
mod structure;
pub mod suggest;
mod taints;
mod tunnel;

use std::fmt;
use std::io;

use serde_json::Value;

use crate::schema::openapi_schema;
use crate::{FieldPath, Resource};
use findings::Findings;

pub(crate) use function::normal_digest;
pub use metadata::resource_of;

/// What one object may take as JSON: etcd's limit, so that whatever is stored here could be stored
/// in Kubernetes, and a log entry stays small enough to be replicated within a heartbeat.
pub const MAX_OBJECT_BYTES: usize = 1024 * 1024;

/// Why a field was refused; what Kubernetes' status causes tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Required,
    Unknown,
    WrongType,
    Invalid,
    Duplicate,
    Forbidden,
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Empty when it is about the whole object.
    pub path: FieldPath,
    pub reason: Reason,
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

impl FieldError {
    /// The message without the path: `unknown field; did you mean "replicas"?`.
    pub fn detail(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}; did you mean \"{suggestion}\"?", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.detail())
    }
}

impl std::error::Error for FieldError {}

/// Checks a manifest, as a person wrote it: `spec.artifact.path` may name a file.
pub fn validate(resource: Resource, value: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let root = FieldPath::root();
    if !value.is_object() {
        let found = structure::type_name(value);
        findings.push(
            &root,
            Reason::WrongType,
            format!("expected an object with apiVersion, kind and metadata, found {found}"),
        );
        return findings.into_errors();
    }
    if let Some(size) = too_large(value) {
        findings.push(
            &root,
            Reason::Invalid,
            format!("the object takes {size} bytes as JSON; at most {MAX_OBJECT_BYTES} are stored"),
        );
        return findings.into_errors();
    }
    metadata::check(resource, value, &mut findings);
    structure::check(openapi_schema(resource), value, &root, &mut findings);
    match resource {
        Resource::Function => function::check(value, &mut findings),
        Resource::Tunnel => tunnel::check(value, &mut findings),
        Resource::ResourceQuota => quota::check_quota(value, &mut findings),
        Resource::LimitRange => quota::check_limit_range(value, &mut findings),
        Resource::Node => taints::check_node(value, &mut findings),
        Resource::Secret => config::check_secret(value, &mut findings),
        Resource::ConfigMap => config::check_config_map(value, &mut findings),
        Resource::Role | Resource::ClusterRole => {
            rbac::check_role(value, resource.namespaced(), &mut findings);
        }
        Resource::RoleBinding | Resource::ClusterRoleBinding => {
            rbac::check_binding(value, resource.namespaced(), &mut findings);
        }
        Resource::CertificateSigningRequest => certificates::check(value, &mut findings),
        Resource::Namespace
        | Resource::ServiceAccount
        | Resource::Event
        | Resource::ControllerRevision
        | Resource::Assignment => {}
    }
    findings.into_errors()
}

/// Checks an object that is to be stored: as [`validate`], and a Function's component must be named
/// by its digest, because no controller can read the files of whoever sent it.
pub fn validate_stored(resource: Resource, value: &Value) -> Vec<FieldError> {
    let mut errors = validate(resource, value);
    if resource == Resource::Function
        && value
            .pointer("/spec/artifact/path")
            .is_some_and(|p| !p.is_null())
    {
        errors.push(FieldError {
            path: FieldPath::of(["spec", "artifact", "path"]),
            reason: Reason::Forbidden,
            message: "a controller cannot read your files; upload the component and name its \
                      sha256, or use `hivectl apply`, which does both"
                .into(),
            suggestion: None,
        });
    }
    errors
}

/// The size of `value` as JSON when it is over the limit, counted without building the text.
fn too_large(value: &Value) -> Option<usize> {
    struct Counter(usize);

    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(0);
    // A counter accepts every write, and a Value has no key that is not text.
    serde_json::to_writer(&mut counter, value).ok()?;
    (counter.0 > MAX_OBJECT_BYTES).then_some(counter.0)
}
