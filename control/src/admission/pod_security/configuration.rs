//! What holds for namespaces without labels, and who is exempt: the configuration of `PodSecurity` in a file of kind
//! `AdmissionConfiguration`.

use std::collections::HashSet;

use serde::Deserialize;
use thiserror::Error;

use super::policy::{Level, Mode, Policies};
use crate::file_kind::{self, WrongKind};

/// What holds for namespaces without labels, and who is exempt. By default nothing and nobody.
#[derive(Clone, Debug, Default)]
pub struct PodSecurityConfiguration {
    defaults: Policies,
    exempt: Exemptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Exemptions {
    #[serde(default)]
    usernames: HashSet<String>,
    #[serde(default)]
    runtime_classes: HashSet<String>,
    #[serde(default)]
    namespaces: HashSet<String>,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
pub enum PodSecurityError {
    /// It is not what it should be.
    #[error("not an AdmissionConfiguration: {0}")]
    Form(String),
    /// It is of another kind, or a part of it is.
    #[error(transparent)]
    Kind(#[from] WrongKind),
    /// A plugin that takes no configuration here.
    #[error("plugin {0:?} cannot be configured: only PodSecurity can")]
    Plugin(String),
    /// A plugin whose configuration is in a file of its own.
    #[error(
        "path {0:?}: write the configuration of PodSecurity into the same file, under `configuration`"
    )]
    Path(String),
    /// A level or a version that there is not.
    #[error("defaults.{field}: {text:?} {why}")]
    Default {
        /// `enforce` or `enforce-version`, and so on.
        field: String,
        /// What it says.
        text: String,
        /// What it must be.
        why: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: String,
    configuration: Option<Body>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    defaults: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

impl PodSecurityConfiguration {
    /// Reads a file of kind `AdmissionConfiguration` in YAML.
    ///
    /// # Errors
    /// What is wrong with it, or asks for what is not supported.
    pub fn parse(text: &str) -> Result<Self, PodSecurityError> {
        let file: File = serde_yaml::from_str(text)
            .map_err(|error| PodSecurityError::Form(error.to_string()))?;
        let kind = (&*file.kind, &*file.api_version);
        let versions = &["apiserver.config.k8s.io/v1"];
        file_kind::check("the file", kind, "AdmissionConfiguration", versions)?;
        let mut all = Self::default();
        for plugin in file.plugins {
            if plugin.name != "PodSecurity" {
                return Err(PodSecurityError::Plugin(plugin.name));
            }
            if !plugin.path.is_empty() {
                return Err(PodSecurityError::Path(plugin.path));
            }
            if let Some(body) = plugin.configuration {
                all = Self::of(body)?;
            }
        }
        Ok(all)
    }

    fn of(body: Body) -> Result<Self, PodSecurityError> {
        let kind = (&*body.kind, &*body.api_version);
        file_kind::check(
            "the configuration of PodSecurity",
            kind,
            "PodSecurityConfiguration",
            &["pod-security.admission.config.k8s.io/v1"],
        )?;
        let mut defaults = Policies::default();
        for (field, text) in body.defaults {
            let (name, is_version) = match field.strip_suffix("-version") {
                Some(name) => (name, true),
                None => (&*field, false),
            };
            let mode = Mode::ALL.into_iter().find(|mode| mode.name() == name);
            let set = match mode.map(|mode| defaults.of(mode)) {
                None => Err("is no default: there are enforce, audit and warn, and their versions"),
                Some(policy) if is_version => policy.set_version(&text),
                Some(policy) => Level::parse(&text).map(|level| policy.level = level),
            };
            set.map_err(|why| PodSecurityError::Default { field, text, why })?;
        }
        Ok(Self {
            defaults,
            exempt: body.exemptions,
        })
    }

    pub(super) fn defaults(&self) -> &Policies {
        &self.defaults
    }

    /// Whether nothing is asked of what the user does in the namespace, or of pods of the runtime class.
    pub(super) fn exempts(&self, user: &str, namespace: &str, runtime: Option<&str>) -> bool {
        self.exempt.namespaces.contains(namespace)
            || self.exempt.usernames.contains(user)
            || runtime.is_some_and(|runtime| self.exempt.runtime_classes.contains(runtime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(body: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  \
             configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    \
             kind: PodSecurityConfiguration\n{body}"
        )
    }

    #[test]
    fn defaults_and_exemptions_are_read() {
        let text = file(
            "    defaults: {enforce: baseline, enforce-version: v1.30}\n    \
             exemptions: {usernames: [ann], runtimeClasses: [vm], namespaces: [kube-system]}\n",
        );
        let read = PodSecurityConfiguration::parse(&text).unwrap();
        assert_eq!(read.defaults().enforce.to_string(), "baseline:v1.30");
        assert!(read.exempts("ann", "x", None));
        assert!(read.exempts("bob", "x", Some("vm")));
        assert!(read.exempts("bob", "kube-system", None));
        assert!(!read.exempts("bob", "x", Some("wasm")));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let refused = |text: &str| {
            PodSecurityConfiguration::parse(text)
                .unwrap_err()
                .to_string()
        };
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        for (text, expected) in [
            (
                "kind: Pod\napiVersion: v1\n".to_owned(),
                "the file is of kind \"Pod\" of \"v1\"",
            ),
            (
                format!("{head}plugins: [{{name: Other}}]"),
                "plugin \"Other\" cannot be configured",
            ),
            (
                format!("{head}plugins: [{{name: PodSecurity, path: a.yaml}}]"),
                "path \"a.yaml\"",
            ),
            (format!("{head}more: 1"), "more"),
            (
                file("    defaults: {enforce: strict}\n"),
                "defaults.enforce: \"strict\" must be one of",
            ),
            (
                file("    defaults: {enforce-version: v2}\n"),
                "defaults.enforce-version: \"v2\" must be",
            ),
            (
                file("    defaults: {deny: baseline}\n"),
                "defaults.deny: \"baseline\" is no default",
            ),
        ] {
            let error = refused(&text);
            assert!(error.contains(expected), "{error}");
        }
    }
}
