//! The name that somebody probably meant, for messages.
//!
//! Pure. What counts as near is the manifests' rule, so that a misspelt field and a misspelt
//! context are treated alike.

pub use hive_manifests::validate::suggest::nearest;

/// `; did you mean "x"?`, or nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates)
        .map(|near| format!("; did you mean {near:?}?"))
        .unwrap_or_default()
}
