//! Rules about the hosts and paths that functions and tunnels answer for.

use serde_json::{Map, Value};

use super::fields::{list, text};
use super::findings::{Findings, quoted};
use super::{Reason, hosts};
use crate::FieldPath;
use crate::http::{Http, MAX_ROUTES, RESERVED_PART, is_reserved};

pub(super) fn check(http: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    check_route(http, path, findings);
    let routes = list(http, "routes");
    if routes.is_empty() {
        return;
    }
    if text(http, "path").is_some_and(|path| path != Http::default().path) {
        let message = "is not there beside routes: say it as one of them";
        findings.invalid(&path.field("path"), message.to_owned());
    }
    let path = path.field("routes");
    if routes.len() > MAX_ROUTES {
        let message = format!("{} routes; at most {MAX_ROUTES} are taken", routes.len());
        findings.invalid(&path, message);
    }
    for (index, route) in routes.iter().enumerate() {
        if let Some(route) = route.as_object() {
            check_route(route, &path.index(index), findings);
        }
    }
}

fn check_route(route: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(host) = text(route, "host") {
        hosts::check(host, &path.field("host"), findings);
    }
    if let Some(prefix) = text(route, "path") {
        let path = path.field("path");
        if !prefix.starts_with('/') {
            findings.suggest(
                &path,
                Reason::Invalid,
                format!("{} does not begin with '/'", quoted(prefix)),
                Some(format!("/{prefix}")).filter(|meant| is_path(meant)),
            );
        } else if !is_path(prefix) {
            findings.invalid(
                &path,
                format!(
                    "{} is not the path of a URL: no spaces, '?', '#', or '..' parts",
                    quoted(prefix)
                ),
            );
        } else if is_reserved(prefix) {
            findings.invalid(
                &path,
                format!(
                    "{} has the part {RESERVED_PART:?}, below which tunnels let people sign in; choose another path",
                    quoted(prefix)
                ),
            );
        }
    }
}

pub(super) fn is_path(text: &str) -> bool {
    text.bytes()
        .all(|c| c.is_ascii_graphic() && !matches!(c, b'?' | b'#'))
        && text.split('/').all(|part| part != "..")
}

/// A path as it stands in a request, with a query if there is one: no fragment, nothing that had to be
/// encoded.
pub(super) fn is_request_target(text: &str) -> bool {
    text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}
