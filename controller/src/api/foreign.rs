//! Kinds of Kubernetes that a swarm has none of, for those who ask for them all the same.
//!
//! Whoever knows Kubernetes reaches for `kubectl logs` and is told where to look instead. The list of
//! Services is answered, empty as it truly is: `kubectl cluster-info` begins with it.

use axum::response::Response;
use http::{Method, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use serde_json::json;

use super::errors::ApiError;
use super::media::Form;
use super::{Api, Call, respond};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    Pods,
    PodMetrics,
    Services,
    /// Those of the core group: ours are of `hive.dev`.
    Nodes,
}

impl Foreign {
    /// What a path below `/api/v1` or `/apis/{group}/{version}` asks for, and whether it is one of
    /// them or something about it.
    pub fn parse(group: &str, segments: &[&str]) -> Option<(Self, bool)> {
        let rest = match *segments {
            ["namespaces", _, ref rest @ ..] if !rest.is_empty() => rest,
            ref all => all,
        };
        let (plural, rest) = rest.split_first()?;
        let kind = match (group, *plural) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "nodes") => Self::Nodes,
            ("metrics.k8s.io", "pods") => Self::PodMetrics,
            _ => return None,
        };
        Some((kind, rest.iter().any(|segment| !segment.is_empty())))
    }

    /// Those that discovery names: a client that does not find a kind there asks nobody.
    pub fn discovered() -> [APIResource; 2] {
        let resource = |plural: &str, kind: &str, short: &str, verb: &str| APIResource {
            name: plural.to_owned(),
            singular_name: kind.to_lowercase(),
            short_names: Some(vec![short.to_owned()]),
            kind: kind.to_owned(),
            namespaced: true,
            verbs: vec![verb.to_owned()],
            ..APIResource::default()
        };
        [
            resource("pods", "Pod", "po", "get"),
            resource("services", "Service", "svc", "list"),
        ]
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Pods => {
                "there are no pods: a Function runs as Assignments, and nothing can be run inside or forwarded to. \
                 `hivectl logs function/NAME` shows its log, `hivectl invoke function/NAME` sends it a request, \
                 `kubectl get assignments` shows where it runs"
            }
            Self::PodMetrics => {
                "there are no pods: `hivectl top functions` shows what functions use, and so does \
                 `kubectl get --raw /apis/metrics.hive.dev/v1/functions`"
            }
            Self::Services => {
                "there are no services: a Function is reached at its own address, \
                 `kubectl get function NAME -o jsonpath={.status.url}`"
            }
            Self::Nodes => {
                "nodes are of the group hive.dev: `kubectl get nodes.hive.dev` works, while what kubectl builds on \
                 Kubernetes' own nodes is hivectl's: `hivectl top nodes`, `hivectl cordon`, `hivectl drain`"
            }
        }
    }
}

pub(super) fn serve(
    context: &Api,
    kind: Foreign,
    is_named: bool,
    call: &Call,
) -> Result<Response, ApiError> {
    let is_list = kind == Foreign::Services && !is_named && !call.query.watch;
    if !is_list || !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiError::Absent(kind.advice().to_owned()));
    }
    let form = Form::accepted(&call.headers)?;
    let (kind, api_version) = match form {
        Form::Object => ("ServiceList", "v1"),
        Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        Form::Table => ("Table", "meta.k8s.io/v1"),
    };
    let mut list = json!({
        "kind": kind,
        "apiVersion": api_version,
        "metadata": { "resourceVersion": context.replica.state().revision().to_string() },
    });
    match form {
        Form::Table => {
            list["columnDefinitions"] = json!([]);
            list["rows"] = json!([]);
        }
        Form::Object | Form::Metadata => list["items"] = json!([]),
    }
    respond::json(StatusCode::OK, &list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_none_of_is_known_by_its_path() {
        for (group, path, expected) in [
            ("", "pods", Some((Foreign::Pods, false))),
            ("", "namespaces/a/pods/p", Some((Foreign::Pods, true))),
            ("", "namespaces/a/pods/p/log", Some((Foreign::Pods, true))),
            (
                "",
                "namespaces/a/services/",
                Some((Foreign::Services, false)),
            ),
            ("", "nodes", Some((Foreign::Nodes, false))),
            (
                "metrics.k8s.io",
                "namespaces/a/pods",
                Some((Foreign::PodMetrics, false)),
            ),
            ("hive.dev", "nodes", None),
            ("", "namespaces/pods", None),
            ("", "", None),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(Foreign::parse(group, &segments), expected, "{path}");
        }
    }
}
