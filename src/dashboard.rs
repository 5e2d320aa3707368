//! The dashboard as this binary serves it: files from its build, an address, a link to log in.

use std::net::SocketAddr;

use anyhow::Context;
use windlass_control::ControlPlane;
use windlass_control::dashboard::Files;
use windlass_control::identity::{MASTERS, UserInfo};

include!(concat!(env!("OUT_DIR"), "/dashboard_files.rs"));

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
    let (dashboard, address) = plane
        .serve_dashboard(address, false, FILES)
        .await
        .context("--dashboard-listen")?;
    let admin = UserInfo::authenticated("kubernetes-admin", &[MASTERS]);
    Ok(format!("http://{address}{}", dashboard.login_link(admin)))
}

/// Serves the dashboard of `windlass server`, with the API's certificate; answers where it is.
pub(crate) async fn serve(
    plane: &mut ControlPlane,
    address: SocketAddr,
) -> anyhow::Result<SocketAddr> {
    let (_, address) = plane
        .serve_dashboard(address, true, FILES)
        .await
        .context("--dashboard-listen")?;
    Ok(address)
}
