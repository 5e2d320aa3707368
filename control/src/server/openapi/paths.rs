//! The paths of a resource: which verbs, with which parameters, bodies and answers.

use serde_json::{Map, Value, json};
use windlass_api::resource::{GroupVersionKind, ResourceInfo, SubresourceInfo};
use windlass_api::schema::protobuf::envelope::MEDIA_TYPE as PROTOBUF;

use super::{META, Names, V3_PREFIX};

/// Writes the paths of one resource.
pub(super) struct PathBuilder<'a> {
    /// Path of the group and version, such as `apis/apps/v1`.
    pub(super) base: &'a str,
    /// The resource.
    pub(super) resource: &'a ResourceInfo,
    /// Names of definitions.
    pub(super) names: &'a Names,
}

/// What a verb is in a path item.
struct Operation {
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    id: &'static str,
    says: &'static str,
    parameters: &'static [Parameter],
}

/// Name, type and description of a query parameter.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: All.",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.",
);
const GRACE_PERIOD: Parameter = (
    "gracePeriodSeconds",
    "integer",
    "The duration in seconds before the object should be deleted.",
);
const PROPAGATION: Parameter = (
    "propagationPolicy",
    "string",
    "Whether and how garbage collection will be performed. Valid values are: Orphan, Background, Foreground.",
);
const ORPHAN: Parameter = (
    "orphanDependents",
    "boolean",
    "Deprecated: please use the PropagationPolicy. Should the dependent objects be orphaned.",
);
const PRETTY: Parameter = (
    "pretty",
    "string",
    "If 'true', then the output is pretty printed.",
);

const SELECT: &[Parameter] = &[
    (
        "allowWatchBookmarks",
        "boolean",
        "allowWatchBookmarks requests watch events with type \"BOOKMARK\".",
    ),
    (
        "continue",
        "string",
        "The continue option should be set when retrieving more results from the server.",
    ),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels.",
    ),
    (
        "limit",
        "integer",
        "limit is a maximum number of responses to return for a list call.",
    ),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "resourceVersionMatch determines how resourceVersion is applied to list calls.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "sendInitialEvents=true may be set together with watch=true.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "Timeout for the list/watch call.",
    ),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];

const COLLECTION: &[Operation] = &[
    Operation {
        verb: "list",
        method: "get",
        action: "list",
        id: "list",
        says: "list or watch objects of kind",
        parameters: SELECT,
    },
    Operation {
        verb: "create",
        method: "post",
        action: "post",
        id: "create",
        says: "create",
        parameters: &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION],
    },
    Operation {
        verb: "deletecollection",
        method: "delete",
        action: "deletecollection",
        id: "deleteCollection",
        says: "delete collection of",
        parameters: SELECT,
    },
];

const ITEM: &[Operation] = &[
    Operation {
        verb: "get",
        method: "get",
        action: "get",
        id: "read",
        says: "read the specified",
        parameters: &[],
    },
    Operation {
        verb: "update",
        method: "put",
        action: "put",
        id: "replace",
        says: "replace the specified",
        parameters: &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION],
    },
    Operation {
        verb: "patch",
        method: "patch",
        action: "patch",
        id: "patch",
        says: "partially update the specified",
        parameters: &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE],
    },
    Operation {
        verb: "delete",
        method: "delete",
        action: "delete",
        id: "delete",
        says: "delete",
        parameters: &[DRY_RUN, GRACE_PERIOD, ORPHAN, PROPAGATION],
    },
    // Creating at an item's path is what subresources such as binding and eviction do.
    Operation {
        verb: "create",
        method: "post",
        action: "post",
        id: "create",
        says: "create",
        parameters: &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION],
    },
];

/// Any media type.
pub(super) const ANY: &str = "*/*";

/// What objects are answered in.
const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", PROTOBUF];
/// What a list, which may be a watch, is answered in.
const LIST_MEDIA_TYPES: &[&str] = &[
    "application/json",
    "application/json;stream=watch",
    "application/yaml",
    PROTOBUF,
    "application/vnd.kubernetes.protobuf;stream=watch",
];

const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl PathBuilder<'_> {
    /// Adds every path of the resource and its subresources.
    pub(super) fn add_to(&self, paths: &mut Map<String, Value>) {
        let ResourceInfo {
            namespaced, plural, ..
        } = self.resource;
        let scope = if *namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("/{}{scope}/{plural}", self.base);
        if *namespaced {
            let everywhere = COLLECTION
                .iter()
                .filter(|operation| operation.verb == "list");
            self.add_path(paths, format!("/{}/{plural}", self.base), everywhere, false);
        }
        self.add_path(paths, collection.clone(), COLLECTION.iter(), *namespaced);
        let item = ITEM.iter().filter(|operation| operation.verb != "create");
        self.add_path(paths, format!("{collection}/{{name}}"), item, *namespaced);
        for subresource in &*self.resource.subresources {
            self.add_subresource(paths, &collection, subresource);
        }
    }

    fn add_path<'o>(
        &self,
        paths: &mut Map<String, Value>,
        path: String,
        operations: impl Iterator<Item = &'o Operation>,
        namespaced: bool,
    ) {
        let mut item = Map::new();
        for operation in
            operations.filter(|of| self.resource.verbs.iter().any(|verb| verb == of.verb))
        {
            let described = self.operation(operation, &self.resource.gvk, "");
            item.insert(operation.method.to_owned(), described);
        }
        if !item.is_empty() {
            item.insert("parameters".to_owned(), path_parameters(&path, namespaced));
            paths.insert(path, Value::Object(item));
        }
    }

    fn add_subresource(
        &self,
        paths: &mut Map<String, Value>,
        collection: &str,
        subresource: &SubresourceInfo,
    ) {
        let path = format!("{collection}/{{name}}/{}", subresource.name);
        if subresource.gvk.kind.ends_with("Options") {
            return self.add_connection(paths, path, subresource);
        }
        let mut item = Map::new();
        let allowed = |of: &&Operation| subresource.verbs.iter().any(|verb| verb == of.verb);
        for operation in ITEM.iter().filter(allowed) {
            let described = self.operation(operation, &subresource.gvk, &subresource.name);
            item.insert(operation.method.to_owned(), described);
        }
        if !item.is_empty() {
            item.insert(
                "parameters".to_owned(),
                path_parameters(&path, self.resource.namespaced),
            );
            paths.insert(path, Value::Object(item));
        }
    }

    /// A subresource that connects to something: neither bodies nor answers have a schema.
    fn add_connection(
        &self,
        paths: &mut Map<String, Value>,
        path: String,
        subresource: &SubresourceInfo,
    ) {
        let gvk = &subresource.gvk;
        let mut item = Map::new();
        let allowed = |of: &&Operation| subresource.verbs.iter().any(|verb| verb == of.verb);
        for operation in ITEM.iter().filter(allowed) {
            let id = self.operation_id(operation, &subresource.name);
            let described = json!({
                "description": format!("connect {} requests to {}", operation.method.to_uppercase(), subresource.name),
                "operationId": id.replacen(operation.id, &format!("connect{}", camel(operation.method)), 1),
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": content(&[ANY], &json!({ "type": "string" })),
                    },
                    "401": { "description": "Unauthorized" },
                },
                "x-kubernetes-action": "connect",
                "x-kubernetes-group-version-kind":
                    { "group": gvk.group, "version": gvk.version, "kind": gvk.kind },
            });
            item.insert(operation.method.to_owned(), described);
        }
        let parameters = path_parameters(&path, self.resource.namespaced);
        item.insert("parameters".to_owned(), parameters);
        paths.insert(path, Value::Object(item));
    }

    fn operation(&self, operation: &Operation, gvk: &GroupVersionKind, subresource: &str) -> Value {
        let kind = &gvk.kind;
        let mut described = json!({
            "description": format!("{} {kind}", operation.says),
            "operationId": self.operation_id(operation, subresource),
            "parameters": operation.parameters.iter().copied().chain([PRETTY]).map(query).collect::<Vec<_>>(),
            "responses": self.responses(operation, gvk),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind":
                { "group": gvk.group, "version": gvk.version, "kind": kind },
        });
        if let (Some(body), Value::Object(described)) = (self.body(operation, gvk), &mut described)
        {
            described.insert("requestBody".to_owned(), body);
        }
        described
    }

    fn operation_id(&self, operation: &Operation, subresource: &str) -> String {
        let ResourceInfo {
            gvk, namespaced, ..
        } = self.resource;
        let group = if gvk.group.is_empty() {
            "core"
        } else {
            gvk.group.trim_end_matches(".k8s.io")
        };
        let scope = if *namespaced { "Namespaced" } else { "" };
        let (group, version) = (camel(group), camel(&gvk.version));
        format!(
            "{}{group}{version}{scope}{}{}",
            operation.id,
            gvk.kind,
            camel(subresource)
        )
    }

    fn reference(&self, gvk: &GroupVersionKind, suffix: &str) -> Option<Value> {
        let name = self.names.get(gvk)?;
        Some(json!({ "$ref": format!("{V3_PREFIX}{name}{suffix}") }))
    }

    fn responses(&self, operation: &Operation, gvk: &GroupVersionKind) -> Value {
        let schema = match operation.verb {
            "list" => self.reference(gvk, "List"),
            "delete" | "deletecollection" => {
                Some(json!({ "$ref": format!("{V3_PREFIX}{META}.Status") }))
            }
            _ => self.reference(gvk, ""),
        };
        let types = match operation.verb {
            "list" => LIST_MEDIA_TYPES,
            _ => MEDIA_TYPES,
        };
        let content = schema.map_or_else(|| json!({}), |schema| content(types, &schema));
        json!({
            "200": { "description": "OK", "content": content },
            "401": { "description": "Unauthorized" },
        })
    }

    fn body(&self, operation: &Operation, gvk: &GroupVersionKind) -> Option<Value> {
        match operation.verb {
            "create" | "update" => {
                let schema = self.reference(gvk, "")?;
                Some(json!({ "required": true, "content": content(&[ANY], &schema) }))
            }
            "patch" => {
                let patches = content(PATCH_TYPES, &json!({ "type": "object" }));
                Some(json!({ "required": true, "content": patches }))
            }
            "delete" | "deletecollection" => {
                let schema = json!({ "$ref": format!("{V3_PREFIX}{META}.DeleteOptions") });
                Some(json!({ "content": content(&[ANY], &schema) }))
            }
            _ => None,
        }
    }
}

/// One schema in each of these media types.
fn content(types: &[&str], schema: &Value) -> Value {
    let content = types
        .iter()
        .map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema })));
    content.collect::<Map<_, _>>().into()
}

fn query((name, kind, description): Parameter) -> Value {
    json!({
        "name": name, "in": "query", "description": description,
        "schema": { "type": kind, "uniqueItems": true },
    })
}

fn path_parameters(path: &str, namespaced: bool) -> Value {
    let parameter = |name: &str, description: &str| {
        json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": { "type": "string", "uniqueItems": true },
        })
    };
    let mut parameters = Vec::new();
    if path.contains("{name}") {
        parameters.push(parameter("name", "name of the object"));
    }
    if namespaced {
        parameters.push(parameter(
            "namespace",
            "object name and auth scope, such as for teams and projects",
        ));
    }
    parameters.into()
}

/// `rbac.authorization` becomes `RbacAuthorization`.
fn camel(text: &str) -> String {
    let capital = |part: &str| {
        let mut characters = part.chars();
        let first = characters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(characters).collect::<String>()
    };
    text.split('.').map(capital).collect()
}
