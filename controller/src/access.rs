//! Who may do what: the tokens that tell who asks.
//!
//! Everything here is read from the replicated state at each request, so that a change counts from
//! the commit on. It must never hand a secret on: what is stored and logged are hashes and names.

pub mod tokens;
