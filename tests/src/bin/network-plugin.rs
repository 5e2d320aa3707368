//! The network plugin alone, for tests in which containerd has to run one.

use std::process::ExitCode;

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let done =
        windlass_node::network::run_plugin(variable, std::io::stdin(), &mut std::io::stdout());
    match done {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
