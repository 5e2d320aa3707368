//! Verbs on resources: a request in the API's terms to a call of the registry, and its answer.
//!
//! One file per verb. A verb knows no kind: what is special about a kind is in its strategy, what is
//! special about a subresource is in [`SUBRESOURCES`].

mod body;
mod computed;
mod connect;
mod create;
mod delete;
mod eviction;
mod get;
mod list;
mod patch;
mod subresource;
mod token;
mod update;
mod watch;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::negotiation::{self, Encoding, Offer, Representation};
use super::{ApiServer, Context, codec, protobuf};
use crate::admission::Remarks;
use crate::registry::error::{ApiError, Target};
use crate::registry::strategy::Endpoint;
use crate::registry::{Call, Served, WriteOptions, Written};

/// Subresources that are a part of the stored object, besides its status; the kind's strategy says which
/// part.
const PARTS: [&str; 4] = ["approval", "ephemeralcontainers", "finalize", "resize"];

/// A request on a resource that is served.
struct Request<'a> {
    server: &'a ApiServer,
    context: &'a Context,
    /// The kind in whose form the client sends and is answered.
    served: &'a Served,
    options: WriteOptions,
}

impl<'a> Request<'a> {
    fn call(&self) -> Call<'_> {
        Call {
            served: self.server.registry().stored(self.served),
            namespace: &self.context.info.namespace,
            name: &self.context.info.name,
            options: &self.options,
        }
    }

    fn target(&self) -> Target {
        self.call().target()
    }

    fn representation(&self) -> Result<Representation, ApiError> {
        let offer = Offer {
            protobuf: protobuf::speaks(&self.served.kind.info.gvk),
            // A review is an answer to a question: there is nothing to list.
            table: self
                .served
                .kind
                .info
                .verbs
                .iter()
                .any(|verb| verb == "list"),
            stream: self.context.info.verb == "watch",
        };
        negotiation::representation(&self.context.headers, &self.context.query, offer)
    }

    /// The answer that carries an object which is not stored: a Status, a Scale, a TokenRequest.
    fn answer(&self, status: StatusCode, object: &Value) -> Result<Response, ApiError> {
        self.context.audit.answered(|| Some(object.clone()));
        let encoding = negotiation::status_encoding(&self.context.headers);
        let representation = match encoding {
            Encoding::Json => Representation::Json,
            Encoding::Protobuf => Representation::Protobuf,
        };
        let bytes = codec::written(object, encoding)?;
        Ok(represented(status, representation, Body::from(bytes)))
    }

    /// The answer that carries one object.
    fn object(&self, status: StatusCode, bytes: &Bytes) -> Result<Response, ApiError> {
        let representation = self.representation()?;
        let answered = || serde_json::from_slice(bytes).ok();
        self.context.audit.answered(answered);
        let bytes = codec::object(&self.served.kind, representation, bytes)?;
        Ok(represented(status, representation, Body::from(bytes)))
    }

    /// The answer to a write.
    fn written(&self, written: &Written, warnings: &[String]) -> Result<Response, ApiError> {
        let status = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let Remarks {
            warnings: own,
            annotations,
        } = &written.remarks;
        for (key, text) in annotations {
            self.context.audit.annotate(key, text);
        }
        let mut response = self.object(status, &written.bytes)?;
        warn(&mut response, own.iter().chain(warnings));
        Ok(response)
    }

    /// The subresource as the registry means it; an error if the kind has none of that name.
    fn endpoint(&self) -> Result<Endpoint, ApiError> {
        let wanted = self.context.info.subresource.as_str();
        match wanted {
            "" => Ok(Endpoint::Main),
            "status" if self.served.kind.strategy.has_status() => Ok(Endpoint::Status),
            _ => {
                let part = PARTS.into_iter().find(|part| *part == wanted);
                let part = part.filter(|part| self.has_subresource(part));
                part.map(Endpoint::Named).ok_or(ApiError::NoSuchPath)
            }
        }
    }

    fn has_subresource(&self, name: &str) -> bool {
        self.served
            .kind
            .info
            .subresources
            .iter()
            .any(|sub| sub.name == name)
    }
}

/// Carries out the verb of `context`.
///
/// # Errors
/// What the client is told.
pub(super) async fn dispatch(
    server: &ApiServer,
    context: &Context,
    body: Body,
) -> Result<Response, ApiError> {
    let info = &context.info;
    let served = server
        .registry()
        .find(&info.group, &info.version, &info.resource)
        .ok_or(ApiError::NoSuchPath)?;
    let options = WriteOptions {
        user: context.user.clone(),
        manager: manager(context),
        dry_run: dry_run(context)?,
        form: served.kind.conversion,
    };
    let request = Request {
        server,
        context,
        served,
        options,
    };
    check_scope(&request)?;
    if !info.subresource.is_empty() && !request.has_subresource(&info.subresource) {
        return Err(ApiError::NoSuchPath);
    }
    if let Some(handler) = subresource::find(&info.subresource) {
        return handler.respond(&request, body).await;
    }
    let allowed = info.subresource.is_empty()
        && !served.kind.info.verbs.iter().any(|verb| *verb == info.verb);
    if allowed || (info.name.is_empty() && matches!(info.verb, "update" | "patch")) {
        let verb = info.verb.into();
        return Err(ApiError::MethodNotAllowed {
            target: request.target(),
            verb,
        });
    }
    // What the client can't be answered in is refused before anything is written.
    request.representation()?;
    if served.kind.computed {
        return computed::respond(&request, body).await;
    }
    match info.verb {
        "get" => get::respond(&request).await,
        "list" => list::respond(&request).await,
        "watch" => watch::respond(&request).await,
        "create" => create::respond(&request, body).await,
        "update" => update::respond(&request, body).await,
        "patch" => patch::respond(&request, body).await,
        "delete" => delete::respond(&request, body).await,
        "deletecollection" => delete::respond_collection(&request, body).await,
        verb => Err(ApiError::MethodNotAllowed {
            target: request.target(),
            verb: verb.into(),
        }),
    }
}

/// Namespaced objects are named within a namespace, others never.
fn check_scope(request: &Request<'_>) -> Result<(), ApiError> {
    let info = &request.context.info;
    let namespaced = request.served.kind.info.namespaced;
    if !namespaced && !info.namespace.is_empty() {
        return Err(ApiError::NoSuchPath);
    }
    let needs = !info.name.is_empty() || matches!(info.verb, "create" | "deletecollection");
    if namespaced && info.namespace.is_empty() && needs {
        return Err(ApiError::BadRequest(
            "an empty namespace may not be set when a resource name is provided".into(),
        ));
    }
    Ok(())
}

/// The field manager: what the client names, or its user agent up to the first slash.
fn manager(context: &Context) -> String {
    let named = context.query.get("fieldManager");
    if !named.is_empty() {
        return named.to_owned();
    }
    let agent = context
        .headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let agent = agent
        .unwrap_or_default()
        .split('/')
        .next()
        .unwrap_or_default();
    match agent {
        "" => "unknown".into(),
        agent => agent.chars().take(128).collect(),
    }
}

fn dry_run(context: &Context) -> Result<bool, ApiError> {
    let mut dry_run = false;
    for value in context
        .query
        .all("dryRun")
        .filter(|value| !value.is_empty())
    {
        if value != "All" {
            return Err(ApiError::BadRequest(format!(
                "dryRun: Unsupported value: {value:?}: supported values: \"All\""
            )));
        }
        dry_run = true;
    }
    Ok(dry_run)
}

/// A JSON response.
pub(super) fn json(status: StatusCode, body: Body) -> Response {
    represented(status, Representation::Json, body)
}

fn represented(status: StatusCode, representation: Representation, body: Body) -> Response {
    let content_type = match representation {
        Representation::Json => "application/json",
        Representation::Yaml => "application/yaml",
        Representation::Table(_) => "application/json;as=Table;v=v1;g=meta.k8s.io",
        Representation::PartialMetadata(Encoding::Json) => {
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
        }
        Representation::Protobuf | Representation::PartialMetadata(Encoding::Protobuf) => {
            Encoding::Protobuf.media_type()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// Adds `Warning` headers, each text at most once.
fn warn<'a>(response: &mut Response, texts: impl Iterator<Item = &'a String>) {
    let mut seen = Vec::new();
    for text in texts {
        if seen.contains(&text) {
            continue;
        }
        seen.push(text);
        let quoted = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
