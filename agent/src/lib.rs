//! The agent: makes a machine run what the controllers want of it, and goes on while cut off.
//!
//! Desired state comes in over a session, lands in the ledger, and is reconciled: artifacts are
//! fetched, functions loaded and served, to the local network and to the controllers' ingress.
//! [`run`] is the only place where the parts are wired together.

pub mod artifacts;
pub mod declared;
pub mod desired;
pub mod events;
pub mod ids;
pub mod ledger;
pub mod logs;
mod os;
pub mod reconcile;
