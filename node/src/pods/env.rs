//! A container's environment: literals, references and expansion, purely, from objects fetched before.
//!
//! Order: the image's own variables, Service links, `envFrom`, `env`; a later value of a name replaces
//! an earlier one. `$(NAME)` is expanded from what came before; `$$` is a dollar sign.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret};

use crate::downward::{self, NodeView};

/// Objects a container's environment refers to, by name; `None` for one that does not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnvObjects {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
}

/// Names of the ConfigMaps and of the Secrets a container's environment needs.
pub(crate) fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut config_maps = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for source in container.env_from.iter().flatten() {
        config_maps.extend(
            source
                .config_map_ref
                .iter()
                .map(|reference| reference.name.clone()),
        );
        secrets.extend(
            source
                .secret_ref
                .iter()
                .map(|reference| reference.name.clone()),
        );
    }
    let sources = container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref());
    for source in sources {
        config_maps.extend(
            source
                .config_map_key_ref
                .iter()
                .map(|reference| reference.name.clone()),
        );
        secrets.extend(
            source
                .secret_key_ref
                .iter()
                .map(|reference| reference.name.clone()),
        );
    }
    (config_maps, secrets)
}

/// Variables in order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    entries: Vec<(String, String)>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.entries.push((name.to_owned(), value)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Replaces `$(NAME)` by its value; a name that is not set stays as it is written.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            expanded.push_str(before);
            rest = match reference(from) {
                Expansion::Dollar(after) => {
                    expanded.push('$');
                    after
                }
                Expansion::Name(name, after) => {
                    match self.get(name) {
                        Some(value) => expanded.push_str(value),
                        None => expanded.extend(["$(", name, ")"]),
                    }
                    after
                }
            };
        }
        expanded.push_str(rest);
        expanded
    }

    /// The variables.
    pub(crate) fn into_entries(self) -> Vec<(String, String)> {
        self.entries
    }
}

enum Expansion<'a> {
    Dollar(&'a str),
    Name(&'a str, &'a str),
}

/// What a text that begins with `$` begins with.
fn reference(text: &str) -> Expansion<'_> {
    let after = text.get(1..).unwrap_or_default();
    if let Some(rest) = after.strip_prefix('$') {
        return Expansion::Dollar(rest);
    }
    match after
        .strip_prefix('(')
        .and_then(|inner| inner.split_once(')'))
    {
        Some((name, rest)) => Expansion::Name(name, rest),
        None => Expansion::Dollar(after),
    }
}

/// Resolves a container's environment.
///
/// # Errors
/// What is missing or malformed, in the words of `CreateContainerConfigError`.
pub(crate) fn resolve(
    pod: &Pod,
    container: &Container,
    node: &NodeView,
    objects: &EnvObjects,
    inherited: Vec<(String, String)>,
) -> Result<Environment, String> {
    let mut environment = Environment::default();
    for (name, value) in inherited {
        environment.set(&name, value);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional.unwrap_or(false);
            let data =
                config_map(objects, &reference.name, optional)?.and_then(|map| map.data.as_ref());
            for (key, value) in data.into_iter().flatten() {
                environment.set(&format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(reference) = &source.secret_ref {
            let optional = reference.optional.unwrap_or(false);
            let data =
                secret(objects, &reference.name, optional)?.and_then(|secret| secret.data.as_ref());
            for (key, value) in data.into_iter().flatten() {
                environment.set(
                    &format!("{prefix}{key}"),
                    text(&reference.name, key, &value.0)?,
                );
            }
        }
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, node, objects, &environment, var)? {
            environment.set(&var.name, value);
        }
    }
    Ok(environment)
}

fn value_of(
    pod: &Pod,
    container: &Container,
    node: &NodeView,
    objects: &EnvObjects,
    environment: &Environment,
    var: &EnvVar,
) -> Result<Option<String>, String> {
    let Some(source) = &var.value_from else {
        return Ok(Some(
            environment.expand(var.value.as_deref().unwrap_or_default()),
        ));
    };
    if let Some(reference) = &source.field_ref {
        return downward::field(pod, node, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let of = reference
            .container_name
            .as_deref()
            .unwrap_or(&container.name);
        let spec = pod.spec.as_ref();
        let found = spec.and_then(|spec| spec.containers.iter().find(|other| other.name == of));
        return downward::resource(found.unwrap_or(container), node, reference).map(Some);
    }
    object_value(pod, objects, source)
}

fn object_value(
    pod: &Pod,
    objects: &EnvObjects,
    source: &EnvVarSource,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let missing = |kind: &str, name: &str, key: &str, optional: bool| {
        if optional {
            Ok(None)
        } else {
            Err(format!(
                "couldn't find key {key} in {kind} {namespace}/{name}"
            ))
        }
    };
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let Some(map) = config_map(objects, &reference.name, optional)? else {
            return Ok(None);
        };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing("ConfigMap", &reference.name, &reference.key, optional),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let Some(secret) = secret(objects, &reference.name, optional)? else {
            return Ok(None);
        };
        return match secret
            .data
            .as_ref()
            .and_then(|data| data.get(&reference.key))
        {
            Some(value) => text(&reference.name, &reference.key, &value.0).map(Some),
            None => missing("Secret", &reference.name, &reference.key, optional),
        };
    }
    Err("env valueFrom names no source this node knows".to_owned())
}

fn config_map<'a>(
    objects: &'a EnvObjects,
    name: &str,
    optional: bool,
) -> Result<Option<&'a ConfigMap>, String> {
    match objects.config_maps.get(name).and_then(Option::as_ref) {
        None if !optional => Err(format!("configmap {name:?} not found")),
        found => Ok(found),
    }
}

fn secret<'a>(
    objects: &'a EnvObjects,
    name: &str,
    optional: bool,
) -> Result<Option<&'a Secret>, String> {
    match objects.secrets.get(name).and_then(Option::as_ref) {
        None if !optional => Err(format!("secret {name:?} not found")),
        found => Ok(found),
    }
}

/// Differs from Kubernetes: a variable is text in WASI, so bytes that are not UTF-8 are refused.
fn text(secret: &str, key: &str, bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| format!("key {key} of secret {secret:?} is not UTF-8 and can't be a variable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve_container(container: &serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n" },
            "spec": { "containers": [container] },
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let objects = EnvObjects {
            config_maps: BTreeMap::from([(
                "cm".to_owned(),
                Some(serde_json::from_value(json!({ "data": { "a": "1", "b": "2" } })).unwrap()),
            )]),
            secrets: BTreeMap::from([(
                "s".to_owned(),
                Some(
                    serde_json::from_value(json!({ "data": { "k": "c2VjcmV0", "bin": "/w==" } }))
                        .unwrap(),
                ),
            )]),
        };
        let node = NodeView {
            pod_ip: "10.0.0.9".to_owned(),
            ..NodeView::default()
        };
        let inherited = vec![("PATH".to_owned(), "/bin".to_owned())];
        resolve(&pod, container, &node, &objects, inherited).map(Environment::into_entries)
    }

    fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_source_is_resolved_in_order() {
        let found = resolve_container(&json!({
            "name": "c",
            "envFrom": [{ "prefix": "X_", "configMapRef": { "name": "cm" } }],
            "env": [
                { "name": "X_a", "value": "over" },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                { "name": "URL", "value": "http://$(IP)/$(NONE)/$$(IP)/$" },
                { "name": "PATH", "value": "$(PATH):/usr/bin" },
                { "name": "NO", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "z", "optional": true } } },
            ],
        }));
        assert_eq!(
            found.unwrap(),
            pairs(&[
                ("PATH", "/bin:/usr/bin"),
                ("X_a", "over"),
                ("X_b", "2"),
                ("IP", "10.0.0.9"),
                ("KEY", "secret"),
                ("URL", "http://10.0.0.9/$(NONE)/$(IP)/$"),
            ])
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            (
                json!({ "envFrom": [{ "configMapRef": { "name": "no" } }] }),
                "configmap \"no\" not found",
            ),
            (
                json!({ "envFrom": [{ "secretRef": { "name": "no" } }] }),
                "secret \"no\" not found",
            ),
            (
                json!({ "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "z" } } }] }),
                "couldn't find key z in ConfigMap n/cm",
            ),
            (
                json!({ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "z" } } }] }),
                "couldn't find key z in Secret n/s",
            ),
            (
                json!({ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "bin" } } }] }),
                "key bin of secret \"s\" is not UTF-8 and can't be a variable",
            ),
            (
                json!({ "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "spec.x" } } }] }),
                "unsupported fieldPath: spec.x",
            ),
        ];
        for (mut container, want) in cases {
            container["name"] = json!("c");
            assert_eq!(resolve_container(&container).unwrap_err(), want);
        }
    }

    #[test]
    fn optional_sources_may_be_missing() {
        let found = resolve_container(&json!({
            "name": "c",
            "envFrom": [{ "secretRef": { "name": "no", "optional": true } }],
            "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "no", "key": "z", "optional": true } } }],
        }));
        assert_eq!(found.unwrap(), pairs(&[("PATH", "/bin")]));
    }
}
