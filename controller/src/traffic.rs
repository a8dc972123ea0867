//! What is asked of functions. Each ingress counts it by function and revision, and tells the leader with
//! its presence, every second; the leader keeps the last minutes of it.
//!
//! Soft state: nothing of it is written anywhere. Who decides by it must do no harm where it is empty, as
//! it is when another controller begins to lead.

mod counts;
mod heard;
mod outcome;
mod window;

pub use counts::{Counted, Counting, Loads, MAX_LOADS, Told};
pub use heard::Traffic;
pub use outcome::Outcome;
pub use window::{LONGEST, Sum};
