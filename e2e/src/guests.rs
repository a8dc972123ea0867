//! Components to run: where they are in the repository, and those that are built from source where
//! their tools are.

use std::path::{Path, PathBuf};

/// A component, and whose toolchain made it.
#[derive(Clone, Debug)]
pub struct Guest {
    pub name: &'static str,
    pub component: PathBuf,
}

fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("e2e is in the repository").to_owned()
}

fn guest(name: &'static str, path: &str) -> Guest {
    let component = repository().join(path);
    assert!(component.is_file(), "{} is gone", component.display());
    Guest { name, component }
}

/// Does what its caller asks for: functions/tests/guests/probe/README.md.
pub fn probe() -> Guest {
    guest("probe", "functions/tests/guests/probe/probe.wasm")
}

/// Uses what the host offers besides WASI: functions/tests/guests/services/README.md.
pub fn services() -> Guest {
    guest("services", "functions/tests/guests/services/services.wasm")
}

/// The example that `hive up` deploys.
pub fn hello() -> Guest {
    guest("hello", "manifests/examples/hello/hello.wasm")
}

/// Rust, WASI 0.2, from the plain toolchain.
pub fn rust_p2() -> Guest {
    guest("rust-p2", "functions/tests/fixtures/rust-hello-p2.wasm")
}

/// The example of WASI 0.3, in Rust.
pub fn rust_p3() -> Guest {
    guest("rust-p3", "manifests/examples/rust-p3/hello_p3.wasm")
}

/// JavaScript on QuickJS, WASI 0.3.
pub fn javascript_p3() -> Guest {
    guest("js-p3", "functions/tests/fixtures/js-hello-p3.wasm")
}
