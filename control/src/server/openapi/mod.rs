//! The OpenAPI documents: what the server offers and what its objects look like, for `kubectl explain`,
//! client-side apply and field validation.
//!
//! Each group and version has a v3 document, made from the definitions of the schema engine and the
//! resources it serves; an index names them with a hash each, so that clients cache them for good.
//! [`OpenApi`] makes all of them on first use and keeps them compressed (the texts are large and most
//! clients ask for gzip); making them takes some tens of milliseconds, which a start need not wait for.
//!
//! kubectl looks up a kind's `patch` operation and wants a query parameter `fieldValidation` there, or it
//! refuses to create anything: every operation carries the parameters its verb takes.

mod paths;
mod schemas;
mod v2;
pub mod v2_protobuf;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use windlass_api::resource::{GroupVersionKind, ResourceInfo};
use windlass_api::schema::{builtin_definitions, builtin_kinds};

use paths::PathBuilder;
use schemas::{Definitions, list_definition, reachable};

/// Where references of v3 documents point.
const V3_PREFIX: &str = "#/components/schemas/";
/// Package of the definitions that every group uses.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Definitions by kind.
type Names = BTreeMap<GroupVersionKind, String>;

/// A document, compressed, with the hash of its text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The text, compressed with gzip.
    pub gzip: Bytes,
    /// Upper-case hex of the SHA-256 of the text: the ETag, without quotes.
    pub hash: String,
}

impl Document {
    fn of(value: &Value) -> std::io::Result<Self> {
        Self::of_bytes(value.to_string().as_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> std::io::Result<Self> {
        let hash = Sha256::digest(bytes);
        let hash = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes)?;
        Ok(Self {
            gzip: encoder.finish()?.into(),
            hash,
        })
    }

    /// The text, for clients that take no gzip.
    ///
    /// # Errors
    /// Never for a document made here; a corrupt one is an error and not an empty answer.
    pub fn text(&self) -> std::io::Result<Bytes> {
        let mut text = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut text)?;
        Ok(text.into())
    }
}

/// The OpenAPI documents of a fixed set of resources, made on first use.
#[derive(Debug)]
pub struct OpenApi {
    resources: Vec<ResourceInfo>,
    version: String,
    v3: OnceLock<V3>,
    v2: OnceLock<Option<Document>>,
    v2_protobuf: OnceLock<Option<Document>>,
}

#[derive(Debug)]
struct V3 {
    index: Option<Document>,
    documents: BTreeMap<String, Document>,
}

impl OpenApi {
    /// Documents of these resources; `version` is the server's, such as `v1.35.0`.
    #[must_use]
    pub const fn new(resources: Vec<ResourceInfo>, version: String) -> Self {
        Self {
            resources,
            version,
            v3: OnceLock::new(),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
        }
    }

    /// The index at `/openapi/v3`.
    pub fn v3_index(&self) -> Option<&Document> {
        self.v3().index.as_ref()
    }

    /// The document at `/openapi/v3/PATH`, such as `api/v1` or `apis/apps/v1`.
    pub fn v3_document(&self, path: &str) -> Option<&Document> {
        self.v3().documents.get(path)
    }

    /// The document at `/openapi/v2`.
    pub fn v2_document(&self) -> Option<&Document> {
        let make =
            || Document::of(&v2_document(&definitions(), &self.resources, &self.version)).ok();
        self.v2.get_or_init(make).as_ref()
    }

    /// The same in protobuf.
    pub fn v2_protobuf(&self) -> Option<&Document> {
        let make = || {
            let document = v2_document(&definitions(), &self.resources, &self.version);
            Document::of_bytes(&v2_protobuf::encode(&document)).ok()
        };
        self.v2_protobuf.get_or_init(make).as_ref()
    }

    fn v3(&self) -> &V3 {
        self.v3.get_or_init(|| {
            let definitions = definitions();
            let mut groups: BTreeMap<String, Vec<&ResourceInfo>> = BTreeMap::new();
            for resource in &self.resources {
                groups
                    .entry(base_path(&resource.gvk))
                    .or_default()
                    .push(resource);
            }
            let documents = groups.into_iter().filter_map(|(path, resources)| {
                let document = v3_document(&definitions, &resources, &self.version);
                Some((path, Document::of(&document).ok()?))
            });
            let documents: BTreeMap<_, _> = documents.collect();
            let index = v3_index(
                documents
                    .iter()
                    .map(|(path, of)| (path.as_str(), of.hash.as_str())),
            );
            V3 {
                index: Document::of(&index).ok(),
                documents,
            }
        })
    }
}

/// The definitions of all built-in kinds and their lists.
fn definitions() -> Definitions {
    let mut definitions = builtin_definitions();
    for (gvk, name) in builtin_kinds() {
        definitions.insert(format!("{name}List"), list_definition(&gvk, &name));
    }
    definitions
}

/// `api/v1`, or `apis/apps/v1`.
fn base_path(gvk: &GroupVersionKind) -> String {
    let root = if gvk.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", gvk.api_version())
}

/// The index of documents by path and hash.
#[must_use]
pub fn v3_index<'a>(documents: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let entry = |(path, hash): (&str, &str)| {
        let url = format!("/openapi/v3/{path}?hash={hash}");
        (path.to_owned(), json!({ "serverRelativeURL": url }))
    };
    json!({ "paths": documents.map(entry).collect::<Map<_, _>>() })
}

/// The v3 document of one group and version: the paths of its resources and what they refer to.
#[must_use]
pub fn v3_document(definitions: &Definitions, resources: &[&ResourceInfo], version: &str) -> Value {
    let (paths, schemas) = described(definitions, resources);
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": version },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// The v2 document: everything served.
#[must_use]
pub fn v2_document(definitions: &Definitions, resources: &[ResourceInfo], version: &str) -> Value {
    let resources: Vec<_> = resources.iter().collect();
    let (paths, schemas) = described(definitions, &resources);
    v2::document(paths, schemas, version)
}

/// The paths of resources and the definitions they refer to, as version 3 writes them.
fn described(
    definitions: &Definitions,
    resources: &[&ResourceInfo],
) -> (Map<String, Value>, Definitions) {
    let names: Names = builtin_kinds().collect();
    let mut paths = Map::new();
    for resource in resources {
        let builder = PathBuilder {
            base: &base_path(&resource.gvk),
            resource,
            names: &names,
        };
        builder.add_to(&mut paths);
    }
    let schemas = reachable(definitions, &paths, resources, &names);
    (paths, schemas)
}

#[cfg(test)]
mod tests {
    use super::schemas::references;
    use super::*;
    use std::borrow::Cow;
    use windlass_api::resource::SubresourceInfo;

    fn resource(gvk: GroupVersionKind, plural: &'static str, namespaced: bool) -> ResourceInfo {
        const VERBS: &[Cow<'static, str>] = &[
            Cow::Borrowed("create"),
            Cow::Borrowed("delete"),
            Cow::Borrowed("deletecollection"),
            Cow::Borrowed("get"),
            Cow::Borrowed("list"),
            Cow::Borrowed("patch"),
            Cow::Borrowed("update"),
            Cow::Borrowed("watch"),
        ];
        let status = SubresourceInfo {
            name: "status".into(),
            gvk: gvk.clone(),
            verbs: Cow::Owned(vec!["get".into(), "patch".into(), "update".into()]),
        };
        ResourceInfo {
            gvk,
            plural: plural.into(),
            singular: "".into(),
            namespaced,
            verbs: VERBS.into(),
            short_names: Cow::default(),
            categories: Cow::default(),
            subresources: vec![status].into(),
        }
    }

    fn open_api() -> OpenApi {
        let resources = vec![
            resource(GroupVersionKind::of("", "v1", "Pod"), "pods", true),
            resource(
                GroupVersionKind::of("", "v1", "Namespace"),
                "namespaces",
                false,
            ),
            resource(
                GroupVersionKind::of("apps", "v1", "Deployment"),
                "deployments",
                true,
            ),
        ];
        OpenApi::new(resources, "v1.35.0".to_owned())
    }

    fn read(document: Option<&Document>) -> Value {
        let text = document.expect("is made").text().expect("decompresses");
        serde_json::from_slice(&text).expect("is JSON")
    }

    #[test]
    fn the_index_names_every_document_with_its_hash() {
        let open_api = open_api();
        let index = read(open_api.v3_index());
        let paths: Vec<_> = index["paths"]
            .as_object()
            .expect("is an object")
            .keys()
            .collect();
        assert_eq!(paths, ["api/v1", "apis/apps/v1"]);
        let hash = &open_api.v3_document("api/v1").expect("is made").hash;
        assert_eq!(
            index["paths"]["api/v1"]["serverRelativeURL"],
            format!("/openapi/v3/api/v1?hash={hash}")
        );
        assert!(open_api.v3_document("apis/none/v1").is_none());
    }

    #[test]
    fn every_patch_operation_takes_field_validation() {
        let document = read(open_api().v3_document("apis/apps/v1"));
        let paths = document["paths"].as_object().expect("is an object");
        let names: Vec<_> = paths
            .keys()
            .map(|path| path.trim_start_matches("/apis/apps/v1"))
            .collect();
        assert_eq!(
            names,
            [
                "/deployments",
                "/namespaces/{namespace}/deployments",
                "/namespaces/{namespace}/deployments/{name}",
                "/namespaces/{namespace}/deployments/{name}/status"
            ]
        );
        let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-action"], "patch");
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let has = |name: &str| {
            patch["parameters"]
                .as_array()
                .expect("is a list")
                .iter()
                .any(|p| p["name"] == name)
        };
        assert!(has("fieldValidation") && has("dryRun") && has("fieldManager") && has("force"));
    }

    #[test]
    fn schemas_are_closed_and_carry_merge_keys() {
        for path in ["api/v1", "apis/apps/v1"] {
            let document = read(open_api().v3_document(path));
            let schemas = document["components"]["schemas"]
                .as_object()
                .expect("is an object");
            let mut wanted = Vec::new();
            references(&document, &mut wanted);
            for name in wanted {
                assert!(schemas.contains_key(&name), "{path}: {name}");
            }
            let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
            assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
            assert_eq!(containers["x-kubernetes-list-type"], "map");
            assert!(containers["description"].is_string());
        }
        let document = read(open_api().v3_document("apis/apps/v1"));
        let template = &document["components"]["schemas"]["io.k8s.api.core.v1.PodTemplateSpec"];
        let metadata = &template["properties"]["metadata"];
        assert!(metadata["allOf"][0]["$ref"].is_string(), "{metadata}");
        let deployment = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(
            deployment["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
    }

    #[test]
    fn version_2_refers_to_its_own_definitions() {
        let text = open_api()
            .v2_document()
            .expect("is made")
            .text()
            .expect("decompresses");
        let text = String::from_utf8(text.to_vec()).expect("is text");
        assert!(text.contains("#/definitions/io.k8s.api.core.v1.PodSpec"));
        for only_v3 in [
            V3_PREFIX,
            "\"oneOf\"",
            "\"allOf\"",
            "\"requestBody\"",
            "\"content\"",
        ] {
            assert!(!text.contains(only_v3), "{only_v3}");
        }
        let document: Value = serde_json::from_str(&text).expect("is JSON");
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["consumes"][0], "application/json-patch+json");
        assert_eq!(patch["produces"][0], "application/json");
        let body =
            json!({"name": "body", "in": "body", "schema": {"type": "object"}, "required": true});
        assert_eq!(patch["parameters"][0], body);
        let validation = patch["parameters"].as_array().expect("is a list");
        let validation = validation.iter().find(|of| of["name"] == "fieldValidation");
        assert_eq!(validation.expect("is there")["type"], "string");
        let answer = &patch["responses"]["200"]["schema"]["$ref"];
        assert_eq!(answer, "#/definitions/io.k8s.api.core.v1.Pod");
    }

    #[test]
    fn documents_are_small_enough_to_keep() {
        let open_api = open_api();
        let sizes = open_api
            .v3()
            .documents
            .values()
            .map(|document| document.gzip.len())
            .sum::<usize>();
        assert!(sizes < 300_000, "{sizes} bytes");
    }
}
