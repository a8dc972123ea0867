//! How a function or a tunnel is reached from outside: the hosts, paths and methods for which it answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Of one function or tunnel; each may name several methods.
pub const MAX_ROUTES: usize = 16;

/// A part that no path of a route may have: below the path of each tunnel with a login there is one, where browsers
/// bring codes of the issuer. Whoever had a route there would get those that are for somebody else.
pub const RESERVED_PART: &str = ".hive";

/// Whether nobody may have a route with this path.
pub fn is_reserved(path: &str) -> bool {
    path.split('/').any(|part| part == RESERVED_PART)
}

/// How a function or a tunnel is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Http {
    /// The host name to answer for. Default: "<name>.<namespace>.<domain of the swarm>", as in
    /// hello.default.localhost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only requests whose path is this one or lies below it are answered. Default "/": all.
    pub path: String,
    /// Several routes, at most 16, in place of path: each is answered. The most specific route of all
    /// functions and tunnels in the namespace that has the host gets a request: an exact path, then the
    /// longest, then one that names the request's method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ROUTES))]
    pub routes: Vec<HttpRoute>,
}

/// One of the routes of a function or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// The host name to answer for. Default: http.host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Default "/".
    pub path: String,
    /// Prefix (the default): the path and all below it. Exact: only the path itself.
    pub path_type: PathType,
    /// The methods to answer, such as GET; a request with another gets 405, unless another route
    /// takes it. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<HttpMethod>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathType {
    #[default]
    Prefix,
    Exact,
}

/// Those of RFC 9110 and PATCH, without CONNECT, which is asked of proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
}

impl HttpMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
        }
    }
}

impl Default for HttpRoute {
    fn default() -> Self {
        Self {
            host: None,
            path: "/".into(),
            path_type: PathType::default(),
            methods: Vec::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            host: None,
            path: "/".into(),
            routes: Vec::new(),
        }
    }
}
