//! Controllers that are cut off, killed, stopped, starved of their disks and lied to about the time,
//! while clients write down what they see.
//!
//! Everything runs in a sandbox of namespaces that the kernel takes away with its last process: see
//! [`sandbox`]. Each fault leaves proof that it happened; every random choice comes from one seed.

pub mod client;
pub mod cluster;
pub mod disk;
pub mod levers;
pub mod nemesis;
pub mod network;
pub mod report;
pub mod sandbox;
pub mod seed;
pub mod tool;
pub mod watch;
pub mod workload;

pub use client::{Access, Door, Heard};
pub use cluster::Cluster;
pub use seed::Seed;
