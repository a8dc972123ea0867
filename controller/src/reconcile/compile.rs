//! Compiling functions' components ahead of time, once for each kind of node.

pub mod child;
mod failure;
mod plan;
mod progress;
mod run;
mod view;
mod worker;

pub use run::Compilation;
pub use worker::CompileWorker;
