//! Manifests by tag and digest, tags, and what refers to a manifest.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::action::{Page, query_value};
use super::blobs::parse_digest;
use super::error::{RegistryError, json_body};
use super::{
    Link, MAX_PAGE, Registry, content_headers, created, header_text, header_value, leaf, tags_of,
};
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageIndex, Manifest};
use crate::media_type;
use crate::reference::is_tag;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

impl Registry {
    pub(super) async fn manifest(
        &self,
        repository: &str,
        reference: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        match *request.method() {
            Method::GET | Method::HEAD => {
                self.get_manifest(repository, reference, request.method())
                    .await
            }
            Method::PUT => self.put_manifest(repository, reference, request).await,
            Method::DELETE => self.delete_manifest(repository, reference).await,
            _ => Err(RegistryError::Unsupported),
        }
    }

    async fn find_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Descriptor, RegistryError> {
        let found = if reference.contains(':') {
            let digest = parse_digest(reference)?;
            self.link(repository, Link::Manifest, &digest).await?
        } else if is_tag(reference) {
            self.store.get_ref(&tags_of(repository), reference).await?
        } else {
            None
        };
        found.ok_or_else(|| RegistryError::ManifestUnknown(format!("{repository}:{reference}")))
    }

    async fn get_manifest(
        &self,
        repository: &str,
        reference: &str,
        method: &Method,
    ) -> Result<Response, RegistryError> {
        let descriptor = self.find_manifest(repository, reference).await?;
        let headers = content_headers(&descriptor)?;
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            let limit = self.limits.manifest;
            self.store.read(&descriptor.digest, limit).await?.into()
        };
        Ok((headers, body).into_response())
    }

    async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        request: Request,
    ) -> Result<Response, RegistryError> {
        let served_as = header_text(request.headers(), &header::CONTENT_TYPE);
        let limit = usize::try_from(self.limits.manifest).unwrap_or(usize::MAX);
        let bytes = axum::body::to_bytes(request.into_body(), limit)
            .await
            .map_err(|_| RegistryError::TooLarge(self.limits.manifest))?;
        let manifest = Manifest::parse(&bytes, served_as.as_deref())
            .map_err(|error| RegistryError::ManifestInvalid(error.to_string()))?;
        let media_type = manifest.media_type().to_owned();
        check_served_as(served_as.as_deref(), &media_type)?;
        let digest = check_reference(reference, &bytes)?;
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);

        let _lease = self.store.lease([descriptor.digest.clone()]);
        let _shared = self.gate.read().await;
        self.check_children(repository, &manifest).await?;
        self.store_manifest(&bytes, &descriptor.digest).await?;
        self.set_link(repository, Link::Manifest, &descriptor)
            .await?;
        if !reference.contains(':') {
            let tags = tags_of(repository);
            self.store.set_ref(&tags, reference, &descriptor).await?;
        }
        let digest = &descriptor.digest;
        let location = format!("/v2/{repository}/manifests/{digest}");
        let mut response = created(&location, digest)?;
        if let Some(subject) = manifest.subject() {
            let referrer = referrer(&manifest, &descriptor);
            let name = referrers_of(repository, &subject.digest);
            self.store.set_ref(&name, &leaf(digest), &referrer).await?;
            let value = header_value(&subject.digest.to_string())?;
            response.headers_mut().insert(SUBJECT, value);
        }
        Ok(response)
    }

    async fn store_manifest(&self, bytes: &[u8], digest: &Digest) -> Result<(), RegistryError> {
        let limit = self.limits.manifest;
        let mut writer = self.store.writer(digest.algorithm(), limit).await?;
        writer.write(bytes).await?;
        writer.commit(Some(digest)).await?;
        Ok(())
    }

    async fn check_children(
        &self,
        repository: &str,
        manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        let kind = match manifest {
            Manifest::Image(_) => Link::Blob,
            Manifest::Index(_) => Link::Manifest,
        };
        for child in manifest.children() {
            if self.link(repository, kind, &child.digest).await?.is_none() {
                return Err(RegistryError::ManifestBlobUnknown(child.digest.clone()));
            }
        }
        Ok(())
    }

    async fn delete_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Response, RegistryError> {
        let descriptor = self.find_manifest(repository, reference).await?;
        let tags = tags_of(repository);
        if !reference.contains(':') {
            self.store.remove_ref(&tags, reference).await?;
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        for tag in self.store.list_refs(&tags).await? {
            let target = self.store.get_ref(&tags, &tag).await?;
            if target.is_some_and(|target| target.digest == descriptor.digest) {
                self.store.remove_ref(&tags, &tag).await?;
            }
        }
        let digest = &descriptor.digest;
        if let Some(subject) = self
            .stored(digest)
            .await?
            .as_ref()
            .and_then(Manifest::subject)
        {
            let name = referrers_of(repository, &subject.digest);
            self.store.remove_ref(&name, &leaf(digest)).await?;
        }
        let name = Link::Manifest.name(repository);
        self.store.remove_ref(&name, &leaf(digest)).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    async fn stored(&self, digest: &Digest) -> Result<Option<Manifest>, RegistryError> {
        let bytes = self.store.read(digest, self.limits.manifest).await?;
        Ok(Manifest::parse(&bytes, None).ok())
    }

    /// The blobs that manifests of a repository are made of, each with one that needs it.
    pub(super) async fn needed_blobs(
        &self,
        repository: &str,
    ) -> Result<HashMap<Digest, Digest>, RegistryError> {
        let name = Link::Manifest.name(repository);
        let mut needed = HashMap::new();
        for leaf in self.store.list_refs(&name).await? {
            let Some(link) = self.store.get_ref(&name, &leaf).await? else {
                continue;
            };
            let manifest = self.stored(&link.digest).await?;
            for child in manifest.iter().flat_map(Manifest::children) {
                needed.insert(child.digest.clone(), link.digest.clone());
            }
        }
        Ok(needed)
    }

    pub(super) async fn tags(
        &self,
        repository: &str,
        query: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut tags = self.store.list_refs(&tags_of(repository)).await?;
        if tags.is_empty() {
            let manifests = Link::Manifest.name(repository);
            if self.store.list_refs(&manifests).await?.is_empty() {
                return Err(RegistryError::NameUnknown(repository.to_owned()));
            }
        }
        let next = Page::of(query, MAX_PAGE).cut(&mut tags);
        let mut response = json_body(&json!({ "name": repository, "tags": tags }));
        set_next(&mut response, &format!("/v2/{repository}/tags/list"), next)?;
        Ok(response)
    }

    /// Spec: an index of the manifests whose subject has this digest; empty where there are none.
    pub(super) async fn referrers(
        &self,
        repository: &str,
        digest: &str,
        query: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let digest = parse_digest(digest)?;
        let name = referrers_of(repository, &digest);
        let mut leaves = self.store.list_refs(&name).await?;
        let next = Page::of(query, MAX_PAGE).cut(&mut leaves);
        let wanted = query_value(query, "artifactType");
        let mut manifests = Vec::new();
        for leaf in leaves {
            let found = self.store.get_ref(&name, &leaf).await?;
            let is_wanted = |found: &Descriptor| wanted.is_none() || found.artifact_type == wanted;
            manifests.extend(found.filter(is_wanted));
        }
        let index = ImageIndex {
            schema_version: 2,
            media_type: Some(media_type::IMAGE_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: Default::default(),
        };
        let mut response = json_body(&json!(index));
        let headers = response.headers_mut();
        let of_index = HeaderValue::from_static(media_type::IMAGE_INDEX);
        headers.insert(header::CONTENT_TYPE, of_index);
        let path = format!("/v2/{repository}/referrers/{digest}");
        let next = match &wanted {
            None => next,
            Some(kind) => {
                headers.insert(FILTERS, HeaderValue::from_static("artifactType"));
                let mut filter = form_urlencoded::Serializer::new(String::new());
                let filter = filter.append_pair("artifactType", kind).finish();
                next.map(|next| format!("{next}&{filter}"))
            }
        };
        set_next(&mut response, &path, next)?;
        Ok(response)
    }
}

fn set_next(
    response: &mut Response,
    path: &str,
    query: Option<String>,
) -> Result<(), RegistryError> {
    if let Some(query) = query {
        let link = header_value(&format!("<{path}?{query}>; rel=\"next\""))?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(())
}

/// What is shown of a manifest to those who ask what refers to its subject.
fn referrer(manifest: &Manifest, descriptor: &Descriptor) -> Descriptor {
    let (artifact_type, annotations) = match manifest {
        Manifest::Image(image) => {
            let of_config = || Some(image.config.media_type.clone());
            let kind = image.artifact_type.clone().filter(|kind| !kind.is_empty());
            (kind.or_else(of_config), &image.annotations)
        }
        Manifest::Index(index) => (index.artifact_type.clone(), &index.annotations),
    };
    Descriptor {
        artifact_type,
        annotations: annotations.clone(),
        ..descriptor.clone()
    }
}

fn referrers_of(repository: &str, subject: &Digest) -> String {
    format!("referrers/{repository}/{}", leaf(subject))
}

/// Spec: the header and the document's own type must be the same.
fn check_served_as(served_as: Option<&str>, media_type: &str) -> Result<(), RegistryError> {
    let bare = served_as
        .and_then(|text| text.split(';').next())
        .map(str::trim);
    match bare {
        Some(bare) if bare.starts_with("application/vnd.") && bare != media_type => {
            Err(RegistryError::ManifestInvalid(format!(
                "its mediaType {media_type:?} is not its Content-Type {bare:?}"
            )))
        }
        _ => Ok(()),
    }
}

/// The digest of what is put under a tag, or the digest it is put under.
fn check_reference(reference: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
    if reference.contains(':') {
        let digest = parse_digest(reference)?;
        return digest
            .matches(bytes)
            .then_some(digest)
            .ok_or(RegistryError::DigestInvalid);
    }
    if is_tag(reference) {
        return Ok(Digest::sha256(bytes));
    }
    let text = format!("invalid tag {reference:?}");
    Err(RegistryError::ManifestInvalid(text))
}
