//! When images are removed from this node.
//!
//! 1. Every few minutes the disk is looked at. Above the high threshold, images that nothing uses go, the one that was
//!    used longest ago first, until the disk would be below the low one.
//! 2. Blobs of no image go too: those of tags that have moved.
//!
//! Spec: kubelet's image garbage collection: 85 %, 80 %, and no image younger than two minutes. An image is in use
//! while a container holds it, or a pull.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_oci::digest::Digest;
use windlass_oci::pull::{PullError, StoredImage};

use super::Images;
use crate::events::{EventType, ObjectEvents};
use crate::runtime::Runtimes;
use crate::status::reason::EventReason;

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCollection {
    /// Above this percentage of the disk used, images are removed; 100 removes none.
    pub high_threshold: u8,
    /// Until the percentage used is at most this.
    pub low_threshold: u8,
    /// No image goes that was found more recently.
    pub min_age: Duration,
    /// How often the disk is looked at.
    pub period: Duration,
}

impl Default for ImageCollection {
    fn default() -> Self {
        Self {
            high_threshold: 85,
            low_threshold: 80,
            min_age: Duration::from_secs(120),
            period: Duration::from_secs(300),
        }
    }
}

/// Thresholds that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image garbage collection: the low threshold ({low}) must be below the high one ({high}), and both at most 100"
)]
pub struct InvalidThresholds {
    low: u8,
    high: u8,
}

impl ImageCollection {
    /// Checks the thresholds against each other.
    ///
    /// # Errors
    /// They make no sense together.
    pub const fn check(&self) -> Result<(), InvalidThresholds> {
        let (low, high) = (self.low_threshold, self.high_threshold);
        if low < high && high <= 100 {
            Ok(())
        } else {
            Err(InvalidThresholds { low, high })
        }
    }
}

/// The disk that images are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disk {
    capacity: u64,
    available: u64,
}

impl Disk {
    fn of(path: &Path) -> std::io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            capacity: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// How much has to go.
    fn excess(self, policy: &ImageCollection) -> u64 {
        let percent = |share: u8| u128::from(self.capacity) * u128::from(share) / 100;
        let used = self.capacity.saturating_sub(self.available);
        if policy.high_threshold >= 100 || u128::from(used) < percent(policy.high_threshold) {
            return 0;
        }
        let wanted = percent(100 - policy.low_threshold.min(100));
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        wanted.saturating_sub(self.available)
    }
}

/// What is known of an image besides what the store knows.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Instant,
    last_used: Instant,
}

/// When images were seen and used.
#[derive(Default)]
pub(super) struct Uses(Mutex<HashMap<Digest, Seen>>);

impl Uses {
    pub(super) fn note(&self, digest: &Digest) {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.entry(digest.clone());
        let entry = entry.or_insert(Seen {
            first: now,
            last_used: now,
        });
        entry.last_used = now;
    }

    /// Notes what is there and what of it is in use, and forgets the rest; answers all with what is known.
    fn look_at<'a>(
        &self,
        images: &'a [StoredImage],
        in_use: impl Fn(&Digest) -> bool,
    ) -> Vec<Candidate<'a>> {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present: HashSet<&Digest> = images.iter().map(|image| &image.digest).collect();
        seen.retain(|digest, _| present.contains(digest));
        let mut candidates = Vec::new();
        for image in images {
            let entry = seen.entry(image.digest.clone()).or_insert(Seen {
                first: now,
                last_used: now,
            });
            if in_use(&image.digest) {
                entry.last_used = now;
            } else {
                candidates.push(Candidate {
                    image,
                    seen: *entry,
                });
            }
        }
        candidates
    }
}

/// An image that nothing uses.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    image: &'a StoredImage,
    seen: Seen,
}

/// Chooses what goes: by last use, then by age, until enough would be free.
fn plan<'a>(
    mut candidates: Vec<Candidate<'a>>,
    excess: u64,
    min_age: Duration,
    now: Instant,
) -> Vec<&'a StoredImage> {
    candidates.retain(|candidate| now.duration_since(candidate.seen.first) >= min_age);
    candidates.sort_by_key(|candidate| (candidate.seen.last_used, candidate.seen.first));
    let mut freed = 0_u64;
    let chosen = candidates.into_iter().take_while(|candidate| {
        let wanted = freed < excess;
        freed = freed.saturating_add(candidate.image.size);
        wanted
    });
    chosen.map(|candidate| candidate.image).collect()
}

/// Looks at the disk from time to time.
pub(crate) async fn run(
    images: &Images,
    runtimes: &Runtimes,
    policy: ImageCollection,
    events: ObjectEvents,
) {
    let mut ticks = tokio::time::interval(policy.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match collect(images, &policy, &events).await {
            // Those that runtimes have for themselves go with ours.
            Ok(Some(kept)) => {
                for runtime in runtimes.iter() {
                    runtime.keep_images(&kept).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "collect images"),
        }
    }
}

/// Answers the digests of the images that are left, if some went.
async fn collect(
    images: &Images,
    policy: &ImageCollection,
    events: &ObjectEvents,
) -> Result<Option<HashSet<String>>, PullError> {
    let store = images.puller.store();
    // What is only kept here so that files need not be read again is not in use.
    images.lock().clear();
    let stored = images.puller.images().await?;
    let candidates = images
        .uses
        .look_at(&stored, |digest| store.is_leased(digest));
    let excess = match Disk::of(store.root()) {
        Ok(disk) => disk.excess(policy),
        Err(error) => {
            tracing::warn!(%error, path = %store.root().display(), "look at the disk of images");
            0
        }
    };
    let chosen = plan(candidates, excess, policy.min_age, Instant::now());
    let mut is_changed = false;
    for image in chosen {
        is_changed |= images.puller.forget(image).await?;
    }
    let swept = images.puller.sweep(policy.min_age).await?;
    if is_changed {
        images.changed.send_replace(());
    }
    if swept.blobs > 0 {
        tracing::info!(swept.blobs, swept.bytes, "removed blobs of images");
    }
    if swept.bytes < excess {
        let text = format!(
            "Failed to garbage collect required amount of images. Attempted to free {excess} bytes, \
             but only found {} bytes eligible to free.",
            swept.bytes
        );
        events.record(EventType::Warning, EventReason::FreeDiskSpaceFailed, text);
    }
    if swept.blobs == 0 {
        return Ok(None);
    }
    let left = images.puller.images().await?;
    Ok(Some(
        left.iter().map(|image| image.digest.to_string()).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, size: u64) -> StoredImage {
        StoredImage::new(Digest::sha256(name.as_bytes()), size)
    }

    #[test]
    fn the_disk_is_brought_from_above_high_to_low() {
        let policy = ImageCollection::default();
        let disk = |available| Disk {
            capacity: 1000,
            available,
        };
        for (available, excess) in [(1000, 0), (151, 0), (150, 50), (0, 200)] {
            assert_eq!(disk(available).excess(&policy), excess, "{available}");
        }
        let never = ImageCollection {
            high_threshold: 100,
            ..policy
        };
        assert_eq!(disk(0).excess(&never), 0);
    }

    #[test]
    fn thresholds_are_checked() {
        let of = |low_threshold, high_threshold| ImageCollection {
            low_threshold,
            high_threshold,
            ..ImageCollection::default()
        };
        assert!(of(80, 85).check().is_ok());
        for (low, high) in [(85, 85), (90, 85), (80, 101)] {
            assert!(of(low, high).check().is_err(), "{low} {high}");
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_no_more_than_needed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let images = [
            image("a", 10),
            image("b", 10),
            image("c", 10),
            image("d", 10),
        ];
        let seen = [(0, 50), (0, 10), (0, 30), (95, 95)];
        let candidates = || {
            let all = images.iter().zip(seen);
            let all = all.map(|(image, (first, last))| Candidate {
                image,
                seen: Seen {
                    first: at(first),
                    last_used: at(last),
                },
            });
            all.collect::<Vec<_>>()
        };
        let chosen = |excess| {
            let chosen = plan(candidates(), excess, Duration::from_secs(10), at(100));
            let digests = chosen.into_iter().map(|image| image.digest.clone());
            digests.collect::<Vec<_>>()
        };
        let digests = |names: &[&str]| -> Vec<_> {
            let names = names.iter();
            names.map(|name| Digest::sha256(name.as_bytes())).collect()
        };
        assert_eq!(chosen(0), digests(&[]));
        assert_eq!(chosen(10), digests(&["b"]));
        assert_eq!(chosen(11), digests(&["b", "c"]));
        // The young one stays, however much is wanted.
        assert_eq!(chosen(1000), digests(&["b", "c", "a"]));
    }

    #[test]
    fn an_image_in_use_is_no_candidate_and_counts_as_used() {
        let uses = Uses::default();
        let images = [image("a", 1), image("b", 1)];
        let used = Digest::sha256(b"a");
        let candidates = uses.look_at(&images, |digest| *digest == used);
        assert_eq!(candidates.len(), 1);
        assert_eq!(uses.look_at(&images[..1], |_| false).len(), 1);
        assert_eq!(uses.0.lock().unwrap().len(), 1);
    }
}
