//! The `windlass` binary: one file per subcommand in `cmd/`.
//!
//! `up` is `server` and `agent` in one process with the manifests applied; the three share their code.
//! The binary is also the network plugin that containerd runs for its agent's pods.
//! Exit codes: 0 done, 1 failed, 2 wrong usage (clap's).

mod apply;
mod cmd;
mod connection;
mod dashboard;
mod data_dir;
mod logging;
mod node;
mod object_files;
mod output;
mod privileges;
mod readiness;
mod registries;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use windlass_node::network::run_plugin;

/// A WebAssembly-first orchestrator that speaks the Kubernetes API.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    /// What to log, such as `info` or `windlass_control=debug`; also from WINDLASS_LOG.
    #[arg(long, global = true, value_name = "FILTER", env = "WINDLASS_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a control plane and a node in this process, and apply manifests to it.
    Up(Box<cmd::up::Args>),
    /// Run the control plane alone.
    Server(Box<cmd::server::Args>),
    /// Run a node agent that joins a server.
    Agent(Box<cmd::agent::Args>),
    /// Apply manifests to a running server.
    Apply(cmd::apply::Args),
    /// Push WebAssembly components to the server's image registry.
    Push(cmd::push::Args),
    /// Manage the tokens with which nodes join.
    Token(cmd::token::Args),
    /// Manage users.
    User(cmd::user::Args),
    /// Manage the certificate authority and the keys of tokens of a server on this machine.
    Ca(cmd::ca::Args),
    /// Encrypt the data of a server that does not run as its keys say now.
    Reencrypt(cmd::reencrypt::Args),
    /// Print the kubeconfig of a server on this machine.
    Kubeconfig(cmd::kubeconfig::Args),
    /// Print versions.
    Version(cmd::version::Args),
}

fn main() -> ExitCode {
    if let Some(code) = as_network_plugin() {
        return code;
    }
    let cli = Cli::parse();
    logging::start(cli.log.as_deref());
    let outcome = match cli.command {
        Command::Up(args) => args
            .runs_linux()
            .and_then(|linux| serve(linux, cmd::up::run(*args))),
        Command::Server(args) => serve(false, cmd::server::run(*args)),
        Command::Agent(args) => args
            .needs_root()
            .and_then(|linux| serve(linux, cmd::agent::run(*args))),
        Command::Apply(args) => run(cmd::apply::run(args)),
        Command::Push(args) => run(cmd::push::run(args)),
        Command::Token(args) => run(cmd::token::run(args)),
        Command::User(args) => run(cmd::user::run(args)),
        Command::Ca(args) => cmd::ca::run(&args),
        Command::Reencrypt(args) => cmd::reencrypt::run(&args),
        Command::Kubeconfig(args) => cmd::kubeconfig::run(&args),
        Command::Version(args) => cmd::version::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Does as a CNI plugin, if that is what this was run as: without a command, by whoever sets that variable.
fn as_network_plugin() -> Option<ExitCode> {
    if std::env::args_os().len() > 1 || std::env::var_os("CNI_COMMAND").is_none() {
        return None;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let done = run_plugin(variable, std::io::stdin(), &mut std::io::stdout());
    Some(match done {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Runs a command that others connect to, with no more rights than it needs: containers of Linux take all of root's.
fn serve(
    runs_linux: bool,
    command: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    if !runs_linux {
        privileges::drop_unneeded().context("give up the rights that are not needed")?;
    }
    run(command)
}

/// Runs a command on the system runtime: API, agent and proxies. Guests have a runtime of their own.
fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
