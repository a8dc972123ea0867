//! What people declare: the kinds, their defaults, their validation and where a mistake is.
//!
//! The same Rust types give objects their shape, the CRDs and the JSON schemas.
//! This crate never opens a socket, starts a task, or reads a file that it was not handed.

pub mod assignment;
pub mod duration;
pub mod function;
pub mod node;
pub mod quantity;
pub mod resource;

pub use assignment::{Assignment, AssignmentSpec, AssignmentStatus, Phase};
pub use function::{Function, FunctionSpec, FunctionStatus};
pub use node::{Node, NodeSpec, NodeStatus};
pub use resource::{GROUP, Resource};
