//! Every reason a container, a pod or an event of this node can carry, in one enum each.
//!
//! Texts are upstream's, since that is what people search for. A reason is shown through `Display`
//! and goes to the API only through `status` and `events`.

use std::fmt;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The text as the API shows it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a container waits or has ended: `state.waiting.reason` and `state.terminated.reason`.
    ContainerReason {
        /// Volumes, network or image are being prepared.
        ContainerCreating = "ContainerCreating",
        /// Earlier containers (init, sidecar) have not finished yet.
        PodInitializing = "PodInitializing",
        /// The container ended and waits for its back-off to pass.
        CrashLoopBackOff = "CrashLoopBackOff",
        /// The image reference can't be parsed, or is a path of somebody's disk.
        InvalidImageName = "InvalidImageName",
        /// The image could not be pulled.
        ErrImagePull = "ErrImagePull",
        /// The image could not be pulled, and the next try waits.
        ImagePullBackOff = "ImagePullBackOff",
        /// `imagePullPolicy: Never` and the image is not on the node.
        ErrImageNeverPull = "ErrImageNeverPull",
        /// The pod's configuration of the container refers to what does not exist.
        CreateContainerConfigError = "CreateContainerConfigError",
        /// The runtime can't make the container from this image.
        CreateContainerError = "CreateContainerError",
        /// The container was made but does not start.
        RunContainerError = "RunContainerError",
        /// Ended with exit code 0.
        Completed = "Completed",
        /// Ended with another exit code.
        Error = "Error",
        /// Ended because it used more memory than its limit.
        OomKilled = "OOMKilled",
        /// The container's end was not observed.
        ContainerStatusUnknown = "ContainerStatusUnknown",
    }
}

reasons! {
    /// Reasons of the events this node records.
    EventReason {
        /// An image is being pulled.
        Pulling = "Pulling",
        /// An image is on the node.
        Pulled = "Pulled",
        /// A container was created.
        Created = "Created",
        /// A container was started.
        Started = "Started",
        /// A container is being ended.
        Killing = "Killing",
        /// A restart or a pull waits for its back-off.
        BackOff = "BackOff",
        /// A component trapped. Kubernetes has no traps, and so no reason for them.
        Trapped = "Trapped",
        /// A probe failed.
        Unhealthy = "Unhealthy",
        /// A probe warns without failing.
        ProbeWarning = "ProbeWarning",
        /// The hook after a container's start failed.
        FailedPostStartHook = "FailedPostStartHook",
        /// The hook before a container's end failed.
        FailedPreStopHook = "FailedPreStopHook",
        /// A volume could not be set up.
        FailedMount = "FailedMount",
        /// An image or a container failed.
        Failed = "Failed",
        /// Some of the pod's pull secrets can't be read.
        FailedToRetrieveImagePullSecret = "FailedToRetrieveImagePullSecret",
        /// The disk is full, and not enough of what is on it are images that nothing uses.
        FreeDiskSpaceFailed = "FreeDiskSpaceFailed",
        /// The image reference can't be parsed.
        InspectFailed = "InspectFailed",
        /// The pod's network could not be set up.
        FailedCreatePodSandBox = "FailedCreatePodSandBox",
        /// The pod uses more of the node than it may.
        Evicted = "Evicted",
        /// The pod ran longer than `activeDeadlineSeconds`.
        DeadlineExceeded = "DeadlineExceeded",
        /// The pod uses a feature this node does not offer.
        NotSupported = "NotSupported",
        /// The pod asks for more processor time than there is.
        OutOfCpu = "OutOfcpu",
        /// The pod asks for more memory than there is.
        OutOfMemory = "OutOfmemory",
        /// The node has as many pods as it takes.
        OutOfPods = "OutOfpods",
        /// A file of static pods is not understood.
        // Differs from Kubernetes: kubelet tells this to its log alone.
        InvalidStaticPod = "InvalidStaticPod",
        /// The node agent started.
        Starting = "Starting",
    }
}
