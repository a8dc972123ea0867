//! The versions of a function that are kept, oldest first.

use hive_manifests::Resource;
use serde_json::Value;

use super::Subject;
use crate::failure::Failure;
use crate::object;

pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

pub struct Revision {
    pub number: i64,
    object: Value,
}

impl Revision {
    /// What of a function's spec the version is.
    pub fn template(&self) -> &Value {
        &self.object["data"]["spec"]
    }

    /// Why there is this version, as the function was annotated.
    pub fn cause(&self) -> Option<&str> {
        self.object["metadata"]["annotations"][CHANGE_CAUSE].as_str()
    }

    pub fn name(&self) -> &str {
        object::name(&self.object)
    }
}

impl Subject {
    pub async fn revisions(&self) -> Result<Vec<Revision>, Failure> {
        let selector = format!("hive.dev/function={}", self.name);
        let mut list = self
            .cluster
            .list(
                Resource::ControllerRevision,
                Some(&self.namespace),
                &[("labelSelector", &selector)],
            )
            .await?;
        let uid = object::uid(&self.live);
        let mut revisions: Vec<Revision> = list["items"]
            .as_array_mut()
            .map(std::mem::take)
            .into_iter()
            .flatten()
            .filter(|object| {
                // Not those of another function that had this name.
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
            })
            .filter_map(|object| {
                let number = object["revision"].as_i64()?;
                Some(Revision { number, object })
            })
            .collect();
        revisions.sort_by_key(|revision| revision.number);
        Ok(revisions)
    }

    pub fn no_such(&self, number: i64, revisions: &[Revision]) -> Failure {
        let numbers: Vec<String> = revisions.iter().map(|it| it.number.to_string()).collect();
        let failure = Failure::new(format_args!(
            "{} has no revision {number}",
            self.reference()
        ));
        match numbers.is_empty() {
            true => failure.hint("no version of it is kept"),
            false => failure.hint(format_args!("there are {}", numbers.join(", "))),
        }
    }
}
