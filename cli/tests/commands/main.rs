//! hivectl as its users see it: commands in, transcripts out, against a fake API server.

#![allow(clippy::unwrap_used)]

mod apply;
mod controllers;
mod create;
mod fake;
mod get;
mod harness;
mod login;
mod objects;
mod push;
mod rollouts;
mod servers;
mod tokens;
mod tunnels;
