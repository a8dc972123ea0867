//! What a request would do, in the terms that roles speak of. Pure.

/// Of an object or a collection, or of a path that is neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes<'a> {
    Resource(ResourceAttributes<'a>),
    /// `verb` is the method in lower case.
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes<'a> {
    pub verb: &'a str,
    /// `""` for core/v1.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    pub subresource: Option<&'a str>,
    /// `None` for all of them, and for what lies in none.
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
}

impl ResourceAttributes<'_> {
    /// Whether this only looks.
    pub fn is_read(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }

    pub fn is_about(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// `functions/scale`
    fn combined(&self) -> String {
        match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.to_owned(),
        }
    }
}

impl Attributes<'_> {
    /// Kubernetes' wording; `reason` is left out where it is empty.
    pub fn refusal(&self, user: &str, reason: &str) -> String {
        let reason = match reason {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        match self {
            Self::Path { verb, path } => {
                format!("forbidden: User {user:?} cannot {verb} path {path:?}{reason}")
            }
            Self::Resource(asked) => {
                let qualified = match asked.group {
                    "" => asked.resource.to_owned(),
                    group => format!("{}.{group}", asked.resource),
                };
                let name = asked
                    .name
                    .map(|name| format!(" {name:?}"))
                    .unwrap_or_default();
                let scope = match asked.namespace {
                    Some(namespace) => format!("in the namespace {namespace:?}"),
                    None => "at the cluster scope".to_owned(),
                };
                format!(
                    "{qualified}{name} is forbidden: User {user:?} cannot {} resource {:?} in API group {:?} \
                     {scope}{reason}",
                    asked.verb,
                    asked.combined(),
                    asked.group,
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_kubernetes_words_it() {
        let attributes = Attributes::Resource(ResourceAttributes {
            verb: "update",
            group: "hive.dev",
            resource: "functions",
            subresource: Some("scale"),
            namespace: Some("x"),
            name: Some("f"),
        });
        assert_eq!(
            attributes.refusal("jane", ""),
            "functions.hive.dev \"f\" is forbidden: User \"jane\" cannot update resource \
             \"functions/scale\" in API group \"hive.dev\" in the namespace \"x\""
        );
        let path = Attributes::Path {
            verb: "get",
            path: "/metrics",
        };
        assert_eq!(
            path.refusal("jane", "why"),
            "forbidden: User \"jane\" cannot get path \"/metrics\": why"
        );
    }
}
