//! What a kubeconfig shows to prove who asks, so that a refusal names it and what to do about it.
//!
//! A user entry flows in; a sentence for a person flows out. It keeps and prints no secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kube::client::AuthError;
use kube::config::AuthInfo;
use kube::core::Status;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::RequestError;

/// Of what a plugin says, as much as a terminal shows at once.
const MAX_SAID_CHARS: usize = 1_000;

/// The word before which the plugin's name stands in its arguments.
const OWN_PLUGIN: &str = "get-token";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Nothing,
    /// An administrator's, or one that cannot be told.
    Token,
    ServiceAccountToken {
        namespace: String,
        account: String,
    },
    Certificate,
    /// `hivectl get-token`, with its flags.
    SignIn(Vec<String>),
    Plugin(String),
    Password,
}

impl Credential {
    /// In the order in which kube takes one of several.
    pub fn of(user: &AuthInfo) -> Self {
        if user.username.is_some() && user.password.is_some() || user.auth_provider.is_some() {
            return Self::Password;
        }
        if let Some(token) = &user.token {
            return Self::of_token(token.expose_secret());
        }
        if user.token_file.is_some() {
            return Self::Token;
        }
        if let Some(exec) = &user.exec {
            let arguments = exec.args.as_deref().unwrap_or_default();
            let own = arguments.iter().position(|word| word == OWN_PLUGIN);
            return match own {
                Some(index) => Self::SignIn(arguments[index + 1..].to_vec()),
                None => Self::Plugin(exec.command.clone().unwrap_or_default()),
            };
        }
        match user.client_certificate.is_some() || user.client_certificate_data.is_some() {
            true => Self::Certificate,
            false => Self::Nothing,
        }
    }

    fn of_token(token: &str) -> Self {
        let about = |token: &str| -> Option<(String, String)> {
            let payload = BASE64.decode(token.split('.').nth(1)?).ok()?;
            let claims: Value = serde_json::from_slice(&payload).ok()?;
            let about = &claims["kubernetes.io"];
            let text = |value: &Value| value.as_str().map(str::to_owned);
            Some((
                text(&about["namespace"])?,
                text(&about["serviceaccount"]["name"])?,
            ))
        };
        match about(token) {
            Some((namespace, account)) => Self::ServiceAccountToken { namespace, account },
            None => Self::Token,
        }
    }

    /// The error for what the server said, in an answer or in the midst of a watch.
    pub fn refusal(&self, status: Status) -> RequestError {
        let status = status.boxed();
        match status.code {
            401 => RequestError::Unauthenticated {
                status,
                shown: self.clone(),
            },
            _ => RequestError::Status(status),
        }
    }

    /// What to do where the server does not take it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Nothing => "the kubeconfig has no credential: an admin makes one with `hivectl create user NAME`; or sign in with `hivectl login`".into(),
            Self::Token => "the token of the kubeconfig is unknown, expired or revoked; an admin makes one with `hivectl token create --kind api`".into(),
            Self::ServiceAccountToken { namespace, account } => format!(
                "the service account's token in the kubeconfig has expired or was revoked; a new one: hivectl create token {account} -n {namespace}"
            ),
            Self::Certificate => "the client certificate of the kubeconfig has expired, was revoked, or is of another swarm; an admin makes a new one with `hivectl create user NAME`".into(),
            Self::SignIn(flags) => format!(
                "the swarm does not take what you signed in with; sign in again: hivectl login {}",
                flags.join(" ")
            ),
            Self::Plugin(command) => format!(
                "the swarm does not take what the kubeconfig's plugin {command:?} gives; sign in there again, or with `hivectl login`"
            ),
            Self::Password => "the swarm takes no passwords, and the kubeconfig has one: an admin makes a certificate with `hivectl create user NAME`; or sign in with `hivectl login`".into(),
        }
    }
}

/// What a plugin of the kubeconfig said when it failed. kube's own text would show its arguments and
/// all that it printed, secrets included.
pub fn plugin_failure(error: &kube::Error) -> Option<String> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        match cause.downcast_ref::<AuthError>() {
            Some(AuthError::AuthExecRun { out, .. }) => {
                let said = String::from_utf8_lossy(&out.stderr);
                let said: String = said
                    .trim()
                    .chars()
                    .filter(|c| *c == '\n' || !c.is_control())
                    .take(MAX_SAID_CHARS)
                    .collect();
                return Some(match said.strip_prefix("error: ").unwrap_or(&said) {
                    "" => format!("it ended with {}", out.status),
                    said => said.to_owned(),
                });
            }
            Some(AuthError::AuthExecStart(error)) => {
                return Some(format!("it cannot be started: {error}"));
            }
            Some(AuthError::AuthExecParse(_)) => {
                return Some("what it printed is no ExecCredential".to_owned());
            }
            _ => source = cause.source(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn of(user: Value) -> Credential {
        Credential::of(&serde_json::from_value(user).unwrap())
    }

    #[test]
    fn a_remedy_is_for_what_the_kubeconfig_has() {
        let claims = json!({ "kubernetes.io": {
            "namespace": "web", "serviceaccount": { "name": "robot" },
        } });
        let robot = format!("e30.{}.x", BASE64.encode(claims.to_string()));
        for (user, remedy) in [
            (json!({}), "no credential"),
            (
                json!({ "token": "hivetok.a" }),
                "`hivectl token create --kind api`",
            ),
            (
                json!({ "token": "a.b.c" }),
                "`hivectl token create --kind api`",
            ),
            (json!({ "tokenFile": "/a" }), "the token of the kubeconfig"),
            (
                json!({ "token": robot }),
                "hivectl create token robot -n web",
            ),
            (
                json!({ "client-certificate-data": "YQ==", "client-key-data": "YQ==" }),
                "the client certificate of the kubeconfig",
            ),
            (
                json!({ "client-certificate": "a.crt" }),
                "`hivectl create user NAME`",
            ),
            // The server looks at a token where the certificate is not good.
            (
                json!({ "client-certificate": "a.crt", "token": "t" }),
                "the token of",
            ),
            (
                json!({ "exec": { "command": "/bin/hive", "args": ["ctl", "get-token", "--oidc-client-id=a"] } }),
                "sign in again: hivectl login --oidc-client-id=a",
            ),
            (
                json!({ "exec": { "command": "kubelogin" } }),
                "\"kubelogin\"",
            ),
            (json!({ "username": "a", "password": "b" }), "no passwords"),
        ] {
            let found = of(user.clone()).remedy();
            assert!(found.contains(remedy), "{user}: {found}");
            assert!(
                !found.contains("hivetok.") && !found.contains("YQ=="),
                "{found}"
            );
        }
    }
}
