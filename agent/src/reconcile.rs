//! Makes the node run what the ledger says.
//!
//! [`wanted`] vets the desired set, [`observed`] is what is so, [`plan`] says which steps lead from
//! one to the other, [`settle`] has them taken until none is left, [`execute`] takes them (with [`load`]) and
//! [`report`] and [`holdings`] tell the controllers. Waking up carries no data: whatever woke the loop, it looks at everything again.

pub mod backoff;
pub mod execute;
pub mod holdings;
pub mod load;
pub mod observed;
pub mod plan;
mod probe;
pub mod report;
pub mod settle;
pub mod wanted;
