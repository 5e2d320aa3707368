//! Runs the pods of a folder, or those that an API server binds to it: see README.md.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use embed::{Stock, runtime};
use tokio_util::sync::CancellationToken;
use windlass_node::NodeAgent;
use windlass_node::local::{Folder, LocalApi, LocalConfig, LocalEvent};
use windlass_node::registration::bootstrap::{self, JoinRequest, JoinToken};
use windlass_node::server::tls::DaemonTls;

/// Hosts a node agent whose pods may use this program's stock.
#[derive(Debug, Parser)]
struct Args {
    /// Folder with object files of pods.
    #[arg(required_unless_present = "server")]
    folder: Option<PathBuf>,
    /// API server to join instead, such as https://127.0.0.1:6443.
    #[arg(
        long,
        value_name = "URL",
        requires = "token_file",
        conflicts_with = "folder"
    )]
    server: Option<String>,
    /// File with the token that `windlass token create` printed.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where images, logs and compiled components are kept.
    #[arg(long, value_name = "DIR", default_value = "embed-data")]
    data_dir: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let stock = Stock::of([("apples", 5), ("pears", 1)]);
    let stop = CancellationToken::new();
    let running = match (&args.folder, &args.server, &args.token_file) {
        (Some(folder), ..) => tokio::spawn(from_folder(
            folder.clone(),
            args.data_dir.clone(),
            stock.clone(),
            stop.clone(),
        )),
        (None, Some(server), Some(token)) => tokio::spawn(from_server(
            server.clone(),
            token.clone(),
            args.data_dir.clone(),
            stock.clone(),
            stop.clone(),
        )),
        _ => anyhow::bail!("a folder, or --server with --token-file"),
    };
    // Signals are this program's business: the agent does not listen to any.
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    running.await??;
    for (container, item) in stock.taken() {
        println!("{container} took {item}");
    }
    Ok(())
}

/// Pods come from files, and what happens to them is told by events.
async fn from_folder(
    folder: PathBuf,
    data_dir: PathBuf,
    stock: Stock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let config = LocalConfig {
        node_name: "embedded".to_owned(),
        pod_cidr: "10.64.0.0/24".to_owned(),
    };
    let api = LocalApi::open(config, &data_dir.join("registry")).await?;
    let agent = NodeAgent::builder()
        .client(api.client())
        .name("embedded")
        .runtime(Arc::new(runtime(&stock, &data_dir.join("compiled"))?))
        .data_dir(data_dir)
        .build()
        .await?;
    let mut events = api.events();
    let following = tokio::spawn(Folder::new(api, folder).follow());
    let telling = tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            tell(&event);
        }
    });
    agent.run(stop).await;
    following.abort();
    telling.abort();
    Ok(())
}

fn tell(event: &LocalEvent) {
    match event {
        LocalEvent::Status(pod) => {
            let status = pod.status.as_ref();
            let phase = status.and_then(|status| status.phase.as_deref());
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            println!("pod {name}: {}", phase.unwrap_or("Pending"));
        }
        LocalEvent::Event(event) => {
            let name = event.involved_object.name.as_deref().unwrap_or_default();
            let reason = event.reason.as_deref().unwrap_or_default();
            let message = event.message.as_deref().unwrap_or_default();
            println!("pod {name}: {reason}: {message}");
        }
        LocalEvent::Removed { name, .. } => println!("pod {name}: gone"),
        LocalEvent::Refused { file, message } => println!("{file}: {message}"),
        other => println!("{other:?}"),
    }
}

/// Pods come from an API server, Windlass or another one, that this node joins with a token.
async fn from_server(
    server: String,
    token_file: PathBuf,
    data_dir: PathBuf,
    stock: Stock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let request = JoinRequest {
        server,
        node_name: "embedded".to_owned(),
        addresses: vec![[127, 0, 0, 1].into()],
        directory: data_dir.join("pki"),
    };
    let certificates = match bootstrap::load(&request.directory)? {
        Some(found) => found,
        None => {
            let token = std::fs::read_to_string(&token_file);
            let token: JoinToken = token.context("read the token")?.parse()?;
            bootstrap::bootstrap(&request, &token).await?
        }
    };
    let (serving, ca) = (&certificates.serving, certificates.ca_pem.as_bytes());
    let tls = DaemonTls::new(
        serving.certificate_pem.as_bytes(),
        serving.key_pem.as_bytes(),
        ca,
        Vec::new(),
    )?;
    let agent = NodeAgent::builder()
        .client(certificates.client(&request)?)
        .name(request.node_name.clone())
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .tls(tls)
        .runtime(Arc::new(runtime(&stock, &data_dir.join("compiled"))?))
        .data_dir(data_dir)
        .build()
        .await?;
    let mut registered = agent.registered();
    tokio::spawn(async move {
        if registered.wait_for(|registered| *registered).await.is_ok() {
            println!("node embedded has joined");
        }
    });
    agent.run(stop).await;
    Ok(())
}
