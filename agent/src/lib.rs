//! The agent: makes a machine run what the controllers want of it, and goes on while cut off.
//!
//! Desired state comes in over a session, lands in the ledger, and is reconciled: artifacts are
//! fetched, functions loaded and served, to the local network and to the controllers' ingress.
//! `run` is the only place where the parts are wired together; nothing here listens to anybody but
//! the controllers of the swarm that the node joined.

mod artifacts;
mod config;
mod controllers;
mod declared;
mod desired;
mod enrol;
mod events;
#[cfg(test)]
mod fuzz;
mod ids;
mod key_value;
mod ledger;
mod links;
mod logs;
mod metering;
mod os;
mod pressure;
mod reconcile;
mod renew;
mod resources;
mod run;
mod runtime;
mod scratch;
mod serve;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod start;
mod tunnels;
mod usage;

pub use config::{AgentArgs, Config, ConfigError, Listen, Metered};
pub use run::Agent;
pub use start::{run, start};
pub use tunnels::TunnelTargets;
