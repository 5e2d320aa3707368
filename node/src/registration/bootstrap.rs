//! Joins a cluster: from a token to certificates of the node's own.
//!
//! 1. The token file holds `ID.SECRET:sha256:HEX`: a bootstrap token, and the digest of the public key of
//!    the cluster's CA.
//! 2. ConfigMap `kube-public/cluster-info` is fetched without trusting anybody; of the CAs in it, that one is
//!    trusted which has that digest. Whatever else is to be trusted is read anew over a connection to it.
//! 3. With the token, two CertificateSigningRequests are posted: for the node's client certificate and for
//!    the serving certificate of its daemon endpoint; both are signed by the control plane.
//! 4. Keys never leave the node. Keys and certificates are kept in the data directory, keys with mode 0600,
//!    and are requested again, with the certificate instead of the token, when a third of their life is
//!    left. [`RenewableClient`] goes on with the new ones.
//!
//! Spec: the digest is that of the SubjectPublicKeyInfo, as kubeadm writes it.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::config::{AuthInfo, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const SIGNED_WITHIN: Duration = Duration::from_secs(120);

/// What a new node is given to join with.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The bootstrap token: `ID.SECRET`.
    token: String,
    /// SHA-256 of the CA's public key, in hexadecimal.
    ca_hash: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret does not belong in a log.
        formatter
            .debug_struct("JoinToken")
            .field("ca_hash", &self.ca_hash)
            .finish_non_exhaustive()
    }
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The token file's line is malformed.
    #[error("malformed join token: want ID.SECRET:sha256:HEX")]
    Token,
    /// The server's CA is not the one the token names.
    #[error(
        "the server's CA has public key hash sha256:{found}, the join token says sha256:{expected}"
    )]
    CaMismatch {
        /// What the server showed.
        found: String,
        /// What the token says.
        expected: String,
    },
    /// `cluster-info` has no usable CA.
    #[error("ConfigMap kube-public/cluster-info: {0}")]
    ClusterInfo(String),
    /// The API server can't be reached or refuses.
    #[error("API server: {0}")]
    Api(#[source] Box<kube::Error>),
    /// A client configuration can't be made.
    #[error("client configuration: {0}")]
    Config(String),
    /// A request was denied.
    #[error("CertificateSigningRequest {name} was denied: {message}")]
    Denied {
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// Nobody signed a request in time.
    #[error(
        "CertificateSigningRequest {name} was not signed within {} s; where nobody approves such requests by themselves, \
         `kubectl certificate approve {name}` does",
        SIGNED_WITHIN.as_secs()
    )]
    NotSigned {
        /// Its name.
        name: String,
    },
    /// A key or request can't be made.
    #[error("certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate on disk or from the server can't be read.
    #[error("malformed certificate")]
    Certificate,
}

impl From<kube::Error> for BootstrapError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl FromStr for JoinToken {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let (token, hash) = text
            .trim()
            .split_once(":sha256:")
            .ok_or(BootstrapError::Token)?;
        let (id, secret) = token.split_once('.').ok_or(BootstrapError::Token)?;
        let plain = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plain(id, 6) || !plain(secret, 16) || !is_hash {
            return Err(BootstrapError::Token);
        }
        Ok(Self {
            token: token.to_owned(),
            ca_hash: hash.to_lowercase(),
        })
    }
}

/// The digest a join token names a CA by: SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
///
/// # Errors
/// The PEM holds no certificate.
pub fn ca_hash(ca_pem: &[u8]) -> Result<String, BootstrapError> {
    let der = CertificateDer::from_pem_slice(ca_pem).map_err(|_| BootstrapError::Certificate)?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|_| BootstrapError::Certificate)?;
    let digest = Sha256::digest(certificate.public_key().raw);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// One key with its certificate, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain.
    pub certificate_pem: String,
    /// Private key.
    pub key_pem: String,
}

/// What a node is in a cluster.
#[derive(Clone)]
pub struct NodeCertificates {
    /// Certificate of the cluster's CA.
    pub ca_pem: String,
    /// What the node shows to the API server.
    pub client: Identity,
    /// What the daemon endpoint serves with.
    pub serving: Identity,
}

/// Where and as what a node joins.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// URL of the API server.
    pub server: String,
    /// Name of the node.
    pub node_name: String,
    /// Addresses of its daemon endpoint.
    pub addresses: Vec<IpAddr>,
    /// Where keys and certificates are kept.
    pub directory: PathBuf,
}

impl NodeCertificates {
    /// When to request new ones: a third of the shorter life before its end.
    ///
    /// # Errors
    /// A certificate can't be read.
    pub fn renew_at(&self) -> Result<Timestamp, BootstrapError> {
        let client = renew_at(&self.client.certificate_pem)?;
        Ok(client.min(renew_at(&self.serving.certificate_pem)?))
    }

    /// A client that is the node.
    ///
    /// # Errors
    /// The server's URL or a certificate can't be used.
    pub fn client(&self, request: &JoinRequest) -> Result<Client, BootstrapError> {
        let auth = AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&self.client.certificate_pem)),
            client_key_data: Some(STANDARD.encode(&self.client.key_pem).into()),
            ..AuthInfo::default()
        };
        client(&request.server, Some(&self.ca_pem), auth)
    }
}

/// A client whose certificate is replaced while it is in use.
#[derive(Clone)]
pub struct RenewableClient(Arc<ArcSwap<Client>>);

impl RenewableClient {
    /// Begins with `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(client)))
    }

    /// Sends the requests from now on by `client`.
    pub fn replace(&self, client: Client) {
        self.0.store(Arc::new(client));
    }

    /// A client that always sends by the present one.
    #[must_use]
    pub fn client(&self) -> Client {
        let current = Arc::clone(&self.0);
        let namespace = current.load().default_namespace().to_owned();
        let service = tower::service_fn(move |request| {
            let client = current.load_full();
            async move { client.send(request).await }
        });
        Client::new(service, namespace)
    }
}

fn renew_at(pem: &str) -> Result<Timestamp, BootstrapError> {
    let malformed = || BootstrapError::Certificate;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
    let validity = certificate.validity();
    let (from, to) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    Timestamp::from_second(to - (to - from) / 3).map_err(|_| malformed())
}

/// The certificates kept from an earlier start, if they are whole and not yet due.
///
/// # Errors
/// Files are there but can't be read.
pub fn load(directory: &Path) -> Result<Option<NodeCertificates>, BootstrapError> {
    let read = |name: &str| {
        let path = directory.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BootstrapError::File { path, source }),
        }
    };
    let identity = |name: &str| -> Result<Option<Identity>, BootstrapError> {
        let certificate = read(&format!("{name}.crt"))?;
        let key = read(&format!("{name}.key"))?;
        Ok(certificate
            .zip(key)
            .map(|(certificate_pem, key_pem)| Identity {
                certificate_pem,
                key_pem,
            }))
    };
    let (Some(ca_pem), Some(client), Some(serving)) =
        (read("ca.crt")?, identity("client")?, identity("serving")?)
    else {
        return Ok(None);
    };
    let found = NodeCertificates {
        ca_pem,
        client,
        serving,
    };
    Ok((found.renew_at()? > Timestamp::now()).then_some(found))
}

/// Joins with a token, or takes the certificates kept from an earlier start.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn bootstrap(
    request: &JoinRequest,
    token: &JoinToken,
) -> Result<NodeCertificates, BootstrapError> {
    if let Some(found) = load(&request.directory)? {
        return Ok(found);
    }
    let ca_pem = fetch_ca(&request.server, &token.ca_hash).await?;
    let auth = AuthInfo {
        token: Some(token.token.clone().into()),
        ..AuthInfo::default()
    };
    let with_token = client(&request.server, Some(&ca_pem), auth)?;
    let identity = request_client(&with_token, &request.node_name).await?;
    let ca_pem = trusted_by_now(request, &ca_pem).await?;
    // The node itself requests its serving certificate, since a token may not speak for one.
    let auth = AuthInfo {
        client_certificate_data: Some(STANDARD.encode(&identity.certificate_pem)),
        client_key_data: Some(STANDARD.encode(&identity.key_pem).into()),
        ..AuthInfo::default()
    };
    let as_node = client(&request.server, Some(&ca_pem), auth)?;
    let serving = request_serving(&as_node, request).await?;
    let certificates = NodeCertificates {
        ca_pem,
        client: identity,
        serving,
    };
    save(&request.directory, &certificates)?;
    Ok(certificates)
}

/// Requests new certificates as the node itself and keeps them.
///
/// # Errors
/// See [`BootstrapError`]; the old certificates stay in use.
pub async fn renew(
    request: &JoinRequest,
    current: &NodeCertificates,
) -> Result<NodeCertificates, BootstrapError> {
    let as_node = current.client(request)?;
    let certificates = NodeCertificates {
        ca_pem: refreshed_ca(request, &current.ca_pem).await,
        client: request_client(&as_node, &request.node_name).await?,
        serving: request_serving(&as_node, request).await?,
    };
    save(&request.directory, &certificates)?;
    Ok(certificates)
}

/// Takes over and keeps whom the cluster trusts by now. Without an answer the node goes on with what it knows.
pub async fn refresh_ca(request: &JoinRequest, mut known: NodeCertificates) -> NodeCertificates {
    let ca_pem = refreshed_ca(request, &known.ca_pem).await;
    if ca_pem != known.ca_pem {
        known.ca_pem = ca_pem;
        if let Err(error) = save(&request.directory, &known) {
            tracing::warn!(%error, "keep whom the cluster trusts by now");
        }
    }
    known
}

/// Whom the cluster trusts by now, else whom the node knows: a server need not answer strangers.
async fn refreshed_ca(request: &JoinRequest, known: &str) -> String {
    match trusted_by_now(request, known).await {
        Ok(ca_pem) => ca_pem,
        Err(error) => {
            tracing::warn!(%error, "read whom the cluster trusts by now");
            known.to_owned()
        }
    }
}

fn client(server: &str, ca_pem: Option<&str>, auth: AuthInfo) -> Result<Client, BootstrapError> {
    let malformed = |error: &dyn std::fmt::Display| BootstrapError::Config(error.to_string());
    let mut config = Config::new(server.parse().map_err(|error| malformed(&error))?);
    config.auth_info = auth;
    match ca_pem {
        Some(pem) => {
            let all = CertificateDer::pem_slice_iter(pem.as_bytes());
            let all: Result<Vec<_>, _> = all.map(|der| der.map(|der| der.to_vec())).collect();
            config.root_cert = Some(all.map_err(|_| BootstrapError::Certificate)?);
        }
        None => config.accept_invalid_certs = true,
    }
    Client::try_from(config).map_err(|error| malformed(&error))
}

/// Whom the cluster trusts by now, from a server that `ca_pem` vouches for. It is asked as by anybody: that is all who may
/// read it in a cluster that kubeadm made.
async fn trusted_by_now(request: &JoinRequest, ca_pem: &str) -> Result<String, BootstrapError> {
    let anybody = client(&request.server, Some(ca_pem), AuthInfo::default())?;
    cluster_info_ca(&anybody).await
}

/// Fetches the CA from a server nobody vouches for yet, and checks it against the token.
async fn fetch_ca(server: &str, expected: &str) -> Result<String, BootstrapError> {
    let anybody = client(server, None, AuthInfo::default())?;
    let ca = cluster_info_ca(&anybody).await?;
    trusted(&ca, expected)
}

/// The one certificate of `ca` that has the digest; the others are nobody's word.
fn trusted(ca: &str, expected: &str) -> Result<String, BootstrapError> {
    let mut found = ca_hash(ca.as_bytes())?;
    for part in ca.split_inclusive("-----END CERTIFICATE-----") {
        let Ok(hash) = ca_hash(part.as_bytes()) else {
            continue;
        };
        if hash == expected {
            return Ok(format!("{}\n", part.trim()));
        }
        found = hash;
    }
    Err(BootstrapError::CaMismatch {
        found,
        expected: expected.to_owned(),
    })
}

/// What `cluster-info` says is to be trusted, in PEM; worth as much as the client's connection.
///
/// # Errors
/// It can't be read, or names nobody.
pub async fn cluster_info_ca(client: &Client) -> Result<String, BootstrapError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let info = api.get("cluster-info").await?;
    let malformed = |text: &str| BootstrapError::ClusterInfo(text.to_owned());
    let data = info.data.as_ref();
    let kubeconfig = data.and_then(|data| data.get("kubeconfig"));
    let kubeconfig = kubeconfig.ok_or_else(|| malformed("has no key kubeconfig"))?;
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)
        .map_err(|error| malformed(&format!("malformed kubeconfig: {error}")))?;
    let ca = kubeconfig
        .clusters
        .first()
        .and_then(|cluster| cluster.cluster.as_ref()?.certificate_authority_data.clone())
        .ok_or_else(|| malformed("names no certificate-authority-data"))?;
    let ca = STANDARD
        .decode(ca)
        .map_err(|_| malformed("malformed certificate-authority-data"))?;
    String::from_utf8(ca).map_err(|_| BootstrapError::Certificate)
}

async fn request_client(api: &Client, node_name: &str) -> Result<Identity, BootstrapError> {
    let usages = ["digital signature", "client auth"];
    request(api, node_name, CLIENT_SIGNER, &usages, Vec::new()).await
}

async fn request_serving(api: &Client, join: &JoinRequest) -> Result<Identity, BootstrapError> {
    let usages = ["digital signature", "server auth"];
    let mut names: Vec<SanType> = join
        .addresses
        .iter()
        .copied()
        .map(SanType::IpAddress)
        .collect();
    names.push(SanType::DnsName(join.node_name.as_str().try_into()?));
    request(api, &join.node_name, SERVING_SIGNER, &usages, names).await
}

/// Makes a key, posts a request for it and waits for the certificate.
async fn request(
    client: &Client,
    node_name: &str,
    signer: &str,
    usages: &[&str],
    names: Vec<SanType>,
) -> Result<Identity, BootstrapError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = names;
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("system:node:{node_name}"));
    let pem = parameters.serialize_request(&key)?.pem()?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let posted = api
        .create(
            &PostParams::default(),
            &CertificateSigningRequest {
                metadata: ObjectMeta {
                    name: Some(format!("node-csr-{:016x}", rand::random::<u64>())),
                    ..ObjectMeta::default()
                },
                spec: CertificateSigningRequestSpec {
                    request: ByteString(pem.into_bytes()),
                    signer_name: signer.to_owned(),
                    usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
                    ..CertificateSigningRequestSpec::default()
                },
                status: None,
            },
        )
        .await?;
    let name = posted.metadata.name.unwrap_or_default();
    let certificate_pem = signed(&api, &name).await?;
    Ok(Identity {
        certificate_pem,
        key_pem: key.serialize_pem(),
    })
}

/// Waits until a request is signed or denied.
async fn signed(
    api: &Api<CertificateSigningRequest>,
    name: &str,
) -> Result<String, BootstrapError> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api.clone(), config)
        .default_backoff()
        .applied_objects()
        .boxed();
    let answered = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(found) => {
                    if let Some(answer) = answer(name, &found) {
                        return answer;
                    }
                }
                Err(error) => tracing::warn!(%error, name, "watch failed, will resume"),
            }
        }
        Err(BootstrapError::NotSigned {
            name: name.to_owned(),
        })
    };
    let not_signed = |_| BootstrapError::NotSigned {
        name: name.to_owned(),
    };
    tokio::time::timeout(SIGNED_WITHIN, answered)
        .await
        .map_err(not_signed)?
}

fn answer(name: &str, found: &CertificateSigningRequest) -> Option<Result<String, BootstrapError>> {
    let status = found.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let refused = conditions.find(|found| matches!(found.type_.as_str(), "Denied" | "Failed"));
    if let Some(refused) = refused {
        let message = refused.message.clone().unwrap_or_default();
        return Some(Err(BootstrapError::Denied {
            name: name.to_owned(),
            message,
        }));
    }
    let certificate = status
        .certificate
        .clone()
        .filter(|bytes| !bytes.0.is_empty())?;
    Some(String::from_utf8(certificate.0).map_err(|_| BootstrapError::Certificate))
}

/// Writes keys and certificates, each file whole or not at all.
fn save(directory: &Path, certificates: &NodeCertificates) -> Result<(), BootstrapError> {
    let failed = |source| BootstrapError::File {
        path: directory.to_owned(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let files = [
        ("ca.crt", &certificates.ca_pem),
        ("client.key", &certificates.client.key_pem),
        ("client.crt", &certificates.client.certificate_pem),
        ("serving.key", &certificates.serving.key_pem),
        ("serving.crt", &certificates.serving.certificate_pem),
    ];
    for (name, text) in files {
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        write_whole(&directory.join(name), text.as_bytes(), mode)?;
    }
    Ok(())
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), BootstrapError> {
    let partial = path.with_extension("partial");
    let write = || {
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|source| BootstrapError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_join_token_is_read_and_its_secret_not_shown() {
        let token: JoinToken = format!("abcdef.0123456789abcdef:sha256:{HASH}\n")
            .parse()
            .unwrap();
        assert_eq!(token.token, "abcdef.0123456789abcdef");
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
        let bad = [
            String::new(),
            "abcdef.0123456789abcdef".to_owned(),
            format!("abcdef.short:sha256:{HASH}"),
            format!("ABCDEF.0123456789abcdef:sha256:{HASH}"),
            "abcdef.0123456789abcdef:sha256:00".to_owned(),
        ];
        for text in bad {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }

    fn identity() -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    #[test]
    fn certificates_are_kept_with_private_keys() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).unwrap().is_none());
        let certificates = NodeCertificates {
            ca_pem: identity().certificate_pem,
            client: identity(),
            serving: identity(),
        };
        save(directory.path(), &certificates).unwrap();
        save(directory.path(), &certificates).unwrap();
        let found = load(directory.path()).unwrap().unwrap();
        assert_eq!(found.client.key_pem, certificates.client.key_pem);
        let mode = std::fs::metadata(directory.path().join("client.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ca_hash(certificates.ca_pem.as_bytes()).unwrap().len(), 64);
    }

    #[test]
    fn of_several_authorities_only_the_one_with_the_digest_is_believed() {
        let (first, second) = (identity().certificate_pem, identity().certificate_pem);
        let both = format!("{first}{second}");
        let hash = ca_hash(second.as_bytes()).unwrap();
        let found = trusted(&both, &hash).unwrap();
        assert_eq!(found.trim(), second.trim().replace("\r\n", "\n"));
        let refused = trusted(&both, HASH);
        assert!(matches!(refused, Err(BootstrapError::CaMismatch { .. })));
    }

    #[test]
    fn a_refused_request_says_why() {
        let denied: CertificateSigningRequest = serde_json::from_value(serde_json::json!({
            "metadata": {}, "spec": { "request": "", "signerName": "x" },
            "status": { "conditions": [{ "type": "Denied", "status": "True", "message": "no" }] },
        }))
        .unwrap();
        let error = answer("n", &denied).unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "CertificateSigningRequest n was denied: no"
        );
        let open = CertificateSigningRequest {
            status: None,
            ..denied
        };
        assert!(answer("n", &open).is_none());
    }
}
