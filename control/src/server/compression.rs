//! gzip for large answers, as upstream does it: from 128 KiB on, fast rather than small.
//!
//! The pieces of an answer are compressed on a blocking thread and handed over as they are ready, a few
//! at a time: a slow client holds up its own thread of compression and nothing else.

use std::io::Write;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::mpsc;

/// Smaller answers are not worth it.
const THRESHOLD: usize = 128 << 10;
/// Compressed bytes per piece handed over.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for the client.
const WAITING: usize = 4;

/// Whether the client takes gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |weight: &str| {
            let quality = weight
                .strip_prefix("q=")
                .and_then(|q| q.parse::<f32>().ok());
            quality == Some(0.0)
        };
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

/// Gives `response` a body of these pieces, compressed if they are large and the client takes that.
pub(super) fn fill(response: Response, headers: &HeaderMap, pieces: Vec<Bytes>) -> Response {
    let (mut parts, _) = response.into_parts();
    let size: usize = pieces.iter().map(Bytes::len).sum();
    if size >= THRESHOLD {
        let vary = HeaderValue::from_static("Accept-Encoding");
        parts.headers.append(header::VARY, vary);
    }
    if size < THRESHOLD || !accepts_gzip(headers) {
        parts.headers.insert(header::CONTENT_LENGTH, size.into());
        return Response::from_parts(parts, whole(pieces));
    }
    let gzip = HeaderValue::from_static("gzip");
    parts.headers.insert(header::CONTENT_ENCODING, gzip);
    Response::from_parts(parts, compressed(pieces))
}

fn whole(mut pieces: Vec<Bytes>) -> Body {
    if pieces.len() <= 1 {
        return pieces.pop().map(Body::from).unwrap_or_default();
    }
    Body::from_stream(stream::iter(
        pieces.into_iter().map(Ok::<_, std::convert::Infallible>),
    ))
}

fn compressed(pieces: Vec<Bytes>) -> Body {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let failed = sender.clone();
        if let Err(error) = compress(pieces, &sender) {
            // The client went away, or it is told by the cut that the answer is not whole.
            let _ = failed.blocking_send(Err(error));
        }
    });
    Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    }))
}

type Piece = Result<Bytes, std::io::Error>;

fn compress(pieces: Vec<Bytes>, sender: &mpsc::Sender<Piece>) -> std::io::Result<()> {
    let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let mut encoder = GzEncoder::new(Vec::with_capacity(PIECE * 2), Compression::fast());
    for piece in pieces {
        encoder.write_all(&piece)?;
        if encoder.get_ref().len() >= PIECE {
            let ready = std::mem::replace(encoder.get_mut(), Vec::with_capacity(PIECE * 2));
            sender.blocking_send(Ok(ready.into())).map_err(gone)?;
        }
    }
    let last = encoder.finish()?;
    sender.blocking_send(Ok(last.into())).map_err(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Read;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept.parse().unwrap())])
    }

    #[test]
    fn a_weight_of_nothing_is_a_refusal() {
        assert!(accepts_gzip(&headers("br, gzip;q=0.5")));
        assert!(!accepts_gzip(&headers("gzip;q=0, br")));
        assert!(!accepts_gzip(&headers("identity")));
    }

    #[tokio::test]
    async fn large_answers_are_compressed_and_whole() {
        let pieces: Vec<_> = (0..3000)
            .map(|at| {
                Bytes::from(format!("piece {at} of the answer, and some more text\n").repeat(9))
            })
            .collect();
        let filled = fill(Response::default(), &headers("gzip"), pieces.clone());
        assert_eq!(filled.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = filled.into_body().collect().await.unwrap().to_bytes();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&*bytes)
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(text, pieces.concat());
        assert!(bytes.len() < text.len() / 4);
    }

    #[tokio::test]
    async fn small_answers_are_left_alone() {
        let filled = fill(
            Response::default(),
            &headers("gzip"),
            vec![Bytes::from("small")],
        );
        assert!(filled.headers().get(header::CONTENT_ENCODING).is_none());
        let bytes = filled.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "small");
    }
}
