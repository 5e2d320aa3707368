//! Options that say who is taken for whom: other issuers of tokens, and a proxy in front of the API. They are called as
//! upstream's are.

use std::path::PathBuf;

use anyhow::Context;
use http::HeaderName;
use windlass_control::Config;
use windlass_control::server::authn::{AuthenticationConfiguration, FrontProxy, OidcOptions};

use super::server::{file_text, read};

/// Who is taken for whom.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct IdentityOptions {
    /// Issuers whose tokens are taken, and which paths are open to requests without credentials: a file of kind
    /// `AuthenticationConfiguration`.
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// URL of an OpenID issuer whose tokens are taken; for several use --authentication-config.
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    #[arg(conflicts_with = "authentication_config")]
    oidc_issuer_url: Option<String>,
    /// The audience that the issuer's tokens have to be meant for.
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that names the user.
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    #[arg(requires = "oidc_issuer_url")]
    oidc_username_claim: String,
    /// What is put in front of the user's name: the issuer's URL and `#` if nothing is said, nothing if `-`.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    #[arg(hide_default_value = true)]
    #[arg(requires = "oidc_issuer_url")]
    oidc_username_prefix: String,
    /// The claim that names the user's groups.
    #[arg(long, value_name = "CLAIM", default_value = "")]
    #[arg(hide_default_value = true)]
    #[arg(requires = "oidc_issuer_url")]
    oidc_groups_claim: String,
    /// What is put in front of the names of groups.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    #[arg(hide_default_value = true)]
    #[arg(requires = "oidc_issuer_url")]
    oidc_groups_prefix: String,
    /// A claim that must have a value; may be given several times.
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = pair)]
    #[arg(requires = "oidc_issuer_url")]
    oidc_required_claim: Vec<(String, String)>,
    /// Certificates by which the issuer's server is trusted; those of the machine by default.
    #[arg(long, value_name = "FILE")]
    #[arg(requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// Who issues ServiceAccount tokens; of several the first does, and tokens of the others are accepted.
    #[arg(long, value_name = "URL")]
    service_account_issuer: Vec<String>,
    /// Certificates of which one has to have signed that of a proxy in front of the API, whose headers are believed.
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that the proxy's certificate may have; any if none is given.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    #[arg(requires = "requestheader_client_ca_file")]
    requestheader_allowed_names: Vec<String>,
    /// Headers of which the first that is there names the user.
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    #[arg(requires = "requestheader_client_ca_file")]
    requestheader_username_headers: Vec<HeaderName>,
    /// Headers that name the user's groups.
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    #[arg(requires = "requestheader_client_ca_file")]
    requestheader_group_headers: Vec<HeaderName>,
    /// Headers of which the first that is there is the user's uid.
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    #[arg(requires = "requestheader_client_ca_file")]
    requestheader_uid_headers: Vec<HeaderName>,
    /// What headers of further attributes begin with.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    #[arg(requires = "requestheader_client_ca_file")]
    requestheader_extra_headers_prefix: Vec<HeaderName>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (claim, value) = text
        .split_once('=')
        .ok_or_else(|| "want CLAIM=VALUE".to_owned())?;
    Ok((claim.to_owned(), value.to_owned()))
}

impl IdentityOptions {
    /// Sets what the options say.
    pub(super) fn set(&self, config: &mut Config) -> anyhow::Result<()> {
        config.authentication = self.authentication()?;
        config.front_proxy = self.front_proxy()?;
        config
            .service_account_issuers
            .clone_from(&self.service_account_issuer);
        Ok(())
    }

    fn authentication(&self) -> anyhow::Result<AuthenticationConfiguration> {
        let Some(issuer) = &self.oidc_issuer_url else {
            return read(
                "authentication-config",
                self.authentication_config.as_ref(),
                AuthenticationConfiguration::parse,
            );
        };
        let options = OidcOptions {
            issuer_url: issuer.clone(),
            client_id: self.oidc_client_id.clone().unwrap_or_default(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.clone(),
            certificate_authority: file_text("oidc-ca-file", self.oidc_ca_file.as_ref())?,
        };
        AuthenticationConfiguration::of_options(options).context("--oidc-issuer-url")
    }

    fn front_proxy(&self) -> anyhow::Result<Option<FrontProxy>> {
        let file = self.requestheader_client_ca_file.as_ref();
        let Some(certificate_authority) = file_text("requestheader-client-ca-file", file)? else {
            return Ok(None);
        };
        let proxy = FrontProxy {
            certificate_authority,
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: self.requestheader_username_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
        };
        proxy.check()?;
        Ok(Some(proxy))
    }
}
