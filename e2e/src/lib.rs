//! Swarms of real processes on this machine: started, watched, broken, and put together again.
//!
//! Everything here goes through what a person has: the program `hive`, its API, its ports, its data
//! directories and its logs. Tests wait on conditions with deadlines; nothing sleeps and hopes.

pub mod collector;
pub mod control_group;
pub mod ctl;
pub mod faults;
pub mod guests;
pub mod load;
pub mod member;
pub mod ports;
pub mod program;
pub mod registry;
pub mod steps;
pub mod swarm;
pub mod transcript;
pub mod turn;
pub mod wait;
pub mod web;

pub use ctl::Output;
pub use guests::Guest;
pub use program::hive;
pub use steps::Steps;
pub use swarm::Swarm;
pub use turn::Turn;
pub use wait::until;
