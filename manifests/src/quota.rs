//! What a ResourceQuota can limit, by the names that Kubernetes has for it.
//!
//! A name of `spec.hard` flows in, what it counts comes out; amounts are read and shown in its unit.
//! How much of it is used is the controllers' to know.

use std::fmt;

use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::{GROUP, Resource};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Objects of one resource.
    Count(Resource),
    /// Objects of all resources that can be counted.
    Objects,
    /// Bytes that the copies of functions may use.
    Memory,
    /// Thousandths of a core that are reserved for the copies of functions.
    Cpu,
}

impl Measure {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "configmaps" | "secrets" | "resourcequotas" => {
                Resource::by_plural("", name).map(Self::Count)
            }
            "memory" | "requests.memory" | "limits.memory" => Some(Self::Memory),
            "cpu" | "requests.cpu" => Some(Self::Cpu),
            _ if name.strip_suffix("/objects") == Some(GROUP) => Some(Self::Objects),
            _ => {
                let name = name.strip_prefix("count/")?;
                let (plural, group) = name.split_once('.').unwrap_or((name, ""));
                Resource::by_plural(group, plural)
                    .filter(|resource| is_counted(*resource))
                    .map(Self::Count)
            }
        }
    }

    /// An amount in the measure's own unit: objects, bytes, thousandths of a core.
    ///
    /// # Errors
    /// When the text is no quantity.
    pub fn parse(self, amount: &str) -> Result<u64, QuantityError> {
        match self {
            // A number of objects is written as bytes are: 10, 1k.
            Self::Count(_) | Self::Objects | Self::Memory => amount.parse::<Bytes>().map(|it| it.0),
            Self::Cpu => amount.parse::<MilliCpu>().map(|it| it.0),
        }
    }

    /// As people write it.
    pub fn show(self, amount: u64) -> String {
        match self {
            Self::Count(_) | Self::Objects => amount.to_string(),
            Self::Memory => Bytes(amount).to_string(),
            Self::Cpu => MilliCpu(amount).to_string(),
        }
    }
}

/// Objects that people make. Assignments, revisions and Events are the swarm's own: it could not do its
/// work if they were limited, and it bounds them itself.
pub fn is_counted(resource: Resource) -> bool {
    resource.namespaced()
        && !matches!(
            resource,
            Resource::Assignment | Resource::ControllerRevision | Resource::Event
        )
}

/// The names, for messages.
pub struct MeasureNames;

impl fmt::Display for MeasureNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requests.memory, requests.cpu, {GROUP}/objects")?;
        for resource in Resource::ALL.into_iter().filter(|r| is_counted(*r)) {
            match resource.group() {
                "" => write!(f, ", count/{}", resource.plural())?,
                group => write!(f, ", count/{}.{group}", resource.plural())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_kubernetes_has_them() {
        let count = |resource| Some(Measure::Count(resource));
        for (name, measure) in [
            ("count/functions.hive.dev", count(Resource::Function)),
            ("count/tunnels.hive.dev", count(Resource::Tunnel)),
            ("count/configmaps", count(Resource::ConfigMap)),
            ("configmaps", count(Resource::ConfigMap)),
            (
                "count/roles.rbac.authorization.k8s.io",
                count(Resource::Role),
            ),
            ("requests.memory", Some(Measure::Memory)),
            ("memory", Some(Measure::Memory)),
            ("requests.cpu", Some(Measure::Cpu)),
            ("hive.dev/objects", Some(Measure::Objects)),
            ("functions", None),
            ("count/functions", None),
            ("count/nodes.hive.dev", None),
            ("count/assignments.hive.dev", None),
            ("count/events", None),
            ("limits.cpu", None),
            ("pods", None),
        ] {
            assert_eq!(Measure::of(name), measure, "{name}");
        }
        // Every name that a message suggests is one.
        let names = MeasureNames.to_string();
        assert!(
            names.split(", ").all(|name| Measure::of(name).is_some()),
            "{names}"
        );
    }

    #[test]
    fn amounts_are_shown_as_people_write_them() {
        for (measure, written, shown) in [
            (Measure::Objects, "1k", "1000"),
            (Measure::Memory, "1024Mi", "1Gi"),
            (Measure::Cpu, "0.5", "500m"),
        ] {
            assert_eq!(
                measure.parse(written).map(|it| measure.show(it)).as_deref(),
                Ok(shown)
            );
        }
    }
}
