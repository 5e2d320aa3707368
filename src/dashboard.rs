//! The dashboard as this binary serves it: files from its build, an address, a link to log in.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use windlass_control::ControlPlane;
use windlass_control::dashboard::{DashboardConfig, Files};
use windlass_control::identity::{MASTERS, UserInfo};

include!(concat!(env!("OUT_DIR"), "/dashboard_files.rs"));

/// How long a session lasts where nobody says otherwise.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Serves the dashboard of `windlass up`, on loopback without TLS; answers a link that logs the administrator in
/// once.
pub(crate) async fn serve_locally(
    plane: &mut ControlPlane,
    address: SocketAddr,
) -> anyhow::Result<String> {
    anyhow::ensure!(
        address.ip().is_loopback(),
        "--dashboard-listen {address}: without TLS the dashboard is served on loopback only; `windlass server` serves it with TLS"
    );
    let config = DashboardConfig {
        files: FILES,
        secure: false,
        session_life: SESSION_LIFE,
    };
    let (dashboard, address) = plane
        .serve_dashboard(address, config)
        .await
        .context("--dashboard-listen")?;
    let admin = UserInfo::authenticated("kubernetes-admin", &[MASTERS]);
    Ok(format!("http://{address}{}", dashboard.login_link(admin)))
}

/// Serves the dashboard of `windlass server`, with the API's certificate; answers where it is.
pub(crate) async fn serve(
    plane: &mut ControlPlane,
    address: SocketAddr,
    session_life: Option<Duration>,
) -> anyhow::Result<SocketAddr> {
    let config = DashboardConfig {
        files: FILES,
        secure: true,
        session_life: session_life.unwrap_or(SESSION_LIFE),
    };
    let (_, address) = plane
        .serve_dashboard(address, config)
        .await
        .context("--dashboard-listen")?;
    Ok(address)
}
