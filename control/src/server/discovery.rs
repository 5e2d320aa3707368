//! Discovery, plain and aggregated, and the OpenAPI documents.
//!
//! Everything here is derived from the table of kinds. Group order matters: clients prefer the first of
//! several groups that serve a name.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_api::resource::ResourceInfo;

use super::openapi::Document;
use super::openapi::v2_protobuf::{MEDIA_TYPE as PROTOBUF, OLD_MEDIA_TYPE};
use super::{ApiServer, Context, compression, negotiation, verbs};
use crate::registry::error::ApiError;

const AGGREGATED: &[&str] = &["v2", "v2beta1"];

/// The groups the table serves, in its order, each with its versions.
fn groups(server: &ApiServer) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for served in server.registry.served() {
        let gvk = &served.kind.info.gvk;
        let known = groups.iter_mut().find(|(group, _)| *group == gvk.group);
        match known {
            Some((_, versions)) if versions.contains(&&*gvk.version) => {}
            Some((_, versions)) => versions.push(&gvk.version),
            None => groups.push((&gvk.group, vec![&gvk.version])),
        }
    }
    groups
}

fn resources<'a>(
    server: &'a ApiServer,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a ResourceInfo> {
    let infos = server
        .registry
        .served()
        .iter()
        .map(|served| &served.kind.info);
    infos.filter(move |info| info.gvk.group == group && info.gvk.version == version)
}

/// Answers a discovery path.
///
/// # Errors
/// [`ApiError::NoSuchPath`].
pub(super) fn respond(
    server: &ApiServer,
    path: &str,
    context: &Context,
) -> Result<Response, ApiError> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let document = match parts.as_slice() {
        [] | [""] => root(server),
        ["api" | "apis"] => match negotiation::discovery_version(&context.headers, AGGREGATED) {
            Some(version) => return aggregated(server, path == "/api", version, context),
            None if path == "/api" => json!({
                "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
            }),
            None => group_list(server),
        },
        ["api", version] => resource_list(server, "", version)?,
        ["apis", group] => {
            let all = groups(server);
            let found = all
                .iter()
                .find(|(name, _)| name == group && !group.is_empty());
            let (name, versions) = found.ok_or(ApiError::NoSuchPath)?;
            let mut group = api_group(name, versions);
            set(&mut group, "kind", "APIGroup");
            set(&mut group, "apiVersion", "v1");
            group
        }
        ["apis", group, version] => resource_list(server, group, version)?,
        _ => return Err(ApiError::NoSuchPath),
    };
    Ok(verbs::json(
        StatusCode::OK,
        Body::from(document.to_string()),
    ))
}

fn set(object: &mut Value, key: &str, value: &str) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.into(), value.into());
    }
}

fn root(server: &ApiServer) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups(server)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
    {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    let rest = [
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    paths.extend(rest.map(str::to_owned));
    json!({"paths": paths})
}

fn group_list(server: &ApiServer) -> Value {
    let groups = groups(server);
    let named = groups.iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<_> = named
        .map(|(group, versions)| api_group(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let version =
        |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<_> = versions.iter().map(version).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(server: &ApiServer, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut entries = Vec::new();
    for info in resources(server, group, version) {
        entries.push(json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced,
            "kind": info.gvk.kind, "verbs": info.verbs, "shortNames": info.short_names,
            "categories": info.categories, "storageVersionHash": storage_hash(info),
        }));
        for subresource in info.subresources.iter() {
            let mut entry = json!({
                "name": format!("{}/{}", info.plural, subresource.name), "singularName": "",
                "namespaced": info.namespaced, "kind": subresource.gvk.kind,
                "verbs": subresource.verbs,
            });
            let gvk = &subresource.gvk;
            if gvk.group != info.gvk.group || gvk.version != info.gvk.version {
                set(&mut entry, "group", &gvk.group);
                set(&mut entry, "version", &gvk.version);
            }
            entries.push(entry);
        }
    }
    if entries.is_empty() {
        return Err(ApiError::NoSuchPath);
    }
    for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["shortNames", "categories"] {
            if entry
                .get(field)
                .and_then(Value::as_array)
                .is_some_and(Vec::is_empty)
            {
                entry.shift_remove(field);
            }
        }
    }
    let group_version = if group.is_empty() {
        version.into()
    } else {
        format!("{group}/{version}")
    };
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": entries,
    }))
}

/// First eight bytes of the SHA-256 of `group/version/Kind`, base64.
fn storage_hash(info: &ResourceInfo) -> String {
    use base64::Engine;
    let gvk = &info.gvk;
    let hash = Sha256::digest(format!("{}/{}/{}", gvk.group, gvk.version, gvk.kind));
    base64::engine::general_purpose::STANDARD.encode(hash.get(..8).unwrap_or_default())
}

fn aggregated(
    server: &ApiServer,
    core: bool,
    version: &'static str,
    context: &Context,
) -> Result<Response, ApiError> {
    let groups = groups(server)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core);
    let items: Vec<_> = groups
        .map(|(group, versions)| aggregated_group(server, group, &versions))
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let bytes = Bytes::from(document.to_string());
    let etag = hex(&Sha256::digest(&bytes));
    let content_type =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    cacheable(&context.headers, &etag, &content_type, "Accept", || {
        Ok(bytes)
    })
}

fn aggregated_group(server: &ApiServer, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| {
            let resources: Vec<_> = resources(server, group, version)
                .map(aggregated_resource)
                .collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
}

fn aggregated_resource(info: &ResourceInfo) -> Value {
    let kind = |gvk: &windlass_api::resource::GroupVersionKind| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    let subresources: Vec<_> = info
        .subresources
        .iter()
        .map(|sub| {
            json!({"subresource": sub.name, "responseKind": kind(&sub.gvk), "verbs": sub.verbs})
        })
        .collect();
    json!({
        "resource": info.plural, "responseKind": kind(&info.gvk),
        "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular, "verbs": info.verbs, "shortNames": info.short_names,
        "categories": info.categories, "subresources": subresources,
    })
}

/// Answers `/openapi/v2`, `/openapi/v3` and the documents below the latter.
///
/// # Errors
/// [`ApiError::NoSuchPath`], and [`ApiError::NotAcceptable`] when the client accepts no form there is.
pub(super) fn openapi(
    server: &ApiServer,
    path: &str,
    context: &Context,
) -> Result<Response, ApiError> {
    let offered: &[_] = match path {
        "/openapi/v2" => &["application/json", PROTOBUF, OLD_MEDIA_TYPE],
        // Differs from Kubernetes: the documents of version 3 have no protobuf form.
        _ => &["application/json"],
    };
    let is_json = negotiation::choose(&context.headers, offered)? == "application/json";
    let document = match path {
        "/openapi/v2" if is_json => server.openapi.v2_document(),
        "/openapi/v2" => server.openapi.v2_protobuf(),
        "/openapi/v3" => server.openapi.v3_index(),
        _ => server
            .openapi
            .v3_document(path.strip_prefix("/openapi/v3/").unwrap_or_default()),
    };
    let document: &Document = document.ok_or(ApiError::NoSuchPath)?;
    let accepts_gzip = compression::accepts_gzip(&context.headers);
    let text = || {
        if accepts_gzip {
            return Ok(document.gzip.clone());
        }
        document
            .text()
            .map_err(|error| ApiError::Internal(format!("OpenAPI document: {error}")))
    };
    let headers = &context.headers;
    let vary = "Accept, Accept-Encoding";
    let media_type = if is_json {
        "application/json"
    } else {
        PROTOBUF
    };
    let mut response = cacheable(headers, &document.hash, media_type, vary, text)?;
    let answer = response.headers_mut();
    if accepts_gzip {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // A document is fetched by its hash, so its content never changes.
    if context.query.get("hash") == document.hash {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        answer.insert(header::CACHE_CONTROL, forever);
    }
    Ok(response)
}

fn cacheable(
    headers: &HeaderMap,
    hash: &str,
    content_type: &str,
    vary: &'static str,
    bytes: impl FnOnce() -> Result<Bytes, ApiError>,
) -> Result<Response, ApiError> {
    let etag = format!("\"{hash}\"");
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value == etag.as_str());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(bytes()?))
    };
    let invalid = |error: header::InvalidHeaderValue| ApiError::Internal(error.to_string());
    let answer = response.headers_mut();
    answer.insert(header::ETAG, etag.parse().map_err(invalid)?);
    answer.insert(header::CONTENT_TYPE, content_type.parse().map_err(invalid)?);
    answer.insert(header::VARY, HeaderValue::from_static(vary));
    Ok(response)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
