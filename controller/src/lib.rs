//! The controller: Raft store, API, reconcilers, agent gateway and ingress of a swarm.

pub mod state;
