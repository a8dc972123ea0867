//! The controller: Raft store, API, reconcilers, agent gateway and ingress of a swarm.
//!
//! `state` is pure and knows nothing of the rest; `store` makes it durable and agreed on; `api`,
//! `gateway`, `reconcile` and `ingress` read it and propose commands. `run` wires them together.

// A file that tests here share with those in `tests/` names the crate as they do.
#[cfg(test)]
extern crate self as hive_controller;

mod accept;
pub mod access;
pub mod api;
pub mod artifacts;
pub mod audit;
pub mod backup;
pub mod challenges;
mod client_tls;
pub mod command;
pub mod config;
pub mod controllers;
pub mod data_dir;
mod deletion;
pub mod encryption;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz;
pub mod gateway;
mod histogram;
mod holdings;
pub mod https;
pub mod identity_files;
pub mod ingress;
pub mod kubeconfig;
mod label_selector;
pub mod leave;
mod linger;
mod node_conditions;
mod node_record;
pub mod objects;
mod own_certificate;
mod patience;
pub mod peers;
pub mod reconcile;
pub mod recover;
mod references;
pub mod restore;
pub mod run;
mod served_certificate;
pub mod setup;
pub mod spans;
pub mod state;
pub mod store;
pub mod together;
pub mod traffic;
pub mod tunnels;
