//! The interfaces beyond WASI's releases that functions get, by their whole names.
//!
//! Drafts are compatible with nothing but themselves, so nothing here is a range. What is listed is
//! linked by `host` and let through by `inspect`: a name in one of them only would be a function that
//! is accepted and cannot be loaded, or one that could run and is refused.

/// All with the same functions: what wasmtime and wasmCloud have, and what Spin has.
pub(crate) const CONFIG_STORE: [&str; 2] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft-2024-09-27",
];

/// What Spin had before there was `wasi:config`, and still has.
pub(crate) const SPIN_VARIABLES: &str = "fermyon:spin/variables@2.0.0";

/// The same for WASI 0.3: its calls do not block the guest.
pub(crate) const SPIN_VARIABLES_3: &str = "spin:variables/variables@3.0.0";

/// Buckets as Spin has them beside `wasi:keyvalue`, and the same for WASI 0.3.
pub(crate) const SPIN_KEY_VALUE: &str = "fermyon:spin/key-value@2.0.0";
pub(crate) const SPIN_KEY_VALUE_3: &str = "spin:key-value/key-value@3.0.0";

/// The draft, and the same without a version, as early clients of wasmCloud have it.
pub(crate) const LOGGING: [&str; 2] = ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"];

/// `store`, `atomics` and `batch`: what wasmtime and wasmCloud have.
pub(crate) const KEY_VALUE_DRAFT: [&str; 3] = [
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
];

/// The same of the second draft, which Spin has.
pub(crate) const KEY_VALUE_DRAFT_2: [&str; 3] = [
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft2",
];

/// Every name above.
#[cfg(feature = "compile")]
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    CONFIG_STORE
        .into_iter()
        .chain([SPIN_VARIABLES, SPIN_VARIABLES_3])
        .chain([SPIN_KEY_VALUE, SPIN_KEY_VALUE_3])
        .chain(LOGGING)
        .chain(KEY_VALUE_DRAFT)
        .chain(KEY_VALUE_DRAFT_2)
}
