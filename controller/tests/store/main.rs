//! The replicated store as the rest of the controller sees it: one replica, and three that lose
//! each other in every way.

#![allow(clippy::unwrap_used)]

mod beginning_anew;
mod bounded;
mod cluster;
mod links;
mod single;
mod swarm;
