//! Gathers what is wrong with an object, up to a bound.

use super::{FieldError, Reason};
use crate::FieldPath;

/// Nobody reads more at once, and an object made to be wrong in 100,000 places must not fill the
/// answer.
const MAX_ERRORS: usize = 64;

/// Characters of a wrong value that a message repeats.
const MAX_QUOTED: usize = 64;

#[derive(Default)]
pub(super) struct Findings {
    errors: Vec<FieldError>,
}

impl Findings {
    pub(super) fn push(&mut self, path: &FieldPath, reason: Reason, message: impl Into<String>) {
        self.suggest(path, reason, message, None);
    }

    pub(super) fn suggest(
        &mut self,
        path: &FieldPath,
        reason: Reason,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError {
                path: path.clone(),
                reason,
                message: message.into(),
                suggestion,
            });
        }
    }

    pub(super) fn required(&mut self, path: &FieldPath) {
        self.push(path, Reason::Required, "required, but missing");
    }

    pub(super) fn invalid(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(path, Reason::Invalid, message);
    }

    pub(super) fn forbidden(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(path, Reason::Forbidden, message);
    }

    pub(super) fn duplicate(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(path, Reason::Duplicate, message);
    }

    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }
}

/// A value as messages show it: in quotes, without control characters, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
