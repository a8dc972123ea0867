//! Cases that share one swarm: each is run and named, also when one before it failed.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt;

/// Cases of one test, run one after the other.
#[derive(Debug, Default)]
#[must_use = "failures are told by `finish`"]
pub struct Steps {
    failed: Vec<String>,
    run: usize,
}

impl Steps {
    pub fn new() -> Self {
        Self::default()
    }

    pub async fn run(&mut self, name: &str, case: impl Future<Output = ()>) {
        let started = Instant::now();
        let outcome = AssertUnwindSafe(case).catch_unwind().await;
        let seconds = started.elapsed().as_secs_f64();
        self.run += 1;
        match outcome {
            Ok(()) => println!("  ok      {seconds:6.2} s  {name}"),
            Err(_) => {
                println!("  FAILED  {seconds:6.2} s  {name}");
                self.failed.push(name.to_owned());
            }
        }
    }

    /// # Panics
    ///
    /// If a case failed. Its own message is above in the output.
    pub fn finish(self) {
        assert!(self.run > 0, "no case was run");
        assert!(
            self.failed.is_empty(),
            "{} of {} cases failed: {}",
            self.failed.len(),
            self.run,
            self.failed.join("; ")
        );
    }
}
