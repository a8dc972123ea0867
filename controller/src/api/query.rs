//! The options in a request's query string.
//!
//! Parsed once into one struct: a parameter that nobody reads is ignored, as Kubernetes does, but a
//! value that can't be read is an error and never a default.

use std::str::FromStr;
use std::time::Duration;

use hive_manifests::Resource;
use jiff::Timestamp;

use super::errors::ApiError;
use super::selectors::{FieldSelector, LabelSelector};

#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub watch: bool,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Empty is absent.
    pub resource_version: Option<u64>,
    pub resource_version_match: Option<VersionMatch>,
    pub limit: Option<usize>,
    pub continue_token: Option<String>,
    pub timeout: Option<Duration>,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    /// What writes are to leave out: [`dry_run`] reads it. Who only reads is not asked what it means.
    pub dry_run: Vec<String>,
    /// Who writes, as owners of fields are named.
    pub field_manager: Option<String>,
    /// Of an apply: take fields from their owners. Of a removal that would be refused: do it all the same.
    pub force: Option<bool>,
    /// [`Query::field_validation`] reads it.
    field_validation: Option<String>,
    pub include_object: IncludeObject,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    /// Of a backup: with the bytes of artifacts.
    pub artifacts: bool,
    pub log: LogOptions,
}

#[derive(Clone, Debug, Default)]
pub(super) struct LogOptions {
    pub follow: bool,
    pub tail_lines: Option<u32>,
    pub since_seconds: Option<u64>,
    pub since_time: Option<Timestamp>,
    pub previous: bool,
    /// Only what was said in that request.
    pub request_id: Option<String>,
    pub timestamps: bool,
    pub prefix: bool,
    /// The id of its request after each line.
    pub request_ids: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// What happens to fields that no schema knows, and to those that are there twice. The default is
/// Kubernetes': a client of another version is not refused. `kubectl` and `hivectl` ask for `Strict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FieldValidation {
    /// They are errors.
    Strict,
    /// They are dropped, and named in `Warning` headers.
    #[default]
    Warn,
    /// They are dropped.
    Ignore,
}

/// How much of each object a Table row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl Query {
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            parsed.set(&name, &value)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "watch" => self.watch = boolean(name, value)?,
            "labelSelector" => self.label_selector = text(),
            "fieldSelector" => self.field_selector = text(),
            "resourceVersion" => self.resource_version = number(name, value)?,
            "resourceVersionMatch" => {
                self.resource_version_match = match value {
                    "" => None,
                    "Exact" => Some(VersionMatch::Exact),
                    "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                    _ => return Err(unsupported(name, value, "Exact, NotOlderThan")),
                }
            }
            "limit" => self.limit = number(name, value)?.filter(|limit| *limit > 0),
            "continue" => self.continue_token = text(),
            "timeoutSeconds" => self.timeout = number(name, value)?.map(Duration::from_secs),
            "allowWatchBookmarks" => self.allow_bookmarks = boolean(name, value)?,
            "sendInitialEvents" => self.send_initial_events = Some(boolean(name, value)?),
            "dryRun" => self.dry_run.push(value.to_owned()),
            "fieldManager" => self.field_manager = text(),
            "force" => self.force = Some(boolean(name, value)?),
            "fieldValidation" => self.field_validation = text(),
            "includeObject" => {
                self.include_object = match value {
                    "" | "Metadata" => IncludeObject::Metadata,
                    "None" => IncludeObject::None,
                    "Object" => IncludeObject::Object,
                    _ => return Err(unsupported(name, value, "None, Metadata, Object")),
                }
            }
            "propagationPolicy" => self.propagation_policy = text(),
            "orphanDependents" => self.orphan_dependents = Some(boolean(name, value)?),
            "artifacts" => self.artifacts = boolean(name, value)?,
            "follow" => self.log.follow = boolean(name, value)?,
            "tailLines" => self.log.tail_lines = number(name, value)?,
            "sinceSeconds" => self.log.since_seconds = number(name, value)?,
            "sinceTime" => self.log.since_time = timestamp(name, value)?,
            "previous" => self.log.previous = boolean(name, value)?,
            "requestId" => self.log.request_id = text(),
            "requestIds" => self.log.request_ids = boolean(name, value)?,
            "timestamps" => self.log.timestamps = boolean(name, value)?,
            "prefix" => self.log.prefix = boolean(name, value)?,
            _ => {}
        }
        Ok(())
    }

    /// Of a write, whose options are of that kind.
    pub fn field_validation(&self, kind: &'static str) -> Result<FieldValidation, ApiError> {
        match self.field_validation.as_deref() {
            Some("Strict") => Ok(FieldValidation::Strict),
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(not_supported(
                kind,
                "fieldValidation",
                &format!("{other:?}"),
                &["", "Ignore", "Strict", "Warn"],
            )),
        }
    }

    pub fn labels(&self) -> Result<LabelSelector, ApiError> {
        LabelSelector::parse(self.label_selector.as_deref().unwrap_or_default())
            .map_err(|error| ApiError::BadRequest(format!("labelSelector: {error}")))
    }

    pub fn fields(&self, resource: Resource) -> Result<FieldSelector, ApiError> {
        FieldSelector::parse(resource, self.field_selector.as_deref().unwrap_or_default())
            .map_err(|error| ApiError::BadRequest(format!("fieldSelector: {error}")))
    }
}

/// Whether a write is only to be tried; its options are of that kind, in the query or a body.
pub(super) fn dry_run(kind: &'static str, stages: &[String]) -> Result<bool, ApiError> {
    if stages.iter().any(|stage| stage != "All") {
        let found = format!("[]string{{{}}}", quoted(stages));
        return Err(not_supported(kind, "dryRun", &found, &["All"]));
    }
    Ok(!stages.is_empty())
}

/// In Kubernetes' words, which validates the options of a write after it has read the query.
pub(super) fn not_supported(
    kind: &'static str,
    field: &str,
    found: &str,
    supported: &[impl AsRef<str>],
) -> ApiError {
    let supported = quoted(supported);
    let message = format!("Unsupported value: {found}: supported values: {supported}");
    ApiError::option(kind, field, "FieldValueNotSupported", message)
}

fn quoted(words: &[impl AsRef<str>]) -> String {
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("{:?}", word.as_ref()))
        .collect();
    words.join(", ")
}

fn boolean(name: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        // `?watch` alone means yes, as in Kubernetes.
        "" | "1" | "true" | "True" | "TRUE" | "t" | "T" => Ok(true),
        "0" | "false" | "False" | "FALSE" | "f" | "F" => Ok(false),
        _ => Err(unsupported(name, value, "true, false")),
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<Option<T>, ApiError> {
    if value.is_empty() {
        return Ok(None);
    }
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ApiError::BadRequest(format!(
            "{name}: {value:?} is not a whole number of 0 or more"
        ))),
    }
}

fn timestamp(name: &str, value: &str) -> Result<Option<Timestamp>, ApiError> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| {
        ApiError::BadRequest(format!(
            "{name}: {value:?} is not a time such as 2026-01-31T18:00:00Z"
        ))
    })
}

fn unsupported(name: &str, value: &str, supported: &str) -> ApiError {
    ApiError::BadRequest(format!(
        "{name}: unsupported value {value:?}; supported are: {supported}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_ignored() {
        let query = Query::parse(Some(
            "watch=1&resourceVersion=&limit=0&labelSelector=a%3Db&pretty=true&timeoutSeconds=5",
        ))
        .unwrap();
        assert!(query.watch);
        assert_eq!(query.resource_version, None);
        assert_eq!(query.limit, None);
        assert_eq!(query.label_selector.as_deref(), Some("a=b"));
        assert_eq!(query.timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn options_of_writes_are_refused_in_the_words_of_kubernetes() {
        let kind = "CreateOptions";
        let dry = |query| dry_run(kind, &Query::parse(Some(query)).unwrap().dry_run);
        assert!(!dry("").unwrap());
        assert!(dry("dryRun=All&dryRun=All").unwrap());
        assert_eq!(
            dry("dryRun=All&dryRun=Some").unwrap_err().to_string(),
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \
             []string{\"All\", \"Some\"}: supported values: \"All\""
        );
        let validation = |query| Query::parse(Some(query)).unwrap().field_validation(kind);
        assert_eq!(validation("").unwrap(), FieldValidation::Warn);
        assert_eq!(
            validation("fieldValidation=Some").unwrap_err().to_string(),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \
             \"Some\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        for (query, message) in [
            (
                "watch=perhaps",
                "watch: unsupported value \"perhaps\"; supported are: true, false",
            ),
            (
                "limit=-1",
                "limit: \"-1\" is not a whole number of 0 or more",
            ),
            (
                "sinceTime=yesterday",
                "sinceTime: \"yesterday\" is not a time such as 2026-01-31T18:00:00Z",
            ),
            (
                "resourceVersion=abc",
                "resourceVersion: \"abc\" is not a whole number of 0 or more",
            ),
        ] {
            assert_eq!(Query::parse(Some(query)).unwrap_err().to_string(), message);
        }
    }
}
