//! Who may do what: users, the roles bound to them, and the tokens that tell who asks.
//!
//! Everything here is read from the replicated state at each request, so that a change counts from
//! the commit on. It must never hand a secret on: what is stored and logged are hashes and names.

pub mod attributes;
pub mod bootstrap;
pub mod certificates;
pub mod escalation;
pub mod index;
pub mod jwt;
pub mod oidc;
pub mod rbac;
pub mod rules;
pub mod service_accounts;
pub mod tokens;
pub mod user;
