//! GET of a stream of changes.
//!
//! 1. Where the client names no revision, every object there is comes first, as ADDED, from a snapshot;
//!    with `sendInitialEvents` a bookmark with the annotation `k8s.io/initial-events-end` ends them.
//! 2. Then the store's events from that revision on. An event becomes ADDED, MODIFIED or DELETED by
//!    whether the selectors let the object through before and after.
//! 3. Bookmarks, if the client wants them, about once a minute and before the stream ends by time.
//! 4. An event is a line of JSON, or a frame of protobuf. What its object is in protobuf is kept with the
//!    event, so that of many such watches the first one encodes; JSON is the stored bytes as they are.
//! 5. A client so slow that its place in history is compacted away gets an ERROR event with the 410
//!    that a new watch from there would get.
//!
//! Over a WebSocket every event is a text message, whatever subprotocol the client offers: upstream echoes
//! the name and sends the same JSON.
//!
//! Nothing is buffered per watch but the batch being written: the connection's back-pressure stops the
//! reading of history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use rand::RngExt;
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use windlass_api::schema::protobuf::envelope::watch_frame;
use windlass_api::stream::websocket::{self, Framing, send_all};

use super::{Request, list, represented};
use crate::registry::error::ApiError;
use crate::registry::field_error::FieldError;
use crate::registry::list::{Filter, invalid_options, parse_version};
use crate::registry::strategy::Kind;
use crate::server::connect::web_socket;
use crate::server::negotiation::{Encoding, Representation};
use crate::server::{codec, protobuf, status};
use crate::store::{Entry, Freshness, Revision, StoreError, Watch, WatchEvent};

const STREAMED_PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a limit of its own lasts this long, or up to twice as long.
const DEFAULT_LIMIT: Duration = Duration::from_secs(1800);
/// Objects of the initial state per frame.
const FRAME: usize = 256;

pub(super) async fn respond(request: &Request<'_>) -> Result<Response, ApiError> {
    let messages = websocket::is_requested(&request.context.headers);
    let representation = match request.representation()? {
        // A message is a line of JSON.
        wanted if messages && wanted.encoding() == Encoding::Protobuf => Representation::Json,
        wanted => wanted,
    };
    let stream = Stream::open(request, representation).await?;
    let frames = stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((frame, stream))
    });
    if messages {
        return as_messages(request, frames);
    }
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let mut response = represented(StatusCode::OK, representation, Body::from_stream(frames));
    if representation.encoding() == Encoding::Protobuf {
        let media_type = HeaderValue::from_static(STREAMED_PROTOBUF);
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    Ok(response)
}

/// The watch as messages of a WebSocket.
fn as_messages(
    request: &Request<'_>,
    frames: impl futures::Stream<Item = Bytes> + Send + 'static,
) -> Result<Response, ApiError> {
    let context = request.context;
    let protocol = websocket::offered(&context.headers).next();
    web_socket(context, protocol, async move |socket| {
        let events = frames.flat_map(|frame| stream::iter(events_of(&frame)));
        send_all(socket, events, Framing::Text).await;
    })
}

/// The events of a frame, each with its line's end.
fn events_of(frame: &Bytes) -> Vec<Bytes> {
    let lines = frame.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| frame.slice_ref(line)).collect()
}

struct Stream {
    kind: Kind,
    representation: Representation,
    filter: Filter,
    initial: VecDeque<Arc<Entry>>,
    /// The bookmark that ends the initial events is still owed.
    owes_end: bool,
    watch: Watch,
    bookmarks: Option<Interval>,
    end: Instant,
    first: bool,
    ended: bool,
}

impl Stream {
    async fn open(request: &Request<'_>, representation: Representation) -> Result<Self, ApiError> {
        let query = &request.context.query;
        let filter = list::filter(request)?;
        let call = request.call();
        let store = request.server.registry().store();
        let initial_events = wants_initial_events(request)?;
        let version = query.get("resourceVersion");
        let from = match version {
            "" | "0" => None,
            text => Some(parse_version(text)?),
        };
        let mut initial = VecDeque::new();
        let from = match from {
            Some(from) if !initial_events => from,
            _ => {
                let freshness = from.map_or(Freshness::Latest, Freshness::AtLeast);
                let snapshot = store.snapshot(freshness).await?;
                let range = call.range();
                // `sendInitialEvents=false` without a revision starts at the newest.
                if initial_events || query.get("sendInitialEvents").is_empty() {
                    let entries = snapshot.range(&range, None);
                    initial.extend(entries.filter(|entry| filter.matches(entry)).cloned());
                }
                snapshot.revision()
            }
        };
        let watch = store.watch(call.range(), from).await?;
        let every = query.flag("allowWatchBookmarks").then(|| {
            let mut every = interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        });
        Ok(Self {
            kind: request.served.kind.clone(),
            representation,
            filter,
            initial,
            owes_end: initial_events,
            watch,
            bookmarks: every,
            end: Instant::now() + limit(query.get("timeoutSeconds"))?,
            first: true,
            ended: false,
        })
    }

    /// The next frame; `None` at the end. Never empty.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.initial.is_empty() || self.owes_end {
            return Some(self.initial_frame());
        }
        loop {
            let frame = tokio::select! {
                () = sleep_until(self.end) => {
                    self.ended = true;
                    self.last_bookmark()
                }
                () = tick(self.bookmarks.as_mut()) => self.bookmark_frame(),
                events = self.watch.next() => self.events_frame(events),
            };
            if !frame.is_empty() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
        }
    }

    fn initial_frame(&mut self) -> Bytes {
        let mut frame = BytesMut::new();
        for _ in 0..FRAME {
            let Some(entry) = self.initial.pop_front() else {
                break;
            };
            self.write(&mut frame, "ADDED", &entry.bytes);
        }
        if self.initial.is_empty() && std::mem::take(&mut self.owes_end) {
            self.write_bookmark(&mut frame, self.watch.progress(), true);
        }
        frame.freeze()
    }

    fn events_frame(&mut self, events: Result<Vec<Arc<WatchEvent>>, StoreError>) -> Bytes {
        let mut frame = BytesMut::new();
        match events {
            Ok(events) => {
                for event in events {
                    self.write_event(&mut frame, &event);
                }
            }
            Err(error) => {
                self.ended = true;
                self.write_error(&mut frame, &error.into());
            }
        }
        frame.freeze()
    }

    /// What has happened so far, and a bookmark behind it.
    fn bookmark_frame(&mut self) -> Bytes {
        let events = self.watch.ready();
        let mut frame = BytesMut::from(self.events_frame(events));
        if !self.ended {
            self.write_bookmark(&mut frame, self.watch.progress(), false);
        }
        frame.freeze()
    }

    fn last_bookmark(&mut self) -> Bytes {
        if self.bookmarks.is_none() {
            return Bytes::new();
        }
        self.ended = false;
        let frame = self.bookmark_frame();
        self.ended = true;
        frame
    }

    fn write_event(&mut self, frame: &mut BytesMut, event: &WatchEvent) {
        let before = event
            .previous
            .as_ref()
            .is_some_and(|entry| self.filter.matches(entry));
        let after = !event.deleted && self.filter.matches(&event.entry);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        match (&event.previous, kind) {
            // Out of the selector's sight, the object is deleted as it was last seen.
            (Some(previous), "DELETED") if !event.deleted => {
                self.write(frame, kind, &previous.bytes_at(event.revision));
            }
            // The event keeps one encoding, that of the form in which the object is stored.
            _ if self.representation == Representation::Protobuf
                && self.kind.conversion.is_none() =>
            {
                let encode = || codec::object(&self.kind, self.representation, &event.entry.bytes);
                self.put_encoded(frame, kind, event.encoded(encode));
            }
            _ => self.write(frame, kind, &event.entry.bytes),
        }
    }

    fn write(&mut self, frame: &mut BytesMut, kind: &str, bytes: &Bytes) {
        let first = std::mem::take(&mut self.first);
        let object = codec::watched(&self.kind, self.representation, bytes, first);
        self.put_encoded(frame, kind, object);
    }

    fn put_encoded(&mut self, frame: &mut BytesMut, kind: &str, object: Result<Bytes, ApiError>) {
        match object {
            Ok(object) => self.put(frame, kind, &object),
            Err(error) => {
                self.ended = true;
                self.write_error(frame, &error);
            }
        }
    }

    fn write_error(&mut self, frame: &mut BytesMut, error: &ApiError) {
        let status = status::of(error);
        match codec::written(&status, self.representation.encoding()) {
            Ok(status) => self.put(frame, "ERROR", &status),
            // The stream ends here all the same; a client begins anew.
            Err(error) => tracing::warn!(%error, "a Status could not be encoded"),
        }
    }

    fn put(&self, frame: &mut BytesMut, kind: &str, object: &[u8]) {
        match self.representation.encoding() {
            Encoding::Json => put_line(frame, kind, object),
            Encoding::Protobuf => frame.put_slice(&watch_frame(kind, object)),
        }
    }

    fn write_bookmark(&mut self, frame: &mut BytesMut, revision: Revision, end_of_initial: bool) {
        let gvk = &self.kind.info.gvk;
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_initial && let Some(metadata) = metadata.as_object_mut() {
            metadata.insert(
                "annotations".into(),
                json!({"k8s.io/initial-events-end": "true"}),
            );
        }
        // Reflectors drop a bookmark of another kind than they expect.
        let object = match self.representation {
            Representation::Table(_) => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                }}],
            }),
            Representation::PartialMetadata(_) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            }),
            _ => json!({"kind": gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata}),
        };
        let object = match self.representation {
            Representation::PartialMetadata(Encoding::Protobuf) => protobuf::partial(&metadata),
            other => codec::written(&object, other.encoding()),
        };
        self.put_encoded(frame, "BOOKMARK", object);
    }
}

fn put_line(frame: &mut BytesMut, kind: &str, object: &[u8]) {
    frame.reserve(object.len() + 40);
    frame.put_slice(b"{\"type\":\"");
    frame.put_slice(kind.as_bytes());
    frame.put_slice(b"\",\"object\":");
    frame.put_slice(object);
    frame.put_slice(b"}\n");
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn limit(seconds: &str) -> Result<Duration, ApiError> {
    if seconds.is_empty() {
        let extra = rand::rng().random_range(0..DEFAULT_LIMIT.as_secs());
        return Ok(DEFAULT_LIMIT + Duration::from_secs(extra));
    }
    let invalid = |_| ApiError::BadRequest(format!("timeoutSeconds: {seconds:?} is not a number"));
    let seconds: u64 = seconds.parse().map_err(invalid)?;
    Ok(if seconds == 0 {
        DEFAULT_LIMIT
    } else {
        Duration::from_secs(seconds)
    })
}

fn wants_initial_events(request: &Request<'_>) -> Result<bool, ApiError> {
    let query = &request.context.query;
    let given = query.get("sendInitialEvents");
    let matching = query.get("resourceVersionMatch");
    let forbidden =
        |field: &str, why: &str| Err(invalid_options(FieldError::forbidden(field, why)));
    if given.is_empty() {
        if !matching.is_empty() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return forbidden("resourceVersionMatch", why);
        }
        return Ok(false);
    }
    if matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return forbidden("resourceVersionMatch", why);
    }
    Ok(query.flag("sendInitialEvents"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_into_its_events() {
        let mut frame = BytesMut::new();
        put_line(&mut frame, "ADDED", b"{}");
        put_line(&mut frame, "DELETED", b"{}");
        let events = events_of(&frame.freeze());
        let expected = [
            "{\"type\":\"ADDED\",\"object\":{}}\n",
            "{\"type\":\"DELETED\",\"object\":{}}\n",
        ];
        assert_eq!(events, expected);
    }
}
