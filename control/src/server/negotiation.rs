//! Which representation a client is sent, and in which one it sends.

use http::{HeaderMap, header};
use windlass_api::schema::protobuf::envelope::MEDIA_TYPE as PROTOBUF;

use super::request_info::Query;
use crate::registry::error::ApiError;

/// How an object or a list is represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// The object itself, as JSON.
    Json,
    /// The object itself, as YAML.
    Yaml,
    /// The object itself, in protobuf.
    Protobuf,
    /// Rows for printing, as JSON.
    Table(IncludeObject),
    /// Metadata only.
    PartialMetadata(Encoding),
}

impl Representation {
    /// How its bytes are written where YAML is none of the choices.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Protobuf | Self::PartialMetadata(Encoding::Protobuf) => Encoding::Protobuf,
            _ => Encoding::Json,
        }
    }
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// Protobuf in Kubernetes' envelope.
    Protobuf,
}

impl Encoding {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => PROTOBUF,
        }
    }
}

/// What can be answered to a request.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Whether the kind has a protobuf form; its metadata always has one.
    pub protobuf: bool,
    /// Whether the kind has rows to print.
    pub table: bool,
    /// Whether the answer is a watch.
    pub stream: bool,
}

impl Offer {
    /// The media types there are, as a 406 names them.
    fn accepted(self) -> String {
        // YAML documents can't be told apart in a stream.
        let types = [
            ("application/json", true),
            ("application/yaml", !self.stream),
            (PROTOBUF, self.protobuf),
        ];
        let types = types.into_iter().filter(|(_, offered)| *offered);
        let parameter = if self.stream { ";stream=watch" } else { "" };
        let types: Vec<_> = types
            .map(|(name, _)| format!("{name}{parameter}"))
            .collect();
        types.join(", ")
    }
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
    /// Protobuf in Kubernetes' envelope.
    Protobuf,
}

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

    /// Whether it names no type at all, or only half of one: such ranges come after the others.
    fn is_wild(&self) -> bool {
        self.kind.ends_with("/*")
    }

    /// Whether this media type is what it asks for, or one of them.
    fn covers(&self, media_type: &str) -> bool {
        match self.kind.strip_suffix('*') {
            Some("*/") => true,
            Some(half) => media_type.starts_with(half),
            None => self.kind == media_type,
        }
    }

    /// Whether it asks for something else than the object itself.
    fn is_transformed(&self) -> bool {
        !self.parameter("as").is_empty()
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
    ranges.sort_by(|a, b| {
        let by_quality = b.quality().total_cmp(&a.quality());
        by_quality.then(a.is_wild().cmp(&b.is_wild()))
    });
    ranges
}

/// The representation to answer with.
///
/// # Errors
/// [`ApiError::NotAcceptable`] when the client accepts none there is.
pub fn representation(
    headers: &HeaderMap,
    query: &Query,
    offer: Offer,
) -> Result<Representation, ApiError> {
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return Ok(Representation::Json);
    }
    let found = ranges.iter().find_map(|range| offered(range, query, offer));
    found.ok_or_else(|| ApiError::NotAcceptable(offer.accepted()))
}

/// What a range asks for, if it can be had.
fn offered(range: &MediaRange<'_>, query: &Query, offer: Offer) -> Option<Representation> {
    let streams = match range.parameter("stream") {
        "" => true,
        "watch" => offer.stream,
        _ => false,
    };
    match range.kind {
        _ if !streams => None,
        "application/json" if range.is_transformed() => {
            transformed(range, query, offer, Encoding::Json)
        }
        PROTOBUF if range.is_transformed() => transformed(range, query, offer, Encoding::Protobuf),
        "application/json" | "*/*" | "application/*" => Some(Representation::Json),
        PROTOBUF if offer.protobuf => Some(Representation::Protobuf),
        "application/yaml" if !offer.stream && !range.is_transformed() => {
            Some(Representation::Yaml)
        }
        _ => None,
    }
}

fn transformed(
    range: &MediaRange<'_>,
    query: &Query,
    offer: Offer,
    encoding: Encoding,
) -> Option<Representation> {
    let meta = range.parameter("g") == "meta.k8s.io";
    if !meta || !matches!(range.parameter("v"), "v1" | "v1beta1") {
        return None;
    }
    match (range.parameter("as"), encoding) {
        ("Table", Encoding::Json) if offer.table => {
            Some(Representation::Table(include_object(query)))
        }
        // Differs from Kubernetes: a Table is JSON only. It holds JSON in any case.
        ("PartialObjectMetadata" | "PartialObjectMetadataList", _) => {
            Some(Representation::PartialMetadata(encoding))
        }
        _ => None,
    }
}

/// How a Status is written for a client that may accept none of what there is.
#[must_use]
pub fn status_encoding(headers: &HeaderMap) -> Encoding {
    let ranges = accepted(headers);
    let known = ranges.iter().filter(|range| !range.is_transformed());
    let first = known
        .map(|range| range.kind)
        .find(|kind| [PROTOBUF, "application/json", "*/*", "application/*"].contains(kind));
    match first {
        Some(PROTOBUF) => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}

fn include_object(query: &Query) -> IncludeObject {
    match query.get("includeObject") {
        "None" => IncludeObject::None,
        "Object" => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    }
}

/// The first of the media types that the client accepts, its own order before ours.
///
/// # Errors
/// [`ApiError::NotAcceptable`] when the client accepts none of them.
pub fn choose(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, ApiError> {
    let ranges = accepted(headers);
    let any = MediaRange::parse("*/*");
    let ranges = if ranges.is_empty() { vec![any] } else { ranges };
    let found = ranges
        .iter()
        .find_map(|range| offered.iter().find(|offered| range.covers(offered)));
    found
        .copied()
        .ok_or_else(|| ApiError::NotAcceptable(offered.join(", ")))
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

/// The format of a request's body; `protobuf` says whether what is expected has that form.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`].
pub fn body_format(headers: &HeaderMap, protobuf: bool) -> Result<BodyFormat, ApiError> {
    match content_type(headers) {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        PROTOBUF if protobuf => Ok(BodyFormat::Protobuf),
        _ => {
            let offer = Offer {
                protobuf,
                table: false,
                stream: false,
            };
            Err(ApiError::UnsupportedMediaType(offer.accepted()))
        }
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

    const OBJECTS: Offer = Offer {
        protobuf: true,
        table: true,
        stream: false,
    };
    const WATCH: Offer = Offer {
        stream: true,
        ..OBJECTS
    };
    const CUSTOM: Offer = Offer {
        protobuf: false,
        ..OBJECTS
    };

    fn choose(accept: &str, offer: Offer) -> Result<Representation, ApiError> {
        representation(&headers(accept), &Query::default(), offer)
    }

    #[test]
    fn the_first_representation_there_is_wins() {
        let table = Representation::Table(IncludeObject::Metadata);
        let metadata = Representation::PartialMetadata;
        let cases = [
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                table,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Representation::Json,
            ),
            ("application/json", Representation::Json),
            ("*/*", Representation::Json),
            (
                "application/vnd.kubernetes.protobuf, */*",
                Representation::Protobuf,
            ),
            (
                "*/*,application/vnd.kubernetes.protobuf",
                Representation::Protobuf,
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Representation::Protobuf,
            ),
            (
                "application/vnd.kubernetes.protobuf;q=0.5,application/json",
                Representation::Json,
            ),
            (
                "application/vnd.kubernetes.protobuf;stream=watch,application/json",
                Representation::Json,
            ),
            (
                "application/json;q=0.1,application/yaml",
                Representation::Yaml,
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
                metadata(Encoding::Json),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                metadata(Encoding::Protobuf),
            ),
            (
                "application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json",
                Representation::Json,
            ),
        ];
        for (accept, expected) in cases {
            assert_eq!(choose(accept, OBJECTS).unwrap(), expected, "{accept}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_406_and_says_what_can() {
        let protobuf = "application/vnd.kubernetes.protobuf";
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        let cases = [
            (
                "text/html",
                OBJECTS,
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
            (
                table,
                OBJECTS,
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
            (
                "application/yaml",
                WATCH,
                "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ),
            (protobuf, CUSTOM, "application/json, application/yaml"),
            (
                "application/cbor",
                CUSTOM,
                "application/json, application/yaml",
            ),
        ];
        for (accept, offer, types) in cases {
            let error = choose(accept, offer).unwrap_err().to_string();
            let expected = format!("only the following media types are accepted: {types}");
            assert_eq!(error, expected, "{accept}");
        }
        assert_eq!(
            choose(&format!("{protobuf},application/json"), CUSTOM).unwrap(),
            Representation::Json
        );
        let watch = format!("{protobuf};stream=watch");
        assert_eq!(choose(&watch, WATCH).unwrap(), Representation::Protobuf);
    }

    #[test]
    fn a_status_is_written_as_the_client_reads_objects() {
        let cases = [
            (
                "application/vnd.kubernetes.protobuf, */*",
                Encoding::Protobuf,
            ),
            (
                "application/json, application/vnd.kubernetes.protobuf",
                Encoding::Json,
            ),
            (
                "text/html, application/vnd.kubernetes.protobuf",
                Encoding::Protobuf,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Encoding::Json,
            ),
            ("text/html", Encoding::Json),
        ];
        for (accept, expected) in cases {
            assert_eq!(status_encoding(&headers(accept)), expected, "{accept}");
        }
    }

    #[test]
    fn a_body_in_an_unknown_format_is_415() {
        let format = |kind: &str, protobuf| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            body_format(&headers, protobuf).map_err(|error| error.to_string())
        };
        let protobuf = "application/vnd.kubernetes.protobuf";
        assert_eq!(format(protobuf, true), Ok(BodyFormat::Protobuf));
        assert_eq!(
            body_format(&HeaderMap::new(), true).unwrap(),
            BodyFormat::Json
        );
        let refused = "the body of the request was in an unknown format - accepted media types include: \
                       application/json, application/yaml";
        assert_eq!(format(protobuf, false), Err(refused.to_owned()));
        assert_eq!(
            format("application/cbor", true),
            Err(format!("{refused}, {protobuf}"))
        );
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
