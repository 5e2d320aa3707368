//! `windlass user`: certificates for people.

use std::time::Duration;

use anyhow::Context;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use windlass_control::kubeconfig;

use super::token::cluster_ca;
use crate::connection::{Connection, said};
use crate::output;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How long the signer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `windlass user`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a certificate for a user, and print a kubeconfig with it. What the user may do is up to roles.
    Create(CreateArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Name of the user.
    name: String,
    /// A group the user is in; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// How long the certificate lasts, from ten minutes to a year, such as `24h`.
    #[arg(long, value_name = "DURATION", default_value = "2160h")]
    ttl: SignedDuration,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the subcommand.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::Create(args) = args.command;
    let (client, server) = args.connection.client_and_server().await?;
    let ca = cluster_ca(&client).await?;
    let key = KeyPair::generate()?;
    let object = request(&args, &key)?;
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let params = PostParams::default();
    let mut made = api.create(&params, &object).await.map_err(said)?;
    let name = made.metadata.name.clone().unwrap_or_default();
    let now = Time(windlass_api::time::to_seconds(jiff::Timestamp::now()));
    let conditions = &mut made.status.get_or_insert_default().conditions;
    conditions
        .get_or_insert_default()
        .push(CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some("WindlassUserCreate".into()),
            message: Some("approved by whoever ran `windlass user create`".into()),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        });
    api.replace_subresource("approval", &name, &params, &made)
        .await
        .map_err(said)?;
    let certificate = signed(&api, &name).await?;
    let identity = (&*certificate, &*key.serialize_pem());
    let text = kubeconfig::for_certificate(&server, &ca, &args.name, identity);
    output::line(text.trim_end());
    Ok(())
}

fn request(args: &CreateArgs, key: &KeyPair) -> anyhow::Result<CertificateSigningRequest> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, args.name.as_str());
    for group in &args.groups {
        subject.push(DnType::OrganizationName, group.as_str());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let pem = params.serialize_request(key)?.pem()?;
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some("windlass-user-".into()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: SIGNER.into(),
            usages: Some(vec!["client auth".into()]),
            expiration_seconds: Some(args.ttl.as_secs().try_into().context("--ttl")?),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    })
}

/// The certificate, once it is there.
async fn signed(api: &Api<CertificateSigningRequest>, name: &str) -> anyhow::Result<String> {
    let is_decided = |request: Option<&CertificateSigningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| {
            let mut conditions = status.conditions.iter().flatten();
            status.certificate.is_some() || conditions.any(|of| of.type_ != "Approved")
        })
    };
    let decided = await_condition(api.clone(), name, is_decided);
    let decided = tokio::time::timeout(PATIENCE, decided).await;
    let decided =
        decided.context("nobody signs the request: is the server's controller running?")?;
    let status = decided?
        .and_then(|request| request.status)
        .unwrap_or_default();
    let Some(certificate) = status.certificate else {
        let mut conditions = status.conditions.into_iter().flatten();
        let why = conditions.find_map(|of| of.message.filter(|_| of.type_ != "Approved"));
        anyhow::bail!("the request was refused: {}", why.unwrap_or_default());
    };
    Ok(String::from_utf8(certificate.0)?)
}
