//! `exec`: succeeds when a command in the container ends with code 0.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Probe;

use super::{Outcome, Prober, Target};
use crate::runtime::exec::collect;

pub(super) struct Exec;

#[async_trait]
impl Prober for Exec {
    fn claims(&self, probe: &Probe) -> bool {
        probe.exec.is_some()
    }

    async fn probe(&self, target: &Target, probe: &Probe) -> Outcome {
        let action = probe.exec.as_ref();
        let command = action.and_then(|action| action.command.as_deref());
        match collect(target.instance.as_ref(), command.unwrap_or_default()).await {
            Ok(ended) if ended.exit.exit_code == 0 => Outcome::Success,
            Ok(ended) if ended.output.is_empty() => Outcome::Failure(ended.exit.message),
            Ok(ended) => Outcome::Failure(ended.output),
            Err(error) => Outcome::Failure(error.to_string()),
        }
    }
}
