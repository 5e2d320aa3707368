//! Amounts of resources in the units that scheduling counts in.

use std::collections::BTreeMap;

use windlass_api::pod_resources::ResourceList;

const CPU: &str = "cpu";
const MEMORY: &str = "memory";
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
const PODS: &str = "pods";

/// What a pod that asks for nothing is taken to need when nodes are compared.
const ASSUMED_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts; absent ones are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    /// Thousandths of a core.
    pub(super) cpu: i64,
    /// Bytes.
    pub(super) memory: i64,
    /// Bytes.
    pub(super) ephemeral_storage: i64,
    /// Number of pods.
    pub(super) pods: i64,
    /// Everything else, in units.
    pub(super) extended: BTreeMap<String, i64>,
}

impl Resources {
    pub(super) fn of(list: &ResourceList) -> Self {
        let mut resources = Self::default();
        for (name, amount) in list {
            match name.as_str() {
                CPU => resources.cpu = amount.millis(),
                MEMORY => resources.memory = amount.units(),
                EPHEMERAL_STORAGE => resources.ephemeral_storage = amount.units(),
                PODS => resources.pods = amount.units(),
                _ => {
                    resources.extended.insert(name.clone(), amount.units());
                }
            }
        }
        resources
    }

    /// The same, with something in place of nothing, so that pods without requests count too when
    /// nodes are compared.
    pub(super) fn or_assumed(&self) -> (i64, i64) {
        let or = |amount, assumed| if amount == 0 { assumed } else { amount };
        (or(self.cpu, ASSUMED_CPU), or(self.memory, ASSUMED_MEMORY))
    }

    /// How much there is of a resource.
    pub(super) fn amount(&self, name: &str) -> i64 {
        match name {
            CPU => self.cpu,
            MEMORY => self.memory,
            EPHEMERAL_STORAGE => self.ephemeral_storage,
            PODS => self.pods,
            _ => self.extended.get(name).copied().unwrap_or(0),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn combine(&mut self, other: &Self, operation: fn(i64, i64) -> i64) {
        self.cpu = operation(self.cpu, other.cpu);
        self.memory = operation(self.memory, other.memory);
        self.ephemeral_storage = operation(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = operation(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_default();
            *own = operation(*own, *amount);
        }
    }
}
