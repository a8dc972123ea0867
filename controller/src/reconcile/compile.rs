//! Compiling functions' components ahead of time, once for each kind of node.

mod plan;
mod run;

pub use run::Compilation;
