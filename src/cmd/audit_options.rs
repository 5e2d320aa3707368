//! Options of the audit log, called as upstream's are.

use std::path::PathBuf;
use std::time::Duration;

use super::server::{file_text, place};
use anyhow::Context;
use clap::ValueEnum;
use jiff::SignedDuration;
use windlass_control::server::audit::{
    AuditOptions as Audit, BatchOptions, LogFileOptions, Mode, Policy, WebhookOptions,
};

const MEGABYTE: u64 = 1 << 20;
const DAY: u64 = 86_400;

/// What is audited, and where events are kept.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AuditOptions {
    /// What is audited and how much of it: a file of kind `Policy` of `audit.k8s.io/v1`.
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// File to which audit events are written, one a line; `-` for the standard output.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// Put the file aside when it becomes larger than so many megabytes.
    #[arg(long, value_name = "MB", default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Remove files put aside after so many days; 0 keeps them.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u64,
    /// Keep at most so many files put aside; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Whether requests wait until their events are in the file, are refused if they are not, or do not wait.
    #[arg(long, value_name = "MODE", default_value = "blocking")]
    audit_log_mode: AuditMode,
    /// A kubeconfig whose cluster is sent audit events.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait until their events are sent, are refused if they are not, or do not wait.
    #[arg(long, value_name = "MODE", default_value = "batch")]
    audit_webhook_mode: AuditMode,
    /// The wait before events that could not be sent are sent again.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    audit_webhook_initial_backoff: SignedDuration,
    /// Events that wait in a buffer at most; when it is full, events of mode `batch` are dropped, and counted.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    audit_batch_buffer_size: usize,
    /// Events that are sent together at most.
    #[arg(long, value_name = "N", default_value_t = 400)]
    audit_batch_max_size: usize,
    /// How long events wait for others to be sent together.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    audit_batch_max_wait: SignedDuration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AuditMode {
    Batch,
    Blocking,
    BlockingStrict,
}

impl AuditMode {
    fn mode(self) -> Mode {
        match self {
            Self::Batch => Mode::Batch,
            Self::Blocking => Mode::Blocking,
            Self::BlockingStrict => Mode::BlockingStrict,
        }
    }
}

impl AuditOptions {
    /// What the options say; `None` without a policy.
    pub(super) fn read(&self) -> anyhow::Result<Option<Audit>> {
        const OPTION: &str = "audit-policy-file";
        let path = self.audit_policy_file.as_ref();
        let Some(text) = file_text(OPTION, path)? else {
            return Ok(None);
        };
        let policy = Policy::parse(&text).with_context(|| place(OPTION, path))?;
        let batches = BatchOptions {
            buffer: self.audit_batch_buffer_size,
            max_size: self.audit_batch_max_size,
            max_wait: duration("audit-batch-max-wait", self.audit_batch_max_wait)?,
        };
        let log = self.audit_log_path.clone().map(|path| LogFileOptions {
            path,
            max_size: self.audit_log_maxsize.saturating_mul(MEGABYTE),
            max_age: Duration::from_secs(self.audit_log_maxage.saturating_mul(DAY)),
            max_backups: self.audit_log_maxbackup,
        });
        let webhook = self.webhook()?;
        Ok(Some(Audit {
            policy,
            log: log.map(|log| (log, self.audit_log_mode.mode(), batches)),
            webhook: webhook.map(|webhook| (webhook, self.audit_webhook_mode.mode(), batches)),
        }))
    }

    fn webhook(&self) -> anyhow::Result<Option<WebhookOptions>> {
        let path = self.audit_webhook_config_file.as_ref();
        let Some(kubeconfig) = file_text("audit-webhook-config-file", path)? else {
            return Ok(None);
        };
        let backoff = self.audit_webhook_initial_backoff;
        Ok(Some(WebhookOptions {
            kubeconfig,
            initial_backoff: duration("audit-webhook-initial-backoff", backoff)?,
        }))
    }
}

fn duration(option: &str, duration: SignedDuration) -> anyhow::Result<Duration> {
    let positive = Duration::try_from(duration);
    positive.with_context(|| format!("--{option} is negative"))
}
