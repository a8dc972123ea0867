//! What people declare: the kinds, their defaults, their validation and where a mistake is.
//!
//! Text of manifests flows in and becomes [`Document`]s; JSON objects are checked by [`validate`]
//! and completed by [`apply_defaults`]; the same Rust types give the CRDs and the JSON schemas.
//! This crate never opens a socket, starts a task, or reads a file that it was not handed.

pub mod age;
pub mod assignment;
pub mod autoscaling;
pub mod certificates;
pub mod controller;
pub mod defaults;
pub mod document;
pub mod duration;
pub mod field_path;
pub mod function;
#[cfg(test)]
mod fuzz;
pub mod generated;
pub mod http;
pub mod instances;
pub mod node;
pub mod placement;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod rollout;
pub mod schedule;
pub mod schema;
pub mod tunnel;
pub mod validate;

pub use assignment::{Assignment, AssignmentSpec, AssignmentStatus, Phase, PreviousPlace};
pub use controller::{Controller, ControllerSpec, ControllerStatus};
pub use defaults::apply_defaults;
pub use document::{Document, DocumentError, MAX_MANIFEST_BYTES};
pub use field_path::{FieldPath, Segment};
pub use function::{Function, FunctionSpec, FunctionStatus};
pub use node::{Node, NodeSpec, NodeStatus};
pub use resource::{APPS_GROUP, CERTIFICATES_GROUP, GROUP, RBAC_GROUP, Resource};
pub use schema::{controller_schema, crd, openapi_schema};
pub use tunnel::{Tunnel, TunnelSpec, TunnelStatus};
pub use validate::{FieldError, MAX_OBJECT_BYTES, Reason, resource_of, validate, validate_stored};
