//! The URL paths of the API.
//!
//! Pure: resources, namespaces and names flow in, paths and query strings flow out, escaped.

use hive_manifests::{GROUP, Resource};
use url::form_urlencoded;

/// Where objects of a resource are listed and created. No namespace: those of all namespaces.
pub fn collection(resource: Resource, namespace: Option<&str>) -> String {
    let root = match resource.group() {
        "" => format!("/api/{}", resource.version()),
        group => format!("/apis/{group}/{}", resource.version()),
    };
    match namespace.filter(|_| resource.namespaced()) {
        Some(namespace) => format!(
            "{root}/namespaces/{}/{}",
            segment(namespace),
            resource.plural()
        ),
        None => format!("{root}/{}", resource.plural()),
    }
}

pub fn object(resource: Resource, namespace: Option<&str>, name: &str) -> String {
    format!("{}/{}", collection(resource, namespace), segment(name))
}

/// The controllers' own copy of an artifact's bytes.
pub fn artifact(sha256: &str) -> String {
    format!("/apis/{GROUP}/v1/artifacts/{}", segment(sha256))
}

/// A path with its query; nothing is appended for an empty one.
pub fn with_query<'a>(path: &str, query: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let encoded = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    match encoded.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{encoded}"),
    }
}

/// One path segment, escaped: a name that somebody typed must not reach another path.
fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    // A segment of dots only would be resolved away by a proxy.
    if matches!(escaped.as_str(), "." | "..") {
        return escaped.replace('.', "%2E");
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(
            object(Resource::Function, Some("default"), "hello"),
            "/apis/hive.dev/v1/namespaces/default/functions/hello"
        );
        assert_eq!(
            object(Resource::Node, Some("default"), "a b/../c"),
            "/apis/hive.dev/v1/nodes/a%20b%2F..%2Fc"
        );
        assert_eq!(collection(Resource::Secret, None), "/api/v1/secrets");
        assert_eq!(
            object(Resource::Node, None, ".."),
            "/apis/hive.dev/v1/nodes/%2E%2E"
        );
        assert_eq!(
            with_query("/api/v1/secrets", [("labelSelector", "a=b,c in (d)")]),
            "/api/v1/secrets?labelSelector=a%3Db%2Cc+in+%28d%29"
        );
        assert_eq!(with_query("/api", []), "/api");
    }
}
