//! One operation of one client on one object, as the client saw it.

use std::fmt;

/// What an object holds. Each write should write another value: what two writes have in common,
/// no reader can tell apart.
pub type Value = u64;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Read,
    /// Makes an object that is not there.
    Create(Value),
    /// Changes an object that is there, whatever it holds.
    Update(Value),
    /// Changes an object that holds what is expected.
    Swap {
        expected: Value,
        value: Value,
    },
    /// Removes an object that is there.
    Delete,
}

/// What the client knows of it at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was performed.
    Done,
    /// It changed nothing, and this is what was there (`None`: no object).
    Found(Option<Value>),
    /// It changed nothing and will not, and says nothing of what was there.
    Failed,
    /// It may have been performed, or may be performed at any time after.
    Unknown,
}

/// Times are of one clock, in whatever unit; those of an unknown outcome end when the client gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub client: u32,
    pub key: String,
    pub began: u64,
    pub ended: u64,
    pub action: Action,
    pub outcome: Outcome,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14} ", self.began)?;
        match self.outcome {
            Outcome::Unknown => write!(f, "{:>14}", "-")?,
            _ => write!(f, "{:>14}", self.ended)?,
        }
        write!(f, "  client {:<3} ", self.client)?;
        match self.action {
            Action::Read => write!(f, "read")?,
            Action::Create(value) => write!(f, "create {value}")?,
            Action::Update(value) => write!(f, "update to {value}")?,
            Action::Swap { expected, value } => write!(f, "swap {expected} for {value}")?,
            Action::Delete => write!(f, "delete")?,
        }
        match self.outcome {
            Outcome::Done => write!(f, ": done"),
            Outcome::Found(Some(value)) => write!(f, ": found {value}"),
            Outcome::Found(None) => write!(f, ": found nothing"),
            Outcome::Failed => write!(f, ": failed"),
            Outcome::Unknown => write!(f, ": unknown"),
        }
    }
}
