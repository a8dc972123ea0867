//! Who owns which field of an object, and how what several owners declare becomes one object.
//!
//! JSON objects and the schema of their kind flow in; objects, sets of fields and conflicts flow
//! out, as in Kubernetes' server-side apply and strategic merge patch. Pure: no clock, no I/O, and
//! nothing here decides what is valid.

mod combine;
mod compare;
mod config;
pub mod field_set;
#[cfg(test)]
mod fuzz;
mod managers;
mod ownership;
mod path;
mod remove;
mod scope;
mod shape;
pub mod strategic;
mod tracked;

pub use combine::merge;
pub use compare::{Comparison, compare};
pub use config::ConfigError;
pub use field_set::{BadFields, FieldSet};
pub use managers::{BadEntry, Entry, MAX_UPDATE_ENTRIES, Managers, Operation, Writer};
pub use ownership::{Applied, ApplyError, Conflict, Conflicts, apply, update};
pub use path::{Path, PathElement, Scalar};
pub use remove::remove_items;
pub use scope::Scope;
pub use tracked::to_field_set;
