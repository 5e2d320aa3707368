//! Kinds whose objects are answers: computed on request, never stored. The table [`COMPUTED`].
//!
//! A review is created and comes back with its status filled in; a list is made of what is true now.
//! Everything around it (decoding, negotiation, discovery) is the same as for stored kinds.

mod access_review;
mod binding;
mod component_status;
mod metrics;
mod node_info;
mod nodes;
mod self_subject_review;
mod token_review;

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::subresource::not_allowed;
use super::{Request, body, list, represented, warn};
use crate::registry::error::ApiError;
use crate::registry::list::Listing;
use crate::registry::object_meta as meta;
use crate::server::codec;
use crate::store::{Entry, Freshness, Pairs, Record, Revision};

/// A kind that is computed.
#[async_trait]
pub(super) trait Computed: Sync {
    /// Group and plural of the resource.
    fn resource(&self) -> (&'static str, &'static str);

    /// Answers a POST: the object with what was found out. `object` is decoded and checked.
    async fn create(&self, request: &Request<'_>, _object: Value) -> Result<Value, ApiError> {
        Err(not_allowed(request))
    }

    /// Every object there is.
    async fn list(&self, request: &Request<'_>) -> Result<Vec<Value>, ApiError> {
        Err(not_allowed(request))
    }

    /// The object that the request names.
    async fn get(&self, request: &Request<'_>) -> Result<Value, ApiError> {
        let all = self.list(request).await?;
        let name = &request.context.info.name;
        let found = all.into_iter().find(|object| meta::name(object) == *name);
        found.ok_or_else(|| ApiError::NotFound(request.target()))
    }

    /// What the client is told with every answer.
    fn warning(&self) -> Option<String> {
        None
    }
}

const COMPUTED: &[&dyn Computed] = &[
    &binding::Bindings,
    &component_status::ComponentStatuses,
    &metrics::NodesMetrics,
    &metrics::PodsMetrics,
    &node_info::COMPONENTS,
    &node_info::FLOWS,
    &self_subject_review::SelfSubjectReviews,
    &token_review::TokenReviews,
    &access_review::SubjectAccessReviews,
    &access_review::SelfSubjectAccessReviews,
    &access_review::LocalSubjectAccessReviews,
    &access_review::SelfSubjectRulesReviews,
];

/// Answers a request on a computed kind.
pub(super) async fn respond(request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
    let info = &request.context.info;
    let computed = COMPUTED
        .iter()
        .find(|kind| kind.resource() == (&*info.group, &*info.resource))
        .ok_or(ApiError::NoSuchPath)?;
    let mut response = match info.verb {
        "create" => {
            let checked = body::object(request, body).await?;
            let answer = computed.create(request, checked.object).await?;
            let mut response = request.answer(StatusCode::CREATED, &answer)?;
            warn(&mut response, checked.warnings.iter());
            response
        }
        "list" => listed(request, computed.list(request).await?).await?,
        "get" => {
            let found = computed.get(request).await?;
            request.object(StatusCode::OK, &found.to_string().into())?
        }
        _ => return Err(not_allowed(request)),
    };
    warn(&mut response, computed.warning().iter());
    Ok(response)
}

async fn listed(request: &Request<'_>, objects: Vec<Value>) -> Result<Response, ApiError> {
    let filter = list::filter(request)?;
    let store = request.server.registry().store();
    let revision = store.snapshot(Freshness::Latest).await?.revision();
    let entries = objects
        .iter()
        .map(|object| entry(request, object, revision));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.retain(|entry| filter.matches(entry));
    let listing = Listing {
        revision,
        entries,
        continue_token: None,
        remaining: None,
    };
    let representation = request.representation()?;
    let chunks = codec::list(&request.served.kind, representation, &listing)?;
    Ok(represented(
        StatusCode::OK,
        representation,
        Body::from(chunks.concat()),
    ))
}

/// A computed object in the form in which stored ones are listed.
fn entry(
    request: &Request<'_>,
    object: &Value,
    revision: Revision,
) -> Result<Arc<Entry>, ApiError> {
    let internal = |error: String| ApiError::Internal(error);
    let fields: Pairs = [("metadata.name", meta::name(object).to_owned())]
        .into_iter()
        .collect();
    let record = Record::encode(object, fields).map_err(|error| internal(error.to_string()))?;
    let key = request.call().key_of(meta::name(object));
    Ok(Arc::new(Entry::computed(key, revision, record)))
}
