//! Which representation a client is sent, and in which one it sends.

use http::{HeaderMap, header};

use super::request_info::Query;
use crate::registry::error::ApiError;

/// How an object or a list is represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// The object itself, as JSON.
    Json,
    /// The object itself, as YAML.
    Yaml,
    /// Rows for printing.
    Table(IncludeObject),
    /// Metadata only.
    PartialMetadata,
}

/// What a table's rows carry of their objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Metadata.
    Metadata,
    /// All.
    Object,
}

/// Formats of request bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON, also when the client does not say.
    Json,
    /// YAML.
    Yaml,
}

/// What the server reads and writes, as errors list it.
pub(super) const ACCEPTED: &str = "application/json, application/yaml";

/// One entry of an Accept header.
struct MediaRange<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        Self {
            kind,
            parameters: parts.filter_map(|part| part.split_once('=')).collect(),
        }
    }

    fn parameter(&self, name: &str) -> &'a str {
        let found = self.parameters.iter().find(|(key, _)| *key == name);
        found
            .map(|(_, value)| value.trim_matches('"'))
            .unwrap_or_default()
    }

    fn quality(&self) -> f32 {
        self.parameter("q").parse().unwrap_or(1.0)
    }
}

/// The ranges of an Accept header, best first.
fn accepted(headers: &HeaderMap) -> Vec<MediaRange<'_>> {
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut ranges: Vec<_> = values
        .flat_map(|value| value.split(','))
        .map(MediaRange::parse)
        .filter(|range| !range.kind.is_empty())
        .collect();
    ranges.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    ranges
}

/// The representation to answer with.
///
/// # Errors
/// [`ApiError::NotAcceptable`] when the client accepts none there is.
pub fn representation(headers: &HeaderMap, query: &Query) -> Result<Representation, ApiError> {
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return Ok(Representation::Json);
    }
    let found = ranges.iter().find_map(|range| match range.kind {
        "application/json" => json(range, query),
        "application/yaml" if range.parameter("as").is_empty() => Some(Representation::Yaml),
        "*/*" | "application/*" => Some(Representation::Json),
        _ => None,
    });
    found.ok_or_else(|| ApiError::NotAcceptable(ACCEPTED.into()))
}

fn json(range: &MediaRange<'_>, query: &Query) -> Option<Representation> {
    let meta = range.parameter("g") == "meta.k8s.io";
    let known_version = matches!(range.parameter("v"), "v1" | "v1beta1");
    match range.parameter("as") {
        "" => Some(Representation::Json),
        "Table" if meta && known_version => Some(Representation::Table(include_object(query))),
        "PartialObjectMetadata" | "PartialObjectMetadataList" if meta && known_version => {
            Some(Representation::PartialMetadata)
        }
        _ => None,
    }
}

fn include_object(query: &Query) -> IncludeObject {
    match query.get("includeObject") {
        "None" => IncludeObject::None,
        "Object" => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    }
}

/// The first of `known` (a version of aggregated discovery) that the client prefers to plain JSON.
#[must_use]
pub fn discovery_version(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    for range in accepted(headers) {
        if range.kind != "application/json" {
            continue;
        }
        let aggregated = range.parameter("as") == "APIGroupDiscoveryList"
            && range.parameter("g") == "apidiscovery.k8s.io";
        if !aggregated {
            return None;
        }
        if let Some(version) = known
            .iter()
            .find(|version| **version == range.parameter("v"))
        {
            return Some(version);
        }
    }
    None
}

/// The format of a request's body.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`], by name for protobuf and CBOR.
pub fn body_format(headers: &HeaderMap) -> Result<BodyFormat, ApiError> {
    match content_type(headers) {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        // Clients that send protobuf on every typed write are told what would help them.
        "application/vnd.kubernetes.protobuf" => Err(ApiError::UnsupportedMediaType(format!(
            "{ACCEPTED} (application/vnd.kubernetes.protobuf is not supported yet: configure the client to send JSON)"
        ))),
        _ => Err(ApiError::UnsupportedMediaType(ACCEPTED.into())),
    }
}

/// The media type of a request's body without parameters, empty when absent.
#[must_use]
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn the_first_representation_there_is_wins() {
        let table = Representation::Table(IncludeObject::Metadata);
        let cases = [
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                table,
            ),
            ("application/json", Representation::Json),
            ("*/*", Representation::Json),
            (
                "application/vnd.kubernetes.protobuf, */*",
                Representation::Json,
            ),
            (
                "application/json;q=0.1,application/yaml",
                Representation::Yaml,
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
                Representation::PartialMetadata,
            ),
            (
                "application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json",
                Representation::Json,
            ),
        ];
        for (accept, expected) in cases {
            let found = representation(&headers(accept), &Query::default());
            assert_eq!(found.unwrap(), expected, "{accept}");
        }
        let none = representation(&headers("text/html"), &Query::default());
        assert!(matches!(none, Err(ApiError::NotAcceptable(_))));
    }

    #[test]
    fn aggregated_discovery_is_answered_in_the_version_asked_for() {
        const V: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(
            discovery_version(&headers(V), &["v2", "v2beta1"]),
            Some("v2beta1")
        );
        assert_eq!(
            discovery_version(&headers("application/json"), &["v2"]),
            None
        );
        assert_eq!(discovery_version(&headers("*/*"), &["v2"]), None);
    }
}
