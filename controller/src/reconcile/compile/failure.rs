//! Why there is no compiled artifact, in words for people, and when another attempt is worth its cost.

use std::time::Duration;

use hive_manifests::quantity::Bytes;

/// What was missing (disk, another controller) may be there soon.
const SOON: Duration = Duration::from_secs(30);

/// After as much work as there may be: another controller may lead by then, on a larger machine.
const LATE: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileFailure {
    /// The component itself is at fault.
    #[error("{0}")]
    Component(String),
    #[error(
        "the compiler needs more than {limit} of memory, which is the most on this controller: make the component \
         smaller, or start the controllers with a greater --compile-memory"
    )]
    Memory { limit: Bytes },
    /// Nobody set a limit: the machine had no more.
    #[error("the machine of this controller has not enough memory left for the compiler")]
    NoMemory,
    #[error("the compiler was not done after {} minutes: make the component smaller", limit.as_secs().div_ceil(60))]
    Time { limit: Duration },
    #[error("the compiler crashed: {0}")]
    Crashed(String),
    /// Something was missing that has nothing to do with the component.
    #[error("{0}")]
    Hindered(String),
}

impl CompileFailure {
    /// For conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Component(_) | Self::Hindered(_) => "CompileFailed",
            Self::Memory { .. } | Self::NoMemory => "CompilerMemory",
            Self::Time { .. } => "CompilerTimeout",
            Self::Crashed(_) => "CompilerCrashed",
        }
    }

    /// After what time it is worth another attempt, if ever.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Component(_) => None,
            Self::Hindered(_) => Some(SOON),
            Self::Memory { .. } | Self::NoMemory | Self::Time { .. } | Self::Crashed(_) => {
                Some(LATE)
            }
        }
    }
}
