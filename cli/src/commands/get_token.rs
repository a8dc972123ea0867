//! `hivectl get-token`: the plugin that kubectl and hivectl ask for a token, after `hivectl login`.
//!
//! Prints an ExecCredential and nothing else. It asks nobody anything: where signing in is needed, it
//! says so.

use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::login::{OidcArguments, failed};
use crate::failure::Failure;
use crate::oidc::{Cache, Issuer, Kept, OidcError, Tokens};
use crate::session::Session;

/// In which version kubectl wants the answer.
const ASKED: &str = "KUBERNETES_EXEC_INFO";
const DEFAULT_API: &str = "client.authentication.k8s.io/v1";

#[derive(Debug, Args)]
pub struct GetToken {
    #[command(flatten)]
    oidc: OidcArguments,
}

pub async fn run(get: GetToken, session: &mut Session<'_>) -> Result<(), Failure> {
    let cache = get.oidc.cache(&session.world.environment)?;
    let tokens = fresh(&get.oidc, &cache).await?;
    let expiry = Timestamp::try_from(tokens.expiry)
        .map_err(|_| failed(&OidcError::IdToken("it ends at no time")))?;
    let credential = json!({
        "apiVersion": api_version(session),
        "kind": "ExecCredential",
        "status": {
            "token": tokens.id_token,
            "expirationTimestamp": expiry.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
    });
    session.world.line(credential)?;
    Ok(())
}

fn api_version(session: &Session<'_>) -> String {
    let asked = session.world.environment.text(ASKED);
    let asked = asked.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    asked
        .as_ref()
        .and_then(|asked| asked["apiVersion"].as_str())
        .unwrap_or(DEFAULT_API)
        .to_owned()
}

/// The tokens that are kept if they are still good, else new ones.
async fn fresh(oidc: &OidcArguments, cache: &Cache) -> Result<Tokens, Failure> {
    let good = || {
        let now = SystemTime::now();
        let kept = cache.read().filter(|kept| kept.tokens.are_fresh(now));
        kept.map(|kept| kept.tokens)
    };
    if let Some(tokens) = good() {
        return Ok(tokens);
    }
    let _lock = cache.lock().map_err(|error| failed(&error))?;
    // Perhaps somebody else has refreshed them meanwhile.
    if let Some(tokens) = good() {
        return Ok(tokens);
    }
    let Some(kept) = cache.read() else {
        return Err(sign_in("nobody is signed in", oidc));
    };
    let mut client = oidc.client();
    client.secret = client.secret.or(kept.client_secret);
    let client_secret = client.secret.clone();
    let issuer = Issuer::discover(client)
        .await
        .map_err(|error| failed(&error))?;
    match issuer.refresh(&kept.tokens).await {
        Ok(Some(tokens)) => {
            let kept = Kept {
                tokens,
                client_secret,
            };
            cache.write(&kept).map_err(|error| failed(&error))?;
            Ok(kept.tokens)
        }
        Ok(None) => Err(sign_in(
            "the sign-in has ended, and the issuer gave nothing to renew it with",
            oidc,
        )),
        Err(OidcError::Refused { error, .. }) if error == "invalid_grant" => {
            cache.remove().map_err(|error| failed(&error))?;
            Err(sign_in("the issuer renews this sign-in no more", oidc))
        }
        Err(error) => Err(failed(&error)),
    }
}

fn sign_in(why: &str, oidc: &OidcArguments) -> Failure {
    let flags = oidc.flags().join(" ");
    Failure::new(why).hint(format_args!("sign in: hivectl login {flags}"))
}
