//! What the host offers besides WASI, used by a guest: each interface as its clients know it.

mod config;
mod keyvalue;
mod logging;
mod memory;
mod spin;

use std::sync::LazyLock;

use hive_functions::HostServices;
use http_body_util::BodyExt;

use crate::guests::{Loaded, compiled, get_of, limits, load_compiled, options};

const SERVICES: &[u8] = include_bytes!("../guests/services/services.wasm");

static COMPILED: LazyLock<Vec<u8>> = LazyLock::new(|| compiled(SERVICES));

/// A function that uses what the path of a request says: `tests/guests/services/README.md`.
fn given(services: HostServices) -> Loaded {
    load_compiled(&COMPILED, |logs| {
        let mut options = options(limits(), logs);
        options.services = services;
        options
    })
}

async fn answer(loaded: &Loaded, target: &str) -> String {
    let response = loaded.function.handle(get_of(target)).await.unwrap();
    assert_eq!(response.status(), 200, "{target}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
