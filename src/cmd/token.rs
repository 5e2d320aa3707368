//! `windlass token`.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use windlass_node::registration::bootstrap::{ca_hash, cluster_info_ca};

use crate::connection::Connection;
use crate::output;

/// Characters of a token.
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Arguments of `windlass token`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a token with which nodes join, and print it.
    Create(CreateArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// How long the token may be used, such as `2h`.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    ttl: SignedDuration,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::Create(args) = args.command;
    let client = args.connection.client().await?;
    let (id, secret) = (random(6), random(16));
    let expiration = Timestamp::now()
        .checked_add(args.ttl)
        .context("the token would last too long")?;
    let data = BTreeMap::from([
        ("token-id", id.clone()),
        ("token-secret", secret.clone()),
        ("expiration", windlass_api::time::format_seconds(expiration)),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "false".to_owned()),
    ]);
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(format!("bootstrap-token-{id}")),
            ..ObjectMeta::default()
        },
        type_: Some("bootstrap.kubernetes.io/token".into()),
        string_data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    secrets
        .create(&PostParams::default(), &object)
        .await
        .context("create the token's Secret")?;
    let hash = ca_hash(cluster_ca(&client).await?.as_bytes())?;
    output::line(&format!("{id}.{secret}:sha256:{hash}"));
    Ok(())
}

fn random(length: usize) -> String {
    use rand::seq::IndexedRandom;
    let mut rng = rand::rng();
    (0..length)
        .filter_map(|_| ALPHABET.choose(&mut rng))
        .map(|byte| char::from(*byte))
        .collect()
}

/// The authority that a joining node is to find.
pub(super) async fn cluster_ca(client: &kube::Client) -> anyhow::Result<String> {
    let found = cluster_info_ca(client).await;
    found.context("read ConfigMap kube-public/cluster-info")
}
