//! `windlass server`: the control plane alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use jiff::SignedDuration;
use windlass_control::admission::{AdmissionConfiguration, PodSecurityConfiguration};
use windlass_control::scheduler::Profiles;
use windlass_control::store::encryption::Encryption;
use windlass_control::{AddressRange, Config, ControlPlane};

use super::audit_options::AuditOptions;
use super::identity_options::IdentityOptions;
use crate::data_dir::{DataDir, kubeconfig_in};
use crate::{dashboard, output};

/// Arguments of `windlass server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    control_plane: ControlPlaneOptions,
    /// Serve the dashboard at this address, with the API's certificate; users sign in with a token or a client
    /// certificate.
    #[arg(long, value_name = "ADDR:PORT")]
    dashboard_listen: Option<SocketAddr>,
    /// How long a session of the dashboard lasts, such as `30m`; 12 hours if it is not given.
    #[arg(long, value_name = "DURATION", requires = "dashboard_listen")]
    dashboard_session: Option<SignedDuration>,
}

/// How a control plane is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ControlPlaneOptions {
    /// Address and port of the API; port 0 picks one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// A further name or address by which clients reach the API; may be given several times.
    #[arg(long = "tls-san", value_name = "NAME")]
    names: Vec<String>,
    /// Addresses that Services of type LoadBalancer get, such as `192.0.2.0/28` or `192.0.2.10-192.0.2.20`; may be
    /// given several times. Without it they get those of the nodes.
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    load_balancer_pool: Vec<AddressRange>,
    /// What the scheduler does: a file of kind `KubeSchedulerConfiguration`, whose profiles are schedulers
    /// that pods choose by `schedulerName`.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// What pods may ask of their nodes in namespaces that say nothing, and who is exempt: a file of kind
    /// `AdmissionConfiguration` with the configuration of the plugin `PodSecurity`.
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    /// Admission plugins to run besides those that run by default: `AlwaysPullImages`.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins not to run.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Serve no image registry.
    #[arg(long)]
    no_registry: bool,
    #[command(flatten)]
    encryption: EncryptionOptions,
    #[command(flatten)]
    identities: IdentityOptions,
    #[command(flatten)]
    audit: AuditOptions,
}

/// What is encrypted in the data file.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EncryptionOptions {
    /// What is encrypted in the data file and with which keys: a file of kind `EncryptionConfiguration` with the
    /// providers `aesgcm` and `identity`.
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
}

impl EncryptionOptions {
    pub(crate) fn read(&self) -> anyhow::Result<Encryption> {
        read(
            "encryption-provider-config",
            self.encryption_provider_config.as_ref(),
            Encryption::parse,
        )
    }
}

impl ControlPlaneOptions {
    fn schedulers(&self) -> anyhow::Result<Profiles> {
        read(
            "scheduler-config",
            self.scheduler_config.as_ref(),
            Profiles::parse,
        )
    }

    fn admission(&self) -> anyhow::Result<AdmissionConfiguration> {
        let mut admission = AdmissionConfiguration::default();
        admission.pod_security = read(
            "admission-control-config-file",
            self.admission_control_config_file.as_ref(),
            PodSecurityConfiguration::parse,
        )?;
        let enabled = admission.enable(&self.enable_admission_plugins);
        enabled.context("--enable-admission-plugins")?;
        let disabled = admission.disable(&self.disable_admission_plugins);
        disabled.context("--disable-admission-plugins")?;
        Ok(admission)
    }
}

/// What the file of an option says; the default without one.
pub(super) fn read<T: Default, E: std::error::Error + Send + Sync + 'static>(
    option: &str,
    path: Option<&PathBuf>,
    parse: fn(&str) -> Result<T, E>,
) -> anyhow::Result<T> {
    let Some(text) = file_text(option, path)? else {
        return Ok(T::default());
    };
    parse(&text).with_context(|| place(option, path))
}

/// The text of the file of an option, if one is given.
pub(super) fn file_text(option: &str, path: Option<&PathBuf>) -> anyhow::Result<Option<String>> {
    let text = path.map(std::fs::read_to_string).transpose();
    text.with_context(|| place(option, path))
}

/// What an error about the file of an option begins with.
pub(super) fn place(option: &str, path: Option<&PathBuf>) -> String {
    let path = path.map(|path| path.display().to_string());
    format!("--{option} {}", path.unwrap_or_default())
}

/// Runs until interrupted.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let life = args.dashboard_session.map(Duration::try_from).transpose();
    let life = life.context("--dashboard-session")?;
    anyhow::ensure!(
        life != Some(Duration::ZERO),
        "--dashboard-session: a session has to last for some time, such as 30m"
    );
    let mut plane = start(&args.data_dir, &args.control_plane).await?;
    output::step(&format!("the API serves at https://{}", plane.address()));
    print_kubeconfig(&args.data_dir)?;
    if let Some(address) = args.dashboard_listen {
        let address = dashboard::serve(&mut plane, address, life).await?;
        output::step(&format!("the dashboard is at https://{address}"));
    }
    interrupted().await?;
    output::step("stopping");
    plane.shutdown().await;
    Ok(())
}

/// Starts a control plane and writes its kubeconfig.
pub(crate) async fn start(
    data_dir: &DataDir,
    options: &ControlPlaneOptions,
) -> anyhow::Result<ControlPlane> {
    let directory = data_dir.path()?;
    let mut config = Config::new(directory.clone());
    config.listen = options.listen;
    config.names.clone_from(&options.names);
    config
        .load_balancer_pool
        .clone_from(&options.load_balancer_pool);
    config.schedulers = options.schedulers()?;
    config.admission = options.admission()?;
    config.encryption = options.encryption.read()?;
    config.admin_kubeconfig = Some(kubeconfig_in(&directory));
    options.identities.set(&mut config)?;
    config.audit = options.audit.read()?;
    config.image_registry = !options.no_registry;
    Ok(ControlPlane::start(config).await?)
}

/// Prints the line that makes kubectl use this cluster.
pub(crate) fn print_kubeconfig(data_dir: &DataDir) -> anyhow::Result<()> {
    output::line(&format!(
        "export KUBECONFIG={}",
        data_dir.kubeconfig()?.display()
    ));
    Ok(())
}

/// Returns on the first Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
