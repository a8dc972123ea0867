//! `hivectl token revoke`: of tokens that are Secrets, and of those of service accounts, which were lost.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use clap::Args;
use hive_identity::{ApiToken, JoinToken, TokenSecret};
use hive_manifests::Resource;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{NAMESPACE, object_name};
use crate::cluster::{Call, Cluster, RequestError, path};
use crate::commands::lookup::{self, finish};
use crate::failure::Failure;
use crate::object;
use crate::session::Session;

/// Ids of tokens that are good no longer: an annotation of their account.
const REVOKED: &str = "hive.dev/revoked-tokens";

/// Attempts to add to the list while others change the account.
const REVOKE_ATTEMPTS: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The ids that `token list` shows, or whole tokens
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub(super) async fn run(revoke: Revoke, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut failures = Vec::new();
    for given in &revoke.ids {
        if let Some(lost) = Lost::read(given) {
            match lost.revoke(&cluster).await {
                Ok(()) => session.world.line(format_args!(
                    "token {} of serviceaccount/{} revoked",
                    lost.id, lost.account
                ))?,
                Err(error) => failures.push(error),
            }
            continue;
        }
        let id = match id_of(given) {
            Ok(id) => id,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let name = object_name(&id);
        let path = path::object(Resource::Secret, Some(NAMESPACE), &name);
        match cluster.json(&Call::new(Method::DELETE, &path)).await {
            Ok(_) => session.world.line(format_args!("token {id} revoked"))?,
            Err(error) => {
                let is_unknown = error.is_not_found();
                let failure =
                    lookup::not_found(&cluster, Resource::Secret, Some(NAMESPACE), &name, error)
                        .await;
                failures.push(match is_unknown {
                    true => failure.hint("`hivectl token list` shows the ids that there are"),
                    false => failure,
                });
            }
        }
    }
    finish(failures)
}

/// Somebody who pastes a whole token means that token; its secret must not end up in a URL.
fn id_of(given: &str) -> Result<String, Failure> {
    let secret = JoinToken::from_str(given)
        .map(|join| join.secret)
        .or_else(|_| ApiToken::from_str(given).map(|api| api.secret))
        .or_else(|_| TokenSecret::parse(given));
    match secret {
        Ok(secret) => Ok(secret.id().to_owned()),
        // Ids have no dots, and tokens have: this is one that lost some of its characters.
        Err(_) if given.contains('.') => Err(Failure::usage(
            "this token is damaged: give its id, as `hivectl token list` shows it",
        )),
        Err(_) => Ok(given.strip_prefix("token-").unwrap_or(given).to_owned()),
    }
}

/// A service account's token, as far as it tells of itself.
struct Lost {
    id: String,
    namespace: String,
    account: String,
    /// Unix seconds.
    expiry: i64,
}

impl Lost {
    /// Whether the token is genuine does not matter: only an id that was issued can be revoked.
    fn read(token: &str) -> Option<Self> {
        let mut parts = token.trim().split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims = BASE64_URL.decode(claims).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let about = &claims["kubernetes.io"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            id: text(&claims["jti"])?,
            namespace: text(&about["namespace"])?,
            account: text(&about["serviceaccount"]["name"])?,
            expiry: claims["exp"].as_i64()?,
        })
    }

    async fn revoke(&self, cluster: &Cluster) -> Result<(), Failure> {
        if self.expiry <= Timestamp::now().as_second() {
            return Err(Failure::new(format_args!(
                "token {} has expired already",
                self.id
            )));
        }
        let (kind, namespace) = (Resource::ServiceAccount, Some(self.namespace.as_str()));
        for _ in 0..REVOKE_ATTEMPTS {
            let account = cluster.get(kind, namespace, &self.account).await?;
            let known = account["metadata"]["annotations"][REVOKED]
                .as_str()
                .unwrap_or_default();
            if known.split(',').any(|id| id.trim() == self.id) {
                return Ok(());
            }
            let listed = match known {
                "" => self.id.clone(),
                known => format!("{known},{}", self.id),
            };
            // The resourceVersion keeps what somebody else revokes meanwhile from being lost.
            let patch = json!({ "metadata": {
                "resourceVersion": object::resource_version(&account),
                "annotations": { REVOKED: listed },
            } });
            let patched = cluster
                .merge_patch(kind, namespace, &self.account, &patch, false)
                .await;
            match patched {
                Err(RequestError::Status(status)) if status.code == 409 => {}
                result => return result.map(|_| ()).map_err(Failure::from),
            }
        }
        Err(Failure::new(format_args!(
            "serviceaccount/{} kept changing: try again",
            self.account
        )))
    }
}
