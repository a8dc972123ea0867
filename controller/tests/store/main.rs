//! The replicated store as the rest of the controller sees it: one replica, and three that lose
//! each other in every way.

mod cluster;
mod single;
mod swarm;
