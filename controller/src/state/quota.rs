//! What each namespace uses of what a ResourceQuota can limit, and whether a write would exceed it.
//!
//! Usage follows every change at a cost that does not depend on how much there is, and is made anew
//! from a snapshot. It is asked while a command is applied: of two writes that do not fit together
//! the second is refused, whichever controllers they came through.

use hive_manifests::Resource;
use hive_manifests::quantity::{Bytes, MilliCpu};
use hive_manifests::quota::{Measure, is_counted};
use imbl::OrdMap;
use serde::Deserialize;
use serde_json::Value;

use super::{Key, Object, Rejection};

/// All namespaces' usage. Cloning is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    namespaces: OrdMap<String, Usage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    /// Objects by resource, in the order of [`Resource`].
    counts: [u64; Resource::ALL.len()],
    functions: Charge,
}

/// What functions take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Charge {
    fixed: Amounts,
    /// For each node that there is: of functions that run on every node.
    each_node: Amounts,
}

/// Sums of what people wrote: as many as there can be fit in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    memory: u128,
    cpu: u128,
}

impl Amounts {
    fn times(self, count: u64) -> Self {
        Self {
            memory: self.memory * u128::from(count),
            cpu: self.cpu * u128::from(count),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory + other.memory,
            cpu: self.cpu + other.cpu,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory - other.memory,
            cpu: self.cpu - other.cpu,
        }
    }
}

impl Charge {
    /// Of one object; nothing for what is no function, or cannot be read.
    fn of(object: &Object) -> Self {
        #[derive(Default, Deserialize)]
        struct Function {
            #[serde(default)]
            spec: Spec,
        }

        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            replicas: Option<u32>,
            autoscaling: Option<Autoscaling>,
            every_node: bool,
            resources: Resources,
        }

        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Autoscaling {
            max_replicas: u32,
        }

        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Resources {
            memory: Bytes,
            cpu: MilliCpu,
        }

        if object.key().resource != Resource::Function {
            return Self::default();
        }
        let spec = object.parse::<Function>().unwrap_or_default().spec;
        let copy = Amounts {
            memory: spec.resources.memory.0.into(),
            cpu: spec.resources.cpu.0.into(),
        };
        // As many as there may be: what comes later is nobody's write that could be refused. All controllers
        // read it alike, as admission lets it in no earlier.
        let most = spec.autoscaling.map(|it| it.max_replicas);
        let copies = spec.replicas.or(most).unwrap_or(1);
        match spec.every_node {
            true => Self {
                each_node: copy,
                ..Self::default()
            },
            false => Self {
                fixed: copy.times(copies.into()),
                ..Self::default()
            },
        }
    }
}

impl Usage {
    fn add(&mut self, object: &Object) {
        let charge = Charge::of(object);
        self.counts[object.key().resource as usize] += 1;
        self.functions.fixed = self.functions.fixed.plus(charge.fixed);
        self.functions.each_node = self.functions.each_node.plus(charge.each_node);
    }

    fn remove(&mut self, object: &Object) {
        let charge = Charge::of(object);
        self.counts[object.key().resource as usize] -= 1;
        self.functions.fixed = self.functions.fixed.minus(charge.fixed);
        self.functions.each_node = self.functions.each_node.minus(charge.each_node);
    }

    fn measured(&self, measure: Measure, nodes: u64) -> u64 {
        let functions = || {
            self.functions
                .fixed
                .plus(self.functions.each_node.times(nodes))
        };
        // What is beyond is too much for any quota.
        let bounded = |amount: u128| u64::try_from(amount).unwrap_or(u64::MAX);
        match measure {
            Measure::Count(resource) => self.counts[resource as usize],
            Measure::Objects => Resource::ALL
                .into_iter()
                .filter(|resource| is_counted(*resource))
                .map(|resource| self.counts[resource as usize])
                .sum(),
            Measure::Memory => bounded(functions().memory),
            Measure::Cpu => bounded(functions().cpu),
        }
    }
}

impl Ledger {
    pub fn note(&mut self, key: &Key, before: Option<&Object>, after: Option<&Object>) {
        // An update changes no count, and only those of functions change a sum.
        if before.is_some() && after.is_some() && key.resource != Resource::Function {
            return;
        }
        let mut usage = self.usage(&key.namespace);
        if let Some(before) = before {
            usage.remove(before);
        }
        if let Some(after) = after {
            usage.add(after);
        }
        if usage == Usage::default() {
            self.namespaces.remove(&key.namespace);
        } else {
            self.namespaces.insert(key.namespace.clone(), usage);
        }
    }

    fn usage(&self, namespace: &str) -> Usage {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    fn nodes(&self) -> u64 {
        self.usage("").counts[Resource::Node as usize]
    }

    pub fn used(&self, namespace: &str, measure: Measure) -> u64 {
        self.usage(namespace).measured(measure, self.nodes())
    }

    /// True when a namespace has an object of any kind in it.
    pub fn holds_any(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    pub fn has_quota(&self, namespace: &str) -> bool {
        self.usage(namespace).counts[Resource::ResourceQuota as usize] > 0
    }

    /// Refuses a write that takes more than a quota of its namespace leaves. One that takes no more
    /// than before is never refused, however little is left.
    pub fn check<'a>(
        &self,
        quotas: impl Iterator<Item = &'a Object>,
        before: Option<&Object>,
        after: &Object,
    ) -> Result<(), Rejection> {
        let namespace = &after.key().namespace;
        let nodes = self.nodes();
        let now = self.usage(namespace);
        let mut then = now;
        if let Some(before) = before {
            then.remove(before);
        }
        then.add(after);
        for quota in quotas {
            let mut exceeded = Vec::new();
            for (name, measure, hard) in limits(quota) {
                let (used, wanted) = (now.measured(measure, nodes), then.measured(measure, nodes));
                if wanted > used && wanted > hard {
                    exceeded.push((name, measure, wanted - used, used, hard));
                }
            }
            if !exceeded.is_empty() {
                let list = |amount: fn(&(String, Measure, u64, u64, u64)) -> u64| {
                    let each = exceeded
                        .iter()
                        .map(|it| format!("{}={}", it.0, it.1.show(amount(it))));
                    each.collect::<Vec<_>>().join(",")
                };
                return Err(Rejection::QuotaExceeded {
                    quota: quota.key().name.clone(),
                    requested: list(|it| it.2),
                    used: list(|it| it.3),
                    limited: list(|it| it.4),
                });
            }
        }
        Ok(())
    }
}

/// What a ResourceQuota limits, by name; what cannot be read limits nothing.
pub fn limits(quota: &Object) -> Vec<(String, Measure, u64)> {
    let body = quota.to_value();
    let hard = body["spec"]["hard"].as_object().into_iter().flatten();
    hard.filter_map(|(name, amount)| {
        let measure = Measure::of(name)?;
        let text = match amount {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some((name.clone(), measure, measure.parse(&text).ok()?))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::objects;
    use crate::state::{Body, Command, Reply, State};

    fn put(state: &mut State, resource: Resource, name: &str, extra: Value) -> Reply {
        let namespace = if resource.namespaced() { "team" } else { "" };
        let key = Key::new(resource, namespace, name);
        let body: Body = objects::fresh(&key, json!({}), extra).into();
        state.apply(match state.get(&key) {
            None => Command::Create { key, body },
            Some(_) => Command::Replace {
                key,
                body,
                expect: None,
            },
        })
    }

    fn remove(state: &mut State, resource: Resource, name: &str) {
        let namespace = if resource.namespaced() { "team" } else { "" };
        let _ = state.apply(Command::Delete {
            key: Key::new(resource, namespace, name),
            expect: None,
            uid: None,
        });
    }

    fn quota(state: &mut State, hard: Value) {
        put(
            state,
            Resource::ResourceQuota,
            "q",
            json!({ "spec": { "hard": hard } }),
        )
        .unwrap();
    }

    fn function(state: &mut State, name: &str, spec: Value) -> Reply {
        put(state, Resource::Function, name, json!({ "spec": spec }))
    }

    fn copies(replicas: u32, memory: &str) -> Value {
        json!({ "replicas": replicas, "resources": { "memory": memory, "cpu": "100m" } })
    }

    #[test]
    fn what_scales_by_itself_counts_as_it_may_become_and_what_is_held_as_it_is() {
        let mut state = State::default();
        quota(&mut state, json!({ "requests.memory": "1Gi" }));
        let scaling = |most: u32, replicas: Value| {
            json!({
                "replicas": replicas, "autoscaling": { "maxReplicas": most },
                "resources": { "memory": "256Mi" },
            })
        };
        assert!(function(&mut state, "a", scaling(5, Value::Null)).is_err());
        function(&mut state, "a", scaling(4, Value::Null)).unwrap();
        assert!(function(&mut state, "b", copies(1, "256Mi")).is_err());
        function(&mut state, "a", scaling(9, json!(3))).unwrap();
        function(&mut state, "b", copies(1, "256Mi")).unwrap();
        // To be released it would have to fit.
        assert!(function(&mut state, "a", scaling(9, Value::Null)).is_err());
    }

    #[test]
    fn what_would_exceed_a_quota_is_refused_in_kubernetes_words() {
        let mut state = State::default();
        quota(
            &mut state,
            json!({ "count/functions.hive.dev": "2", "requests.memory": "1Gi" }),
        );
        function(&mut state, "a", copies(3, "256Mi")).unwrap();
        let refused = function(&mut state, "b", copies(2, "256Mi")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "exceeded quota: q, requested: requests.memory=512Mi, used: requests.memory=768Mi, limited: requests.memory=1Gi"
        );
        function(&mut state, "b", copies(1, "256Mi")).unwrap();
        // Scaling is a write like any other.
        assert!(function(&mut state, "a", copies(4, "256Mi")).is_err());
        let refused = function(&mut state, "c", copies(1, "256Mi")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "exceeded quota: q, requested: count/functions.hive.dev=1,requests.memory=256Mi, \
             used: count/functions.hive.dev=2,requests.memory=1Gi, \
             limited: count/functions.hive.dev=2,requests.memory=1Gi"
        );
        // One that no longer fits may stay, change otherwise, and shrink.
        quota(&mut state, json!({ "memory": 1 }));
        function(
            &mut state,
            "a",
            json!({ "replicas": 3, "timeout": "1s", "resources": { "memory": "256Mi" } }),
        )
        .unwrap();
        function(&mut state, "a", copies(1, "256Mi")).unwrap();
        remove(&mut state, Resource::Function, "a");
        assert!(function(&mut state, "a", copies(1, "1Mi")).is_err());
        function(&mut state, "a", copies(0, "1Mi")).unwrap();
    }

    #[test]
    fn a_copy_on_every_node_counts_once_a_node() {
        let mut state = State::default();
        for node in ["a", "b", "c"] {
            put(&mut state, Resource::Node, node, json!({})).unwrap();
        }
        quota(
            &mut state,
            json!({ "requests.cpu": "1", "hive.dev/objects": 3 }),
        );
        let everywhere = |cpu: &str| json!({ "everyNode": true, "resources": { "cpu": cpu } });
        assert!(function(&mut state, "f", everywhere("400m")).is_err());
        function(&mut state, "f", everywhere("300m")).unwrap();
        assert_eq!(state.used("team", Measure::Cpu), 900);
        put(&mut state, Resource::Node, "d", json!({})).unwrap();
        assert_eq!(state.used("team", Measure::Cpu), 1200);
        // The quota itself is an object; the swarm's own are none.
        assert_eq!(state.used("team", Measure::Objects), 2);
        put(&mut state, Resource::Assignment, "f.a", json!({})).unwrap();
        put(&mut state, Resource::ConfigMap, "c", json!({})).unwrap();
        assert!(put(&mut state, Resource::Secret, "s", json!({})).is_err());
        put(&mut state, Resource::Event, "e", json!({})).unwrap();
    }

    #[test]
    fn a_namespace_that_holds_something_is_not_removed() {
        let mut state = State::default();
        put(&mut state, Resource::Namespace, "team", json!({})).unwrap();
        put(&mut state, Resource::Event, "late", json!({})).unwrap();
        remove(&mut state, Resource::Namespace, "team");
        let key = Key::new(Resource::Namespace, "", "team");
        assert!(state.get(&key).is_some());
        remove(&mut state, Resource::Event, "late");
        remove(&mut state, Resource::Namespace, "team");
        assert!(state.get(&key).is_none());
    }

    proptest! {
        /// However writes come, usage is what a look at all objects finds, is the same after a
        /// snapshot, and never rises above the quota.
        #[test]
        fn usage_follows_every_write(
            acts in proptest::collection::vec((0..4u8, 0..5u8, 0..6u32, 0..4u64, any::<bool>()), 1..60)
        ) {
            let mut state = State::default();
            put(&mut state, Resource::Node, "n", json!({})).unwrap();
            quota(&mut state, json!({ "memory": "10", "count/configmaps": "3", "hive.dev/objects": "6" }));
            for (act, name, replicas, memory, every_node) in acts {
                let name = format!("o{name}");
                let resources = json!({ "memory": memory.to_string() });
                let _ = match act {
                    0 if every_node => function(&mut state, &name, json!({ "everyNode": true, "resources": resources })),
                    0 => function(&mut state, &name, json!({ "replicas": replicas, "resources": resources })),
                    1 => put(&mut state, Resource::ConfigMap, &name, json!({ "data": { "a": memory.to_string() } })),
                    2 => { remove(&mut state, Resource::Function, &name); continue; }
                    _ => { remove(&mut state, Resource::ConfigMap, &name); continue; }
                };
                let used = |measure| state.used("team", measure);
                let maps = Measure::Count(Resource::ConfigMap);
                prop_assert!(used(Measure::Memory) <= 10);
                prop_assert!(used(maps) <= 3 && used(Measure::Objects) <= 6);
                prop_assert_eq!(used(maps), state.list(Resource::ConfigMap, Some("team")).count() as u64);
                let again = State::from_image(state.image());
                for measure in [Measure::Memory, Measure::Cpu, Measure::Objects, maps] {
                    prop_assert_eq!(used(measure), again.used("team", measure));
                }
            }
        }
    }
}
