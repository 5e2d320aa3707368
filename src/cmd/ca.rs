//! `windlass ca`: the cluster's certificate authority and the keys of ServiceAccount tokens, on the machine of the
//! server. A server that runs takes changes over at once; they are small steps, so that nobody is locked out in between.

use std::path::{Path, PathBuf};

use anyhow::Context;
use windlass_control::pki::manage;

use crate::data_dir::DataDir;
use crate::output;

/// Arguments of `windlass ca`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print which authorities are trusted, which of them issues, and the keys of tokens.
    Show(DataDir),
    /// Trust another authority, a new one or your own, beside those that are. It issues nothing yet: agents and
    /// kubeconfigs have to learn of it first.
    Add(AddArgs),
    /// Have an authority issue certificates from now on. Those of the others stay valid.
    Use(Chosen),
    /// Trust an authority no more. Certificates of it are refused from then on.
    Remove(Chosen),
    /// Sign tokens with a new key. Those of the keys before stay valid.
    RotateTokenKey(DataDir),
    /// Refuse tokens that were signed with another key than the present one.
    RetireTokenKeys(DataDir),
}

/// One of the authorities.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Its id, as `show` prints it.
    id: String,
    #[command(flatten)]
    data_dir: DataDir,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The authority's certificate in PEM; if another authority has issued it, followed by that one's.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key in PEM, as PKCS#8.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let pki = |data_dir: &DataDir| anyhow::Ok(data_dir.path()?.join("pki"));
    match &args.command {
        Command::Show(data_dir) => show(&pki(data_dir)?)?,
        Command::Add(files) => {
            let own = files.certificate.as_deref().zip(files.key.as_deref());
            let own = own.map(|(certificate, key)| anyhow::Ok((read(certificate)?, read(key)?)));
            let own = own.transpose()?;
            let own = own
                .as_ref()
                .map(|(certificate, key)| (&**certificate, &**key));
            let id = manage::add(&pki(&files.data_dir)?, own)?;
            output::line(&id);
            output::step(&format!(
                "authority {id} is trusted; restart the agents, fetch kubeconfigs anew, then: windlass ca use {id}"
            ));
        }
        Command::Use(Chosen { id, data_dir }) => {
            manage::promote(&pki(data_dir)?, id)?;
            output::step(&format!("authority {id} issues from now on"));
        }
        Command::Remove(Chosen { id, data_dir }) => {
            manage::remove(&pki(data_dir)?, id)?;
            output::step(&format!("authority {id} is not trusted any more"));
        }
        Command::RotateTokenKey(data_dir) => {
            let id = manage::rotate_token_key(&pki(data_dir)?)?;
            output::line(&id);
            output::step("tokens last a day at most; after that: windlass ca retire-token-keys");
        }
        Command::RetireTokenKeys(data_dir) => {
            manage::retire_token_keys(&pki(data_dir)?)?;
            output::step("only tokens of the present key are accepted");
        }
    }
    Ok(())
}

fn show(pki: &Path) -> anyhow::Result<()> {
    let found = manage::inventory(pki)?;
    for (at, authority) in found.authorities.iter().enumerate() {
        let use_ = match (at, authority.has_key) {
            (0, _) => "issues",
            (_, true) => "trusted",
            (_, false) => "trusted, its key is not here",
        };
        let (id, name) = (&authority.id, &authority.name);
        let expires = windlass_api::time::format_seconds(authority.expires);
        output::line(&format!("authority {id} {name:?} until {expires}: {use_}"));
    }
    for (at, id) in found.token_keys.iter().enumerate() {
        let use_ = if at == 0 { "signs" } else { "verifies" };
        output::line(&format!("token key {id}: {use_}"));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}
