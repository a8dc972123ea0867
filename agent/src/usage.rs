//! What the functions of this node used since the agent started: a sum over instances that serve and
//! those that did, so that no counter falls when a function changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_functions::FunctionUsage;
use hive_proto::v1;
use tokio::sync::watch;

use crate::ids::FunctionId;
use crate::resources::Resources;
use crate::serve::Instance;
use crate::serve::table::Table;

/// Counters of instances that are gone. A clone is the same.
#[derive(Clone, Default)]
pub struct Retired(Arc<Mutex<BTreeMap<FunctionId, FunctionUsage>>>);

/// Measures machine and functions together.
pub struct Meter {
    resources: Resources,
    table: watch::Receiver<Arc<Table<Instance>>>,
    retired: Retired,
}

impl Retired {
    /// Keeps what an instance had counted when it stopped serving.
    pub fn add(&self, function: &FunctionId, usage: FunctionUsage) {
        add(self.counters().entry(function.clone()).or_default(), usage);
    }

    pub fn retain(&self, kept: impl Fn(&FunctionId) -> bool) {
        self.counters().retain(|function, _| kept(function));
    }

    fn counters(&self) -> MutexGuard<'_, BTreeMap<FunctionId, FunctionUsage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    pub fn new(
        resources: Resources,
        table: watch::Receiver<Arc<Table<Instance>>>,
        retired: Retired,
    ) -> Self {
        Self {
            resources,
            table,
            retired,
        }
    }

    pub fn usage(&mut self) -> v1::Usage {
        let mut totals = self.retired.counters().clone();
        let table = self.table.borrow().clone();
        for (id, instance) in table.instances() {
            let usage = instance.function.usage();
            let total = totals.entry(id.clone()).or_default();
            add(total, usage);
            total.in_flight += usage.in_flight;
            total.memory_bytes += usage.memory_bytes;
        }
        v1::Usage {
            functions: totals.into_iter().map(message).collect(),
            ..self.resources.usage()
        }
    }
}

/// Counters only: what is in flight now is not a matter of the past.
fn add(total: &mut FunctionUsage, usage: FunctionUsage) {
    total.requests += usage.requests;
    total.errors += usage.errors;
    total.cpu_micros += usage.cpu_micros;
}

fn message((id, usage): (FunctionId, FunctionUsage)) -> v1::FunctionUsage {
    v1::FunctionUsage {
        namespace: id.namespace,
        function: id.name,
        requests: usage.requests,
        errors: usage.errors,
        cpu_micros: usage.cpu_micros,
        in_flight: usage.in_flight,
        memory_bytes: usage.memory_bytes,
    }
}
