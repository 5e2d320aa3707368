//! The images of a store: what is remembered of each, which there are, and their removal.
//!
//! A reference's file is the descriptor of the image manifest, with annotations: the digests of the program and
//! of the components that have names, and who may use the image.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{MAX_MANIFEST, Programs, PullError, Puller};
use crate::content_store::{ContentError, Swept};
use crate::credentials::Origin;
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageManifest, Manifest};
use crate::reference::Reference;

const PROGRAM: &str = "dev.windlass.program";
const COMPONENTS: &str = "dev.windlass.components";
const ACCESS: &str = "dev.windlass.access";

/// Who may use an image that is here without asking the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageAccess {
    /// Everybody: it was given to strangers, or to the machine.
    Everybody,
    /// Whoever has one of these sources of credentials.
    Sources(BTreeSet<String>),
}

impl ImageAccess {
    pub(super) fn with(origin: Option<&Origin>) -> Self {
        match origin {
            Some(Origin::Source(name)) => Self::Sources(BTreeSet::from([name.clone()])),
            Some(Origin::Machine) | None => Self::Everybody,
        }
    }

    /// Whether who has this source may use the image.
    #[must_use]
    pub fn allows(&self, origin: Option<&Origin>) -> bool {
        match (self, origin) {
            (Self::Everybody, _) => true,
            (Self::Sources(known), Some(Origin::Source(name))) => known.contains(name),
            (Self::Sources(_), _) => false,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Sources(mut one), Self::Sources(other)) => {
                one.extend(other);
                Self::Sources(one)
            }
            _ => Self::Everybody,
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Everybody => "*".to_owned(),
            // No name of a source has line breaks; one that had would grant nothing.
            Self::Sources(names) => names.iter().cloned().collect::<Vec<_>>().join("\n"),
        }
    }

    fn read(text: &str) -> Self {
        match text {
            "*" => Self::Everybody,
            text => Self::Sources(text.lines().map(str::to_owned).collect()),
        }
    }
}

/// What a reference's file says.
pub(super) struct Remembered {
    pub(super) descriptor: Descriptor,
    pub(super) programs: Option<Programs>,
    pub(super) access: ImageAccess,
}

impl Remembered {
    pub(super) fn write(self) -> Result<Descriptor, serde_json::Error> {
        let mut descriptor = self.descriptor;
        let notes = &mut descriptor.annotations;
        notes.insert(ACCESS.to_owned(), self.access.write());
        if let Some(Programs { main, components }) = self.programs {
            notes.insert(PROGRAM.to_owned(), main.to_string());
            let components = serde_json::to_string(&components)?;
            notes.insert(COMPONENTS.to_owned(), components);
        }
        Ok(descriptor)
    }

    pub(super) fn read(descriptor: Descriptor) -> Self {
        let note = |name: &str| descriptor.annotations.get(name);
        let access = note(ACCESS).map(|text| ImageAccess::read(text));
        let main = note(PROGRAM).and_then(|text| text.parse().ok());
        // Earlier versions did not say.
        let components = note(COMPONENTS).and_then(|text| serde_json::from_str(text).ok());
        let components = components.unwrap_or_default();
        Self {
            programs: main.map(|main| Programs { main, components }),
            // What does not say is nobody's, and is asked for again.
            access: access.unwrap_or(ImageAccess::Sources(BTreeSet::new())),
            descriptor,
        }
    }
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Digest of the image manifest.
    pub digest: Digest,
    /// What it is called here.
    pub references: Vec<Reference>,
    /// Bytes of everything that it is made of.
    pub size: u64,
    blobs: Vec<Digest>,
}

impl StoredImage {
    /// An image of this size, without names and blobs: to plan with.
    #[must_use]
    pub const fn new(digest: Digest, size: u64) -> Self {
        Self {
            digest,
            references: Vec::new(),
            size,
            blobs: Vec::new(),
        }
    }
}

impl Puller {
    /// The images that are here, in no order. What is not whole is none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn images(&self) -> Result<Vec<StoredImage>, PullError> {
        let mut images: HashMap<Digest, StoredImage> = HashMap::new();
        for (name, leaf) in self.store.all_refs("").await? {
            let Ok(reference) = reference_of(&name, &leaf).parse::<Reference>() else {
                continue;
            };
            let Some(found) = self.remembered(&reference).await? else {
                continue;
            };
            let digest = found.descriptor.digest.clone();
            if let Some(known) = images.get_mut(&digest) {
                known.references.push(reference);
            } else if let Some(image) = self.describe(reference, found).await? {
                images.insert(digest, image);
            }
        }
        Ok(images.into_values().collect())
    }

    async fn describe(
        &self,
        reference: Reference,
        found: Remembered,
    ) -> Result<Option<StoredImage>, PullError> {
        let Some(manifest) = self.stored_manifest(&found.descriptor).await? else {
            return Ok(None);
        };
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        let own = [&found.descriptor.digest];
        let mut blobs: HashSet<Digest> = parts
            .map(|part| &part.digest)
            .chain(own)
            .chain(found.programs.iter().flat_map(Programs::digests))
            .cloned()
            .collect();
        let mut size = 0;
        let mut present = Vec::new();
        for digest in blobs.drain() {
            if let Some(bytes) = self.store.size(&digest).await? {
                size += bytes;
                present.push(digest);
            }
        }
        Ok(Some(StoredImage {
            digest: found.descriptor.digest,
            references: vec![reference],
            size,
            blobs: present,
        }))
    }

    pub(super) async fn remembered(
        &self,
        reference: &Reference,
    ) -> Result<Option<Remembered>, PullError> {
        let name = name_of(reference);
        let found = self
            .store
            .get_ref(&name, &reference.manifest_reference())
            .await?;
        Ok(found.map(Remembered::read))
    }

    pub(super) async fn stored_manifest(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Option<ImageManifest>, PullError> {
        let bytes = match self.store.read(&descriptor.digest, MAX_MANIFEST).await {
            Ok(bytes) => bytes,
            Err(ContentError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match Manifest::parse(&bytes, Some(&descriptor.media_type))? {
            Manifest::Image(manifest) => Ok(Some(manifest)),
            Manifest::Index(_) => Ok(None),
        }
    }

    /// Forgets what an image is called, unless it is in use. Its blobs go with the next [`Puller::sweep`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget(&self, image: &StoredImage) -> Result<bool, PullError> {
        for reference in &image.references {
            let _turn = self.turns.take(&reference.to_string()).await;
            if self.store.is_leased(&image.digest) {
                return Ok(false);
            }
            let leaf = reference.manifest_reference();
            self.store.remove_ref(&name_of(reference), &leaf).await?;
        }
        Ok(true)
    }

    /// Removes blobs of no image that are older than `min_age` and not in use.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sweep(&self, min_age: Duration) -> Result<Swept, PullError> {
        let collection = self.store.collect().await;
        let images = self.images().await?;
        let keep = images.into_iter().flat_map(|image| image.blobs).collect();
        Ok(collection.sweep(keep, min_age).await?)
    }
}

pub(super) fn name_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// The text of a reference from its file's place. The leaf is a tag or a digest; no tag has a colon.
fn reference_of(name: &str, leaf: &str) -> String {
    let separator = if leaf.contains(':') { '@' } else { ':' };
    format!("{name}{separator}{leaf}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_kept_and_grows() {
        let source = |name: &str| Some(Origin::Source(name.to_owned()));
        let of = |origin: &Option<Origin>| ImageAccess::with(origin.as_ref());
        let (a, b) = (source("default/a"), source("default/b"));
        let one = of(&a);
        assert!(one.allows(a.as_ref()) && !one.allows(b.as_ref()) && !one.allows(None));
        assert!(!one.allows(Some(&Origin::Machine)));
        let both = one.or(of(&b));
        assert_eq!(ImageAccess::read(&both.write()), both);
        assert!(both.allows(a.as_ref()) && both.allows(b.as_ref()));
        let all = both.or(of(&None));
        assert_eq!(ImageAccess::read(&all.write()), ImageAccess::Everybody);
        assert!(all.allows(None));
    }

    #[test]
    fn a_reference_is_found_again_from_its_place() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for text in [
            "docker.io/library/nginx:1.27".to_owned(),
            "127.0.0.1:5000/a/b:latest".to_owned(),
            format!("r.io/a/b@{digest}"),
        ] {
            let reference: Reference = text.parse().unwrap();
            let again = reference_of(&name_of(&reference), &reference.manifest_reference());
            assert_eq!(again, text);
        }
    }
}
