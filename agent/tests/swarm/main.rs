//! An agent against a controller made for the test: its protocol is real, its decisions are the
//! test's. What is asserted is what the swarm, or somebody on the local network, would notice.
#![allow(clippy::unwrap_used)]

mod artifacts;
mod controller;
mod functions;
mod joining;
mod metering;
mod offline;
mod process;
mod support;
mod tunnels;
