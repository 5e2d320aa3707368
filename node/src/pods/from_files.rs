//! Static pods among the node's pods: which workers they have, and what their mirrors say.
//!
//! A pod that its file no longer has ends as if it were deleted. One of the same name waits for that, since two pods would
//! share a mirror.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use super::Dispatcher;
use crate::static_pods::mirrors::{Running, View};
use crate::static_pods::{PodName, StaticPods, name_of};

/// Grace of pods that say nothing of it, in seconds.
const GRACE: i64 = 30;

/// What the agent connects to the pods: what files ask for, and who keeps the mirrors.
pub(crate) struct Files {
    pub(crate) wanted: watch::Receiver<StaticPods>,
    pub(crate) view: watch::Sender<View>,
}

/// The static pods of a node.
pub(super) struct FromFiles {
    wanted: watch::Receiver<StaticPods>,
    view: watch::Sender<View>,
}

impl FromFiles {
    pub(super) fn new(files: Files) -> Self {
        let Files { wanted, view } = files;
        Self { wanted, view }
    }

    /// Waits until files ask for something else; never if nobody reads files.
    pub(super) async fn changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Those that run.
    pub(super) fn pods(&self) -> Vec<Arc<Pod>> {
        let view = self.view.borrow();
        let running = view.running.values();
        running.map(|running| running.pod.clone()).collect()
    }
}

impl Dispatcher {
    /// Ends what no file asks for any more, and begins what one does.
    pub(super) fn take_files(&mut self) {
        let wanted = self.from_files.wanted.borrow_and_update().clone();
        let running = self.from_files.view.borrow().running.clone();
        for (name, running) in running {
            let uid = running.pod.metadata.uid.clone().unwrap_or_default();
            if !running.ending && !wanted.contains_key(&uid) {
                self.end(&name, &uid, &running.pod);
            }
        }
        for (uid, pod) in wanted.iter() {
            let name = name_of(pod);
            let is_free = !self.from_files.view.borrow().running.contains_key(&name);
            if is_free {
                self.begin_static(&name, uid, pod);
            }
        }
    }

    fn begin_static(&mut self, name: &PodName, uid: &str, pod: &Arc<Pod>) {
        let running = Running {
            pod: pod.clone(),
            ending: false,
        };
        let mut mirror = None;
        self.from_files.view.send_modify(|view| {
            view.running.insert(name.clone(), running);
            mirror = view.mirror_of(name).map(str::to_owned);
        });
        self.known.insert(uid, pod.clone());
        self.begin(uid.to_owned(), pod.clone(), mirror);
    }

    /// Ends a static pod with its grace, as if somebody had deleted it.
    fn end(&mut self, name: &PodName, uid: &str, pod: &Arc<Pod>) {
        let mut ending = Pod::clone(pod);
        let grace = ending.spec.as_ref();
        let grace = grace.and_then(|spec| spec.termination_grace_period_seconds);
        let grace = grace.unwrap_or(GRACE).max(0);
        let now = self.context.clock.now();
        // A grace that no clock can tell ends now.
        let at = now.checked_add(SignedDuration::from_secs(grace));
        let at = windlass_api::time::to_seconds(at.unwrap_or(now));
        ending.metadata.deletion_timestamp = Some(Time(at));
        ending.metadata.deletion_grace_period_seconds = Some(grace);
        let ending = Arc::new(ending);
        let Some(worker) = self.workers.get(uid) else {
            // It died; there is nothing to wait for.
            self.forget(name, uid);
            return;
        };
        worker.send_modify(|desired| desired.pod = ending.clone());
        self.known.insert(uid, ending);
        self.from_files.view.send_modify(|view| {
            if let Some(running) = view.running.get_mut(name) {
                running.ending = true;
            }
        });
    }

    /// A worker has ended. One that nobody told to end has died, and is begun anew only when its file changes.
    pub(super) fn take_end(&mut self, uid: &str) {
        let ended = {
            let view = self.from_files.view.borrow();
            let mut running = view.running.iter();
            let found = running.find(|(_, running)| {
                running.ending && running.pod.metadata.uid.as_deref() == Some(uid)
            });
            found.map(|(name, _)| name.clone())
        };
        if let Some(name) = ended {
            self.forget(&name, uid);
            self.take_files();
        }
    }

    fn forget(&mut self, name: &PodName, uid: &str) {
        self.known.remove(uid);
        self.from_files.view.send_modify(|view| {
            view.running.remove(name);
        });
    }

    /// The API has these mirrors and no others.
    pub(super) fn take_mirrors(&mut self, mirrors: Vec<Pod>) {
        let mirrors: BTreeMap<_, _> = mirrors
            .into_iter()
            .map(|mirror| (name_of(&mirror), Arc::new(mirror)))
            .collect();
        self.from_files
            .view
            .send_modify(|view| view.mirrors = Some(mirrors));
        let names: Vec<_> = self
            .from_files
            .view
            .borrow()
            .running
            .keys()
            .cloned()
            .collect();
        for name in names {
            self.report_to_mirror(&name);
        }
    }

    /// The API has a mirror, or another state of it.
    pub(super) fn take_mirror(&mut self, mirror: Pod) {
        let name = name_of(&mirror);
        self.from_files.view.send_modify(|view| {
            let mirrors = view.mirrors.get_or_insert_default();
            mirrors.insert(name.clone(), Arc::new(mirror));
        });
        self.report_to_mirror(&name);
    }

    /// The API has no longer this mirror.
    pub(super) fn take_mirror_gone(&mut self, mirror: &Pod) {
        let name = name_of(mirror);
        self.from_files.view.send_modify(|view| {
            let mirrors = view.mirrors.get_or_insert_default();
            let known = mirrors.get(&name).map(|known| &known.metadata.uid);
            if known == Some(&mirror.metadata.uid) {
                mirrors.remove(&name);
            }
        });
        self.report_to_mirror(&name);
    }

    /// Tells the worker of a static pod what its status is to be written to.
    fn report_to_mirror(&self, name: &PodName) {
        let view = self.from_files.view.borrow();
        let uid = view
            .running
            .get(name)
            .and_then(|it| it.pod.metadata.uid.as_deref());
        let Some(worker) = uid.and_then(|uid| self.workers.get(uid)) else {
            return;
        };
        let mirror = view.mirror_of(name).map(str::to_owned);
        worker.send_if_modified(|desired| {
            let changed = desired.mirror != mirror;
            desired.mirror = mirror;
            changed
        });
    }
}
