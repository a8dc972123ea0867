//! Flags that make an OpenID Connect issuer one whose users a controller knows.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use crate::access::oidc::{Oidc, OidcError, OidcOptions};

/// Where people sign in.
#[derive(Debug, Clone, Args)]
pub struct OidcArgs {
    /// OpenID Connect issuer whose ID tokens are taken, an https URL
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<Url>,
    /// The client for which the tokens must be made
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// The claim that names the user
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,
    /// In front of every user's name; "-" for nothing
    /// [default: the issuer's URL and "#", nothing with the claim "email"]
    #[arg(long, value_name = "TEXT")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// In front of every group's name
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub oidc_groups_prefix: String,
    /// A claim that tokens must have with just this value; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = claim_and_value)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// Certificates in PEM that vouch for the issuer [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
}

impl OidcArgs {
    pub fn connect(&self) -> Result<Option<Oidc>, OidcError> {
        let (Some(issuer), Some(client_id)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        let username_prefix = self.oidc_username_prefix.clone();
        Oidc::new(OidcOptions {
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: username_prefix.map(|prefix| match prefix.as_str() {
                "-" => String::new(),
                _ => prefix,
            }),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.clone(),
            ca_file: self.oidc_ca_file.clone(),
        })
        .map(Some)
    }
}

fn claim_and_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(claim, _)| !claim.is_empty())
        .map(|(claim, value)| (claim.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected CLAIM=VALUE".to_owned())
}
