//! Why requests fail, for machines: a fixed set of words, so that what counts by them stays small
//! whoever says them.

/// Why a request got no response, or not all of it. At the end new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Overloaded,
    QueueTimeout,
    Timeout,
    CpuTimeout,
    MemoryLimit,
    NodeMemory,
    HandleLimit,
    ResponseTooLarge,
    Trap,
    NoResponse,
    ErrorCode,
    HostError,
    CodeUnusable,
    MemoryPressure,
}

impl Reason {
    /// In order, each at its own place.
    pub const ALL: [Self; 14] = [
        Self::Overloaded,
        Self::QueueTimeout,
        Self::Timeout,
        Self::CpuTimeout,
        Self::MemoryLimit,
        Self::NodeMemory,
        Self::HandleLimit,
        Self::ResponseTooLarge,
        Self::Trap,
        Self::NoResponse,
        Self::ErrorCode,
        Self::HostError,
        Self::CodeUnusable,
        Self::MemoryPressure,
    ];

    /// The word in Events, in answers' `x-hive-reason` and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "Overloaded",
            Self::QueueTimeout => "QueueTimeout",
            Self::Timeout => "Timeout",
            Self::CpuTimeout => "CpuTimeout",
            Self::MemoryLimit => "MemoryLimit",
            Self::NodeMemory => "NodeMemory",
            Self::HandleLimit => "HandleLimit",
            Self::ResponseTooLarge => "ResponseTooLarge",
            Self::Trap => "Trap",
            Self::NoResponse => "NoResponse",
            Self::ErrorCode => "ErrorCode",
            Self::HostError => "HostError",
            Self::CodeUnusable => "CodeUnusable",
            Self::MemoryPressure => "MemoryPressure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_place() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }
}
