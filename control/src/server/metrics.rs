//! `/metrics`: what the API server does, in Prometheus' text format, under upstream's names.
//!
//! Requests are counted as they end, by verb, resource and status; label values come from the table of
//! kinds, never from the client, so that no request can grow the set of series. What can be read at any
//! time (objects stored, memory) is read when somebody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::limits::Class;
use super::request_info::RequestInfo;
use crate::registry::error::ApiError;
use crate::registry::{Registry as Objects, Served};
use crate::store::{KeyRange, Snapshot};

/// Upstream's buckets, in seconds, thinned out.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
];
const REQUEST: &[&str] = &[
    "verb",
    "group",
    "version",
    "resource",
    "subresource",
    "scope",
];

/// The server's own metrics.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGaugeVec,
    lasting: IntGaugeVec,
    objects: IntGaugeVec,
    process: IntGaugeVec,
    started: i64,
}

/// A request that is being answered.
pub(super) struct Running {
    metrics: Arc<Metrics>,
    labels: [String; 6],
    lasts: bool,
    class: Class,
    since: Instant,
}

impl Metrics {
    /// # Errors
    /// Never: the names are constants, and a test makes them.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let with_code: Vec<_> = REQUEST.iter().copied().chain(["code"]).collect();
        let requests = IntCounterVec::new(
            Opts::new(
                "apiserver_request_total",
                "Requests answered, by verb, resource and HTTP status.",
            ),
            &with_code,
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_duration_seconds",
                "How long requests took that do not last by nature.",
            )
            .buckets(BUCKETS.to_vec()),
            REQUEST,
        )?;
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        let in_flight = gauge(
            "apiserver_current_inflight_requests",
            "Requests being answered now, those that last by nature not counted.",
            &["request_kind"],
        )?;
        let lasting = gauge(
            "apiserver_longrunning_requests",
            "Watches and streams open now.",
            REQUEST,
        )?;
        let objects = gauge(
            "apiserver_storage_objects",
            "Objects stored, by resource.",
            &["resource"],
        )?;
        let process = gauge("process_resident_memory_bytes", "Memory in use.", &[])?;
        let all: [Box<dyn Collector>; 6] = [
            Box::new(requests.clone()),
            Box::new(durations.clone()),
            Box::new(in_flight.clone()),
            Box::new(lasting.clone()),
            Box::new(objects.clone()),
            Box::new(process.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        Ok(Self {
            registry,
            requests,
            durations,
            in_flight,
            lasting,
            objects,
            process,
            started: jiff::Timestamp::now().as_second(),
        })
    }

    /// Counts a request in; [`Running::ended`] counts it out.
    pub(super) fn begin(
        self: &Arc<Self>,
        info: &RequestInfo,
        served: Option<&Served>,
        lasts: bool,
    ) -> Running {
        let class = Class::of(info.verb);
        let running = Running {
            metrics: Arc::clone(self),
            labels: labels(info, served),
            lasts,
            class,
            since: Instant::now(),
        };
        running.count(1);
        running
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// When it cannot be written, which memory alone could bring about.
    pub(super) fn text(&self, kinds: &Objects, snapshot: &Snapshot) -> Result<String, ApiError> {
        for served in kinds.served().iter().filter(|served| served.is_stored()) {
            let info = &served.kind.info;
            let range = KeyRange::resource(&info.gvk.group, &info.plural);
            let count = i64::try_from(snapshot.range(&range, None).count()).unwrap_or(i64::MAX);
            let name = match &*info.gvk.group {
                "" => info.plural.to_string(),
                group => format!("{}.{group}", info.plural),
            };
            self.objects.with_label_values(&[&name]).set(count);
        }
        if let Some(bytes) = resident_memory() {
            self.process.with_label_values::<&str>(&[]).set(bytes);
        }
        let internal =
            |error: &dyn std::fmt::Display| ApiError::Internal(format!("encode metrics: {error}"));
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|error| internal(&error))?;
        let mut text = String::from_utf8(text).map_err(|error| internal(&error))?;
        text.push_str(&format!(
            "# HELP process_start_time_seconds Start of the process.\n\
             # TYPE process_start_time_seconds gauge\n\
             process_start_time_seconds {}\n",
            self.started
        ));
        Ok(text)
    }
}

impl Running {
    fn count(&self, by: i64) {
        if self.lasts {
            self.metrics.lasting.with_label_values(&self.labels).add(by);
            return;
        }
        let kind = match self.class {
            Class::Read => "readOnly",
            Class::Write => "mutating",
        };
        self.metrics.in_flight.with_label_values(&[kind]).add(by);
    }

    /// The request was answered; what lasts by nature goes on until the answer's body ends.
    pub(super) fn answered(self, response: Response) -> Response {
        let status = response.status();
        let code = status.as_str();
        let labels: Vec<&str> = self
            .labels
            .iter()
            .map(String::as_str)
            .chain([code])
            .collect();
        self.metrics.requests.with_label_values(&labels).inc();
        if self.lasts {
            return response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_the_end = &self;
                    frame
                }))
            });
        }
        let seconds = Duration::as_secs_f64(&self.since.elapsed());
        self.metrics
            .durations
            .with_label_values(&self.labels)
            .observe(seconds);
        response
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.count(-1);
    }
}

/// What a request is counted under. What the server does not serve counts under no name at all.
fn labels(info: &RequestInfo, served: Option<&Served>) -> [String; 6] {
    let verb = match info.verb {
        "" => "OTHER".into(),
        verb => verb.to_uppercase(),
    };
    let Some(served) = served else {
        return [
            verb,
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ];
    };
    let kind = &served.kind.info;
    let subresource = kind
        .subresources
        .iter()
        .find(|subresource| subresource.name == info.subresource);
    let scope = match (&*info.name, &*info.namespace) {
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    };
    [
        verb,
        kind.gvk.group.to_string(),
        kind.gvk.version.to_string(),
        kind.plural.to_string(),
        subresource
            .map(|subresource| subresource.name.to_string())
            .unwrap_or_default(),
        scope.to_owned(),
    ]
}

/// Resident memory of this process in bytes, where the system tells.
fn resident_memory() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::Query;
    use http::{Method, StatusCode, Uri};

    fn info(uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::of(&Method::GET, &uri, &Query::of(&uri))
    }

    fn answer(status: StatusCode) -> Response {
        let mut response = Response::default();
        *response.status_mut() = status;
        response
    }

    #[test]
    fn what_is_not_served_grows_no_series() {
        let metrics = Arc::new(Metrics::new().unwrap());
        for path in ["/api/v1/aaaa", "/apis/b/v1/c", "/api/v1/d/e/f"] {
            let running = metrics.begin(&info(path), None, false);
            running.answered(answer(StatusCode::NOT_FOUND));
        }
        assert_eq!(metrics.requests.collect()[0].get_metric().len(), 2);
    }

    #[test]
    fn what_has_ended_is_no_longer_in_flight() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let running = metrics.begin(&info("/version"), None, false);
        let reads = metrics.in_flight.with_label_values(&["readOnly"]);
        assert_eq!(reads.get(), 1);
        running.answered(answer(StatusCode::OK));
        assert_eq!(reads.get(), 0);
    }

    #[test]
    fn a_watch_is_open_until_its_body_ends() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let info = info("/api/v1/pods?watch=1");
        let running = metrics.begin(&info, None, true);
        let open = || {
            let family = metrics.lasting.collect();
            family[0].get_metric()[0].get_gauge().get_value()
        };
        let response = running.answered(answer(StatusCode::OK));
        assert!(open() > 0.5);
        drop(response);
        assert!(open() < 0.5);
    }
}
