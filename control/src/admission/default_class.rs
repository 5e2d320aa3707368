//! What names no class gets the default one: claims a StorageClass, Ingresses an IngressClass.
//!
//! Of several defaults the newest counts, then the first by name; without one the object stays without a class.

use std::cmp::Reverse;

use serde_json::Value;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::store::KeyRange;

/// What gets a class, and where classes are.
pub(super) struct DefaultClass {
    kind: &'static str,
    /// Field of the spec that names the class.
    field: &'static str,
    /// The annotation that named it before there was the field.
    annotation: &'static str,
    group: &'static str,
    classes: &'static str,
    /// Annotation of the class that is the default.
    mark: &'static str,
}

/// `DefaultStorageClass`.
pub(super) const OF_CLAIMS: DefaultClass = DefaultClass {
    kind: "PersistentVolumeClaim",
    field: "storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
    group: "storage.k8s.io",
    classes: "storageclasses",
    mark: "storageclass.kubernetes.io/is-default-class",
};

/// `DefaultIngressClass`.
pub(super) const OF_INGRESSES: DefaultClass = DefaultClass {
    kind: "Ingress",
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
    group: "networking.k8s.io",
    classes: "ingressclasses",
    mark: "ingressclass.kubernetes.io/is-default-class",
};

impl Admission for DefaultClass {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates(self.kind) || self.names_class(object) {
            return Ok(());
        }
        if let Some(class) = self.default(attributes)? {
            meta::member_mut(object, "spec").insert(self.field.to_owned(), class.into());
        }
        Ok(())
    }
}

impl DefaultClass {
    /// Whether the object says something of its class; that it is to have none, too.
    fn names_class(&self, object: &Value) -> bool {
        let annotations = meta::get(object, "annotations");
        let spec = object.get("spec");
        annotations.is_some_and(|of| of.get(self.annotation).is_some())
            || spec.is_some_and(|spec| spec.get(self.field).is_some_and(|class| !class.is_null()))
    }

    fn default(&self, attributes: &Attributes<'_>) -> Result<Option<String>, ApiError> {
        let range = KeyRange::resource(self.group, self.classes);
        let mut defaults = Vec::new();
        for entry in attributes.snapshot.range(&range, None) {
            let class = parse(entry)?;
            let annotations = meta::get(&class, "annotations");
            let mark = annotations.and_then(|of| of.get(self.mark));
            if mark.and_then(Value::as_str) == Some("true") {
                // Times of one form sort as texts.
                let created = Reverse(meta::text(&class, "creationTimestamp").to_owned());
                defaults.push((created, meta::name(&class).to_owned()));
            }
        }
        Ok(defaults.into_iter().min().map(|(_, name)| name))
    }
}
