//! How the audit log is set up.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderName, HeaderValue, header};
use kube::config::{Kubeconfig, KubeconfigError};
use thiserror::Error;

use super::log_file::{LogFile, LogFileOptions};
use super::policy::Policy;
use super::queue::{BatchOptions, Mode, Queue, Sink, Webhook, Writer, queue};
use super::{Audit, Writers};
use crate::outbound::{Outbound, Trust};

/// What is audited, and where events are kept.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// What is audited.
    pub policy: Policy,
    /// Events in a file.
    pub log: Option<(LogFileOptions, Mode, BatchOptions)>,
    /// Events to a webhook.
    pub webhook: Option<(WebhookOptions, Mode, BatchOptions)>,
}

/// A webhook that is sent events.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// A kubeconfig, in YAML, whose cluster is the webhook, and whose user is who we are.
    pub kubeconfig: String,
    /// The wait before a batch is sent for the second time.
    pub initial_backoff: Duration,
}

/// Why there can be no audit log.
#[derive(Debug, Error)]
pub enum AuditOptionsError {
    /// The file cannot be written.
    #[error("audit log {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The webhook's kubeconfig cannot be understood.
    #[error("audit webhook: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// The webhook's kubeconfig does not say what it has to.
    #[error("audit webhook: {0}")]
    Webhook(String),
    /// Batches that cannot be made.
    #[error("audit {backend}: batches must have room for at least one event")]
    Batch {
        /// `log` or `webhook`.
        backend: &'static str,
    },
}

impl AuditOptions {
    /// Opens everything. The writers have to run.
    ///
    /// # Errors
    /// [`AuditOptionsError`].
    pub(crate) fn open(self) -> Result<(Audit, Writers), AuditOptionsError> {
        let mut opened: Vec<(Queue, Writer)> = Vec::new();
        if let Some((options, mode, batches)) = self.log {
            check("log", batches)?;
            let path = options.path.display().to_string();
            let file = LogFile::open(options);
            let file = file.map_err(|source| AuditOptionsError::File { path, source })?;
            opened.push(queue("log", Sink::File(Some(file)), mode, batches));
        }
        if let Some((options, mode, batches)) = self.webhook {
            check("webhook", batches)?;
            opened.push(queue("webhook", webhook(&options)?, mode, batches));
        }
        let (queues, writers) = opened.into_iter().unzip();
        let audit = Audit {
            policy: self.policy,
            queues,
        };
        Ok((audit, Writers(writers)))
    }
}

fn check(backend: &'static str, batches: BatchOptions) -> Result<(), AuditOptionsError> {
    if batches.buffer == 0 || batches.max_size == 0 {
        return Err(AuditOptionsError::Batch { backend });
    }
    Ok(())
}

fn webhook(options: &WebhookOptions) -> Result<Sink, AuditOptionsError> {
    let wrong = |text: &str| AuditOptionsError::Webhook(text.to_owned());
    let config = Kubeconfig::from_yaml(&options.kubeconfig)?;
    let context = config.current_context.as_deref().unwrap_or_default();
    let context = config.contexts.iter().find(|named| named.name == context);
    let context = context
        .and_then(|named| named.context.as_ref())
        .ok_or_else(|| wrong("the kubeconfig has no current context"))?;
    let clusters = config.clusters.iter();
    let cluster = clusters.filter(|named| named.name == context.cluster);
    let cluster = cluster
        .filter_map(|named| named.cluster.as_ref())
        .next()
        .ok_or_else(|| wrong("the context's cluster is not there"))?;
    let url = cluster
        .server
        .clone()
        .ok_or_else(|| wrong("the cluster has no server"))?;
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Err(wrong("insecure-skip-tls-verify is not supported"));
    }
    let authorities = text_of(
        "certificate-authority",
        cluster.certificate_authority.as_deref(),
        cluster.certificate_authority_data.as_deref(),
    )?;
    let mut headers = Vec::new();
    let mut identity = None;
    let name = context.user.as_deref().unwrap_or_default();
    let users = config.auth_infos.iter();
    let mut users = users.filter(|named| named.name == name);
    if let Some(user) = users.find_map(|named| named.auth_info.as_ref()) {
        if let Some(token) = &user.token {
            use secrecy::ExposeSecret;
            headers.push(bearer(token.expose_secret())?);
        }
        identity = identity_of(user)?;
    }
    let trust = Trust {
        authorities,
        identity,
    };
    Ok(Sink::Webhook(Box::new(Webhook {
        client: Outbound::new(&trust).map_err(|error| wrong(&error))?,
        url,
        headers,
        backoff: options.initial_backoff,
    })))
}

fn identity_of(
    user: &kube::config::AuthInfo,
) -> Result<Option<(String, String)>, AuditOptionsError> {
    use secrecy::ExposeSecret;
    let certificate = text_of(
        "client-certificate",
        user.client_certificate.as_deref(),
        user.client_certificate_data.as_deref(),
    )?;
    let data = user.client_key_data.as_ref();
    let key = text_of(
        "client-key",
        user.client_key.as_deref(),
        data.map(ExposeSecret::expose_secret),
    )?;
    Ok(certificate.zip(key))
}

fn bearer(token: &str) -> Result<(HeaderName, HeaderValue), AuditOptionsError> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value =
        value.map_err(|_| AuditOptionsError::Webhook("the token is not a header's text".into()))?;
    value.set_sensitive(true);
    Ok((header::AUTHORIZATION, value))
}

/// What a field of a kubeconfig says, as data or in a file.
fn text_of(
    field: &str,
    file: Option<&str>,
    data: Option<&str>,
) -> Result<Option<String>, AuditOptionsError> {
    let wrong = |error: &dyn std::fmt::Display| {
        AuditOptionsError::Webhook(format!("{field} of the kubeconfig: {error}"))
    };
    if let Some(data) = data {
        let bytes = BASE64.decode(data).map_err(|error| wrong(&error))?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(&error))?;
        return Ok(Some(text));
    }
    let Some(file) = file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    Ok(Some(text))
}
