//! What the API answers, asked over its router with a real single-member replica behind it.
#![allow(clippy::unwrap_used)]

mod agents;
#[path = "../../src/fixture/alone.rs"]
mod alone;
mod apply;
mod artifacts;
mod audit;
mod batches;
mod certificates;
mod compiling;
mod controllers;
mod deletion;
mod discovery;
mod dry_run;
mod encoding;
mod fairness;
mod functions;
mod garbage;
mod harness;
mod lists;
mod metering;
mod objects;
mod patches;
mod quotas;
mod rbac;
mod revisions;
mod roles;
mod service_accounts;
mod tables;
mod together;
mod tunnel_requests;
mod tunnels;
mod waiting;
mod watches;
