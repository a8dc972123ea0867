//! What people are told while a large component is compiled: for which kind of machine, and how long it may take.
//!
//! It is told once when it begins and once when it is done: a clock that ticks through Raft would help nobody.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use hive_manifests::function::CompiledArtifact;

use crate::objects::{self, EditError};
use crate::reconcile::events::{self, Notice};
use crate::state::Key;
use crate::together::Together;

/// A smaller component is done before anybody looks, on any machine that can be a controller.
const WORTH_TELLING: u64 = 1 << 20;

/// How fast the last compilation for a target was, in bytes of the component a second.
#[derive(Debug, Default)]
pub struct Rates(HashMap<String, f64>);

impl Rates {
    pub fn learn(&mut self, target: &str, size: u64, took: Duration) {
        // A small one says more about how long a process takes to start.
        if size >= WORTH_TELLING {
            self.0.insert(
                target.to_owned(),
                size as f64 / took.as_secs_f64().max(0.001),
            );
        }
    }

    pub fn estimate(&self, target: &str, size: u64) -> Option<Duration> {
        let rate = self.0.get(target)?;
        Duration::try_from_secs_f64(size as f64 / rate).ok()
    }
}

/// A compilation that begins.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    pub target: &'a str,
    /// Which one of the targets it is, from 1.
    pub number: usize,
    pub targets: usize,
    /// Of the component, in bytes.
    pub size: u64,
    pub estimate: Option<Duration>,
}

impl Progress<'_> {
    pub fn is_worth_telling(&self) -> bool {
        self.size >= WORTH_TELLING
    }
}

impl std::fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "for {}", self.target)?;
        if self.targets > 1 {
            write!(f, " ({} of {})", self.number, self.targets)?;
        }
        write!(f, ", {}", mebibytes(self.size))?;
        if let Some(estimate) = self.estimate {
            write!(f, ", about {}", about(estimate))?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Tells that a compilation begins.
pub async fn begun(writer: &Together, functions: &[Key], progress: &Progress<'_>) {
    let message = progress.to_string();
    for key in functions {
        let written = objects::edit(writer, key, |body| {
            let status = &mut body["status"];
            let now = SystemTime::now();
            objects::set_condition(status, "Compiled", "False", "Compiling", &message, now)
        })
        .await;
        match written {
            Ok(()) | Err(EditError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(function = %key, %error, "cannot write that it is being compiled");
            }
        }
        record(writer, key, "Compiling", message.clone()).await;
    }
}

/// Tells that it is done; the condition comes with the records.
pub async fn done(
    writer: &Together,
    functions: &[Key],
    artifact: &CompiledArtifact,
    took: Duration,
) {
    let message = format!(
        "for {} in {:.1} s, {}",
        artifact.target,
        took.as_secs_f64(),
        mebibytes(artifact.size)
    );
    for key in functions {
        record(writer, key, "Compiled", message.clone()).await;
    }
}

async fn record(writer: &Together, key: &Key, reason: &str, message: String) {
    let notice = Notice {
        warning: false,
        reason: reason.to_owned(),
        message,
        source: "compiler".to_owned(),
        count: 1,
    };
    events::record(writer, key, notice).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_compiled_and_how_long_that_took_before() {
        let mut rates = Rates::default();
        let mut progress = Progress {
            target: "pulley64",
            number: 2,
            targets: 2,
            size: 13_000_000,
            estimate: rates.estimate("pulley64", 13_000_000),
        };
        assert!(progress.is_worth_telling());
        assert_eq!(progress.to_string(), "for pulley64 (2 of 2), 12.4 MiB");
        rates.learn("pulley64", 26_000_000, Duration::from_secs(40));
        rates.learn("pulley64", 100, Duration::from_secs(1));
        progress.estimate = rates.estimate("pulley64", 13_000_000);
        progress.targets = 1;
        assert_eq!(progress.to_string(), "for pulley64, 12.4 MiB, about 20 s");
        assert_eq!(rates.estimate("arm", 1), None);
        assert_eq!(about(Duration::from_secs(130)), "3 min");
        assert_eq!(about(Duration::ZERO), "1 s");
        assert!(
            !Progress {
                size: 1,
                ..progress
            }
            .is_worth_telling()
        );
    }
}
