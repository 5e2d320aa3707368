//! Listing: selectors, pages over one snapshot, resourceVersion rules.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use windlass_api::field_selector::FieldSelector;
use windlass_api::label_selector::{LabelSelector, Labels};

use super::error::{ApiError, Target};
use super::field_error::FieldError;
use super::strategy::Kind;
use super::{Call, Registry};
use crate::store::{Entry, Freshness, Pairs, Revision, Snapshot, StoreError};

/// Which objects a list or a watch is about.
#[derive(Clone, Debug)]
pub struct Filter {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            labels: LabelSelector::everything(),
            fields: FieldSelector::default(),
        }
    }
}

impl Labels for Pairs {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl Filter {
    /// Parses the two query parameters.
    ///
    /// # Errors
    /// When one cannot be parsed, or a field is none the kind can be selected by.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let bad = |what: &str, why: String| {
            ApiError::BadRequest(format!("unable to parse {what} selector: {why}"))
        };
        let labels = LabelSelector::parse(labels)
            .map_err(|error| ApiError::BadRequest(error.to_string()))?;
        let fields = FieldSelector::parse(fields).map_err(|e| bad("field", e.to_string()))?;
        let fields = fields.try_rename(|field| {
            kind.selects(field).ok_or_else(|| {
                ApiError::BadRequest(if !kind.strategy.selectable_fields().is_empty() {
                    format!("field label not supported: {field}")
                } else {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                })
            })
        })?;
        Ok(Self { labels, fields })
    }

    /// Whether the filter lets the object through.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        self.labels.matches(&entry.labels) && self.fields.matches(|key| entry.fields.get(key))
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }
}

/// The query of a list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Which objects.
    pub filter: Filter,
    /// Objects per page; 0 for all.
    pub limit: usize,
    /// Where the page begins: the token of the page before.
    pub continue_token: String,
    /// `resourceVersion`, empty when not given.
    pub resource_version: String,
    /// `resourceVersionMatch`, empty when not given.
    pub resource_version_match: String,
}

/// A page of objects.
#[derive(Debug)]
pub struct Listing {
    /// The snapshot's revision.
    pub revision: Revision,
    /// The objects, in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The token of the next page, if there is one.
    pub continue_token: Option<String>,
    /// How many objects follow, if the filter lets everything through.
    pub remaining: Option<usize>,
}

/// What a continue token says. Clients must not look inside.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    /// Revision of the snapshot; 0 for "whatever is current".
    rv: u64,
    /// The last key of the page before.
    start: String,
}

impl Continue {
    /// The token.
    #[must_use]
    pub fn encode(&self) -> String {
        // Two plain fields always encode.
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a token that a client sent.
    ///
    /// # Errors
    /// When it is none of ours.
    pub fn decode(token: &str) -> Result<Self, ApiError> {
        let invalid =
            |reason: String| ApiError::BadRequest(format!("continue key is not valid: {reason}"));
        let bytes = BASE64
            .decode(token)
            .map_err(|error| invalid(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
    }
}

impl Registry {
    /// Objects of the call's kind and namespace.
    ///
    /// # Errors
    /// Bad parameters, or a snapshot that is gone.
    pub async fn list(&self, call: &Call<'_>, query: &ListQuery) -> Result<Listing, ApiError> {
        let (snapshot, start) = self.snapshot_for(query).await?;
        let range = call.range();
        let mut objects = snapshot.range(&range, start.as_deref());
        let mut entries = Vec::new();
        let mut more = false;
        for entry in objects.by_ref().filter(|entry| query.filter.matches(entry)) {
            if query.limit > 0 && entries.len() == query.limit {
                more = true;
                break;
            }
            entries.push(Arc::clone(entry));
        }
        let mut listing = Listing {
            revision: snapshot.revision(),
            entries,
            continue_token: None,
            remaining: None,
        };
        if more && let Some(last) = listing.entries.last() {
            let token = Continue {
                rv: snapshot.revision().0,
                start: last.key.as_str().into(),
            };
            listing.continue_token = Some(token.encode());
            listing.remaining = query.filter.is_empty().then(|| objects.count() + 1);
            self.store.keep(&snapshot);
        }
        Ok(listing)
    }

    async fn snapshot_for(
        &self,
        query: &ListQuery,
    ) -> Result<(Snapshot, Option<String>), ApiError> {
        if query.continue_token.is_empty() {
            let freshness = freshness(query)?;
            return Ok((self.snapshot(freshness, query).await?, None));
        }
        if !matches!(query.resource_version.as_str(), "" | "0") {
            let text = "specifying resource version is not allowed when using continue";
            return Err(ApiError::BadRequest(text.into()));
        }
        if !query.resource_version_match.is_empty() {
            return Err(match_forbidden(
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        let token = Continue::decode(&query.continue_token)?;
        if token.rv == 0 {
            return Ok((
                self.store.snapshot(Freshness::Latest).await?,
                Some(token.start),
            ));
        }
        match self.store.snapshot_at(Revision(token.rv)).await {
            Ok(snapshot) => Ok((snapshot, Some(token.start))),
            Err(StoreError::Compacted { .. }) => Err(expired_continue(token.start)),
            Err(other) => Err(other.into()),
        }
    }

    async fn snapshot(
        &self,
        freshness: Freshness,
        query: &ListQuery,
    ) -> Result<Snapshot, ApiError> {
        match (freshness, query.resource_version_match.as_str()) {
            (Freshness::AtLeast(revision), "Exact") => Ok(self.store.snapshot_at(revision).await?),
            (freshness, _) => Ok(self.store.snapshot(freshness).await?),
        }
    }
}

/// What `resourceVersion` and `resourceVersionMatch` ask for.
fn freshness(query: &ListQuery) -> Result<Freshness, ApiError> {
    match (
        query.resource_version.as_str(),
        query.resource_version_match.as_str(),
    ) {
        ("", "") => Ok(Freshness::Latest),
        ("", _) => Err(match_forbidden(
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (_, matching) if !MATCHES.contains(&matching) => Err(invalid_options(
            FieldError::not_supported("resourceVersionMatch", matching, &MATCHES),
        )),
        ("0", "Exact") => Err(match_forbidden(
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        ("0", _) => Ok(Freshness::Any),
        (version, _) => Ok(Freshness::AtLeast(parse_version(version)?)),
    }
}

const MATCHES: [&str; 3] = ["Exact", "NotOlderThan", ""];

fn match_forbidden(why: &str) -> ApiError {
    invalid_options(FieldError::forbidden("resourceVersionMatch", why))
}

/// The error of a list or watch whose options make no sense.
#[must_use]
pub fn invalid_options(error: FieldError) -> ApiError {
    let target = Target {
        group: "meta.k8s.io".into(),
        kind: "ListOptions".into(),
        ..Target::default()
    };
    ApiError::Invalid {
        target,
        errors: vec![error],
    }
}

/// A resourceVersion as a client sends it.
///
/// # Errors
/// When it is not a decimal number.
pub fn parse_version(version: &str) -> Result<Revision, ApiError> {
    let invalid = |_| {
        ApiError::BadRequest(format!(
            "Invalid value: {version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"
        ))
    };
    version.parse().map(Revision).map_err(invalid)
}

fn expired_continue(start: String) -> ApiError {
    ApiError::Expired {
        message: "The provided continue parameter is too old to display a consistent list result. \
                  You can start a new list without the continue parameter, or use the continue \
                  token in this response to retrieve the remainder of the results. Continuing with \
                  the provided token results in an inconsistent list - objects that were created, \
                  modified, or deleted between the time the first chunk was returned and now may \
                  show up in the list."
            .into(),
        continue_token: Some(Continue { rv: 0, start }.encode()),
    }
}
