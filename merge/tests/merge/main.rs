//! What people can rely on when several of them write one object.
#![allow(clippy::unwrap_used)]

mod kind;
mod ownership;
mod properties;
