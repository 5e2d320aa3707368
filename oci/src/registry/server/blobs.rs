//! Blobs: read whole or in part, mounted from another repository, deleted, uploaded at once or in pieces.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::action::query_value;
use super::error::RegistryError;
use super::sessions::Turn;
use super::{
    Access, BODY_SILENCE, Link, Registry, UPLOAD_HEADER, content_headers, created, header_text,
    header_value, leaf,
};
use crate::content_store::BlobWriter;
use crate::digest::{Algorithm, Digest};
use crate::manifest::Descriptor;

const READ: usize = 256 << 10;

pub(super) fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|_| RegistryError::DigestInvalid)
}

impl Registry {
    pub(super) async fn blob(
        &self,
        repository: &str,
        digest: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, RegistryError> {
        let digest = parse_digest(digest)?;
        let found = self.link(repository, Link::Blob, &digest).await?;
        let descriptor = found.ok_or_else(|| RegistryError::BlobUnknown(digest.clone()))?;
        match *method {
            Method::HEAD => {
                self.keep_alive(repository, &descriptor).await?;
                let headers = content_headers(&descriptor)?;
                Ok((headers, [(header::ACCEPT_RANGES, "bytes")]).into_response())
            }
            Method::GET => self.read_blob(&descriptor, headers).await,
            Method::DELETE => self.delete_blob(repository, digest).await,
            _ => Err(RegistryError::Unsupported),
        }
    }

    async fn read_blob(
        &self,
        descriptor: &Descriptor,
        headers: &HeaderMap,
    ) -> Result<Response, RegistryError> {
        let size = descriptor.size;
        let range = header_text(headers, &header::RANGE);
        let range = match range.as_deref().map(|text| range_of(text, size)) {
            Some(Range::Part(start, end)) => Some((start, end)),
            Some(Range::Outside) => return Err(RegistryError::RangeInvalid(size)),
            Some(Range::All) | None => None,
        };
        let (start, end) = range.unwrap_or((0, size));
        let failed = |source| {
            RegistryError::from(crate::content_store::ContentError::Io {
                context: format!("read {}", descriptor.digest),
                source,
            })
        };
        let mut file = self.store.open_blob(&descriptor.digest).await?;
        if start > 0 {
            file.seek(std::io::SeekFrom::Start(start))
                .await
                .map_err(failed)?;
        }
        let body = Body::from_stream(ReaderStream::with_capacity(file.take(end - start), READ));
        let mut response = (content_headers(descriptor)?, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if range.is_some() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
            let text = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
            headers.insert(header::CONTENT_RANGE, header_value(&text)?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(response)
    }

    /// A blob goes out of the repository unless a manifest needs it, so that no tag points at what can't be pulled.
    async fn delete_blob(&self, repository: &str, blob: Digest) -> Result<Response, RegistryError> {
        let _alone = self.gate.write().await;
        let needed = self.needed_blobs(repository).await?;
        if let Some(manifest) = needed.get(&blob).cloned() {
            return Err(RegistryError::BlobInUse { blob, manifest });
        }
        let name = Link::Blob.name(repository);
        self.store.remove_ref(&name, &leaf(&blob)).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    pub(super) async fn begin_upload(
        &self,
        repository: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let query = request.uri().query();
        let mount = query_value(query, "mount");
        if let (Some(digest), Some(from)) = (&mount, query_value(query, "from"))
            && let Some(mounted) = self
                .mount(repository, digest, &from, request.extensions())
                .await?
        {
            return Ok(mounted);
        }
        let digest = query_value(query, "digest");
        let algorithm = match &digest {
            Some(text) => parse_digest(text)?.algorithm(),
            // A session begun without a digest is hashed as sha256, unless it says so.
            None => algorithm_of(query_value(query, "digest-algorithm").as_deref())?,
        };
        let mut writer = self.store.writer(algorithm, self.limits.blob).await?;
        match digest {
            Some(digest) => {
                receive(&mut writer, request.into_body()).await?;
                self.finish(repository, writer, &digest).await
            }
            None => {
                let id = self.sessions.begin(repository, writer)?;
                session_response(repository, &id, 0, StatusCode::ACCEPTED)
            }
        }
    }

    /// Takes a blob over from a repository that the caller may pull from; `None` where there is nothing to take over,
    /// upon which the specification wants an ordinary upload to begin.
    async fn mount(
        &self,
        repository: &str,
        digest: &str,
        from: &str,
        extensions: &http::Extensions,
    ) -> Result<Option<Response>, RegistryError> {
        let digest = parse_digest(digest)?;
        if super::check_repository(from).is_err() {
            return Ok(None);
        }
        let allowed = self.authorize.authorize(extensions, from, Access::Pull);
        if allowed.await.is_err() {
            return Ok(None);
        }
        let _lease = self.store.lease([digest.clone()]);
        let _shared = self.gate.read().await;
        let Some(found) = self.link(from, Link::Blob, &digest).await? else {
            return Ok(None);
        };
        self.set_link(repository, Link::Blob, &found).await?;
        let location = format!("/v2/{repository}/blobs/{digest}");
        created(&location, &digest).map(Some)
    }

    pub(super) async fn upload(
        &self,
        repository: &str,
        id: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let mut turn = self.sessions.take(repository, id)?;
        // A request that broke off may have left the file ahead of what was counted.
        turn.writer()?.settle().await?;
        let length = turn.writer()?.len();
        match *request.method() {
            Method::GET => session_response(repository, id, length, StatusCode::NO_CONTENT),
            Method::DELETE => {
                drop(turn.end()?);
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            Method::PATCH | Method::PUT if !starts_at(request.headers(), length) => {
                session_response(repository, id, length, StatusCode::RANGE_NOT_SATISFIABLE)
            }
            Method::PATCH => {
                self.receive_into(&mut turn, request.into_body()).await?;
                let length = turn.writer()?.len();
                session_response(repository, id, length, StatusCode::ACCEPTED)
            }
            Method::PUT => {
                let digest = query_value(request.uri().query(), "digest");
                let digest = digest.ok_or(RegistryError::DigestInvalid)?;
                parse_digest(&digest)?;
                self.receive_into(&mut turn, request.into_body()).await?;
                self.finish(repository, turn.end()?, &digest).await
            }
            _ => Err(RegistryError::Unsupported),
        }
    }

    /// A blob that is too large, or for which there is no room, ends its session; an interruption does not.
    async fn receive_into(&self, turn: &mut Turn, body: Body) -> Result<(), RegistryError> {
        match receive(turn.writer()?, body).await {
            Err(error @ (RegistryError::TooLarge(_) | RegistryError::DiskFull)) => {
                turn.discard();
                Err(error)
            }
            other => other,
        }
    }

    async fn finish(
        &self,
        repository: &str,
        writer: BlobWriter,
        digest: &str,
    ) -> Result<Response, RegistryError> {
        let digest = parse_digest(digest)?;
        let size = writer.len();
        let _lease = self.store.lease([digest.clone()]);
        writer.commit(Some(&digest)).await?;
        let descriptor = Descriptor::new("application/octet-stream", digest, size);
        self.set_link(repository, Link::Blob, &descriptor).await?;
        let digest = &descriptor.digest;
        created(&format!("/v2/{repository}/blobs/{digest}"), digest)
    }
}

fn session_response(
    repository: &str,
    id: &str,
    length: u64,
    status: StatusCode,
) -> Result<Response, RegistryError> {
    let location = format!("/v2/{repository}/blobs/uploads/{id}");
    let range = format!("0-{}", length.saturating_sub(1));
    let headers = [
        (header::LOCATION, header_value(&location)?),
        (header::RANGE, header_value(&range)?),
        (UPLOAD_HEADER, header_value(id)?),
    ];
    Ok((status, headers).into_response())
}

fn algorithm_of(name: Option<&str>) -> Result<Algorithm, RegistryError> {
    match name {
        None | Some("sha256") => Ok(Algorithm::Sha256),
        Some("sha512") => Ok(Algorithm::Sha512),
        Some(_) => Err(RegistryError::DigestInvalid),
    }
}

async fn receive(writer: &mut BlobWriter, body: Body) -> Result<(), RegistryError> {
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = tokio::time::timeout(BODY_SILENCE, chunks.next()).await;
        match chunk {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(chunk))) => writer.write(&chunk).await?,
            Ok(Some(Err(_))) | Err(_) => return Err(RegistryError::BodyInterrupted),
        }
    }
}

/// Whether a chunk goes on where the upload is: `Content-Range: START-END`, with or without `bytes `.
fn starts_at(headers: &HeaderMap, length: u64) -> bool {
    let Some(range) = header_text(headers, &header::CONTENT_RANGE) else {
        return true;
    };
    let range = range.strip_prefix("bytes ").unwrap_or(&range);
    let start = range.split_once('-');
    start.and_then(|(start, _)| start.trim().parse().ok()) == Some(length)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From this byte to before that one.
    Part(u64, u64),
    /// Not one range of bytes: everything is sent, as RFC 9110 allows.
    All,
    Outside,
}

fn range_of(text: &str, size: u64) -> Range {
    let Some((start, end)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Range::All;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(start), number(end)) {
        (Some(start), Some(end)) if end >= start => (start, end.saturating_add(1).min(size)),
        (Some(start), None) if end.trim().is_empty() => (start, size),
        (None, Some(count)) if start.trim().is_empty() => (size.saturating_sub(count), size),
        _ => return Range::All,
    };
    if start < end {
        Range::Part(start, end)
    } else {
        Range::Outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob() {
        let cases = [
            ("bytes=0-", Range::Part(0, 10)),
            ("bytes=3-5", Range::Part(3, 6)),
            ("bytes=3-500", Range::Part(3, 10)),
            ("bytes=-4", Range::Part(6, 10)),
            ("bytes=-40", Range::Part(0, 10)),
            ("bytes=9-", Range::Part(9, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-3", Range::All),
            ("bytes=0-1,3-4", Range::All),
            ("bytes=", Range::All),
            ("lines=0-1", Range::All),
        ];
        for (text, want) in cases {
            assert_eq!(range_of(text, 10), want, "{text}");
        }
        assert_eq!(range_of("bytes=0-", 0), Range::Outside);
    }

    #[test]
    fn chunks_come_in_order() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            headers
        };
        assert!(starts_at(&HeaderMap::new(), 5));
        assert!(starts_at(&with("5-9"), 5));
        assert!(starts_at(&with("bytes 5-9/10"), 5));
        assert!(!starts_at(&with("4-9"), 5));
        assert!(!starts_at(&with("x"), 5));
    }
}
