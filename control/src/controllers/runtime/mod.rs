//! What controllers and the scheduler are built from: informers, work queues, events, ownership.

pub mod clock;
pub mod expectations;
pub mod informer;
pub mod informers;
pub mod key;
pub mod metadata;
pub mod ownership;
pub mod pod;
pub mod pod_owners;
pub mod recorder;
pub mod resources;
pub mod slow_start;
pub mod template_hash;
pub mod work_queue;
pub mod worker;
pub mod written;
