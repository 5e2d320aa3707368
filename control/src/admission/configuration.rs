//! Which plugins run, and what they are told by whoever runs the cluster.

use thiserror::Error;

use super::{ADMISSION, Admission, Plugin, PodSecurityConfiguration};

/// Which plugins run, and what they are told by whoever runs the cluster.
#[derive(Clone, Debug, Default)]
pub struct AdmissionConfiguration {
    /// What is asked of pods in namespaces that say nothing.
    pub pod_security: PodSecurityConfiguration,
    enabled: Vec<&'static str>,
    disabled: Vec<&'static str>,
}

/// A plugin that there is not.
#[derive(Debug, Error)]
#[error("there is no admission plugin {name:?}; there are {}", names().join(", "))]
pub struct NoSuchPlugin {
    name: String,
}

impl AdmissionConfiguration {
    /// Runs the plugins of these names besides those that run by default.
    ///
    /// # Errors
    /// When there is no such plugin.
    pub fn enable(&mut self, plugins: &[String]) -> Result<(), NoSuchPlugin> {
        for name in plugins {
            self.enabled.push(find(name)?.name);
        }
        Ok(())
    }

    /// Does not run the plugins of these names.
    ///
    /// # Errors
    /// When there is no such plugin.
    pub fn disable(&mut self, plugins: &[String]) -> Result<(), NoSuchPlugin> {
        for name in plugins {
            self.disabled.push(find(name)?.name);
        }
        Ok(())
    }

    /// The plugins that run, in their order. One that is enabled and disabled does not.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &'static dyn Admission> {
        let runs = |plugin: &&Plugin| {
            (plugin.by_default || self.enabled.contains(&plugin.name))
                && !self.disabled.contains(&plugin.name)
        };
        ADMISSION.iter().filter(runs).map(|plugin| plugin.plugin)
    }
}

fn find(name: &str) -> Result<&'static Plugin, NoSuchPlugin> {
    let found = ADMISSION
        .iter()
        .find(|plugin| plugin.name == name && !name.is_empty());
    found.ok_or_else(|| NoSuchPlugin {
        name: name.to_owned(),
    })
}

fn names() -> Vec<&'static str> {
    let names = ADMISSION.iter().map(|plugin| plugin.name);
    names.filter(|name| !name.is_empty()).collect()
}
