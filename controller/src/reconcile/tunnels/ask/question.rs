//! The request by which a tunnel of HTTP is tried.

use std::time::Duration;

use hive_proto::routes::{Chosen, Pattern, choose};
use hive_proto::v1::Route;

use super::LONGEST_PATIENCE;
use crate::reconcile::tunnels::trust::Trust;

/// A request that changes nothing at the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub host: String,
    /// `None` where no route takes a method that does no harm: then the ingress is heard, who knows the path.
    pub method: Option<&'static str>,
    pub path: String,
    /// For its answer.
    pub patience: Duration,
    /// Where it is asked by https.
    pub https: Option<Trust>,
}

/// For the path that tells the service's health, where the routes lead there.
pub(super) fn question(routes: &[Route], wish: Option<&str>, patience: Duration) -> Question {
    let of = |route: &Route, method, path: &str| Question {
        host: route.host.clone(),
        method,
        path: path.to_owned(),
        patience: patience.min(LONGEST_PATIENCE),
        https: None,
    };
    let first = &routes[0];
    if let Some(path) = wish.filter(|path| leads(routes, &first.host, path)) {
        return of(first, Some("GET"), path);
    }
    let takes = |route: &Route, method: &str| {
        route.methods.is_empty() || route.methods.iter().any(|it| it == method)
    };
    for method in ["GET", "HEAD"] {
        if let Some(route) = routes.iter().find(|route| takes(route, method)) {
            return of(route, Some(method), &route.path);
        }
    }
    of(first, None, &first.path)
}

/// Whether a GET for a path at a host takes one of the routes.
fn leads(routes: &[Route], host: &str, path: &str) -> bool {
    let of_host = routes.iter().filter(|route| route.host == host);
    let mut patterns: Vec<Pattern> = of_host.flat_map(Pattern::of).collect();
    patterns.sort();
    let patterns = patterns.iter().map(|pattern| (pattern, ()));
    let path = path.split('?').next().unwrap_or_default();
    choose(patterns, "GET", path) == Chosen::One(())
}
