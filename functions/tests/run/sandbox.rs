//! What the sandbox keeps from a guest: a test a claim, on guests that try it.

mod bounds;
mod egress;
mod files;
mod memory;
mod network;
mod probe;
mod time;

use std::sync::LazyLock;

use hive_functions::FunctionOptions;
use http_body_util::BodyExt;

use crate::{
    guests::{Loaded, compiled, get_of, limits, load_compiled, options},
    scratch::SERVICES_0_3,
};

/// Compiled once for all tests: it is the largest guest here.
pub static PROBE: LazyLock<Vec<u8>> =
    LazyLock::new(|| compiled(include_bytes!("../guests/probe/probe.wasm")));

/// The probe, which does what the path of a request says: `tests/guests/probe/README.md`.
fn probe() -> Loaded {
    probe_with(|_| ())
}

pub fn probe_with(change: impl FnOnce(&mut FunctionOptions)) -> Loaded {
    loaded(&PROBE, change)
}

fn loaded(code: &[u8], change: impl FnOnce(&mut FunctionOptions)) -> Loaded {
    load_compiled(code, |logs| {
        let mut options = options(limits(), logs);
        change(&mut options);
        options
    })
}

/// The probe, of WASI 0.2, and a guest of 0.3 that does the same by 0.3:
/// `tests/guests/services-p3/README.md`.
fn both() -> [Loaded; 2] {
    both_with(|_| ())
}

fn both_with(change: impl Fn(&mut FunctionOptions)) -> [Loaded; 2] {
    [loaded(&PROBE, &change), loaded(&SERVICES_0_3, &change)]
}

/// What it answers, which must be an answer: who is refused lives on.
async fn answer(probe: &Loaded, target: &str) -> String {
    let response = probe.function.handle(get_of(target)).await.unwrap();
    assert_eq!(response.status(), 200, "{target}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Each of these is refused, and what is refused leaves no trace on the function.
async fn all_refused(targets: &[&str]) {
    refused(&probe(), targets).await;
}

/// The same, by either WASI.
async fn all_refused_by_both(targets: &[&str]) {
    for probe in both() {
        refused(&probe, targets).await;
    }
}

async fn refused(probe: &Loaded, targets: &[&str]) {
    for target in targets {
        let answer = answer(probe, target).await;
        assert!(answer.starts_with("refused "), "{target}: {answer}");
    }
    assert_eq!(probe.function.usage().errors, 0);
}
