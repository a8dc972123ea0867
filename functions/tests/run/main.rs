//! Real guests in a real engine: what a caller, and a reader of the logs, would notice.
#![allow(clippy::unwrap_used)]

mod addresses;
mod backtraces;
mod beyond;
mod egress;
mod guests;
mod host;
mod inspecting;
mod limits;
mod loading;
mod metering;
mod node_memory;
mod reuse;
mod sandbox;
mod scratch;
mod serving;
mod turns;
