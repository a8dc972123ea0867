//! Which authority is asked, and for whom: settings of the swarm. Pure.

use hive_manifests::Resource;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use url::Url;

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::routes::SETTINGS;
use crate::reconcile::tunnels::Why;
use crate::state::{Key, State};

/// Let's Encrypt.
const DEFAULT_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// As long as an address of mail may be (RFC 5321).
const MAX_EMAIL: usize = 254;

/// An authority that may be asked: somebody has agreed to its terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A URL, by https.
    pub directory: String,
    /// Where it writes to, if anywhere.
    pub email: Option<String>,
    /// Who vouches for its server, beside those whom this machine trusts: in PEM, or empty.
    pub roots: String,
}

impl Settings {
    /// Its host, as sentences name it.
    pub fn authority(&self) -> &str {
        let after = self.directory.trim_start_matches("https://");
        after.split('/').next().unwrap_or(after)
    }

    /// Why nobody may be asked, and what helps.
    pub fn of(state: &State) -> Result<Self, Why> {
        let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let settings = state.get(&key).map(|it| it.to_value().into_owned());
        Self::read(&settings.unwrap_or_default()["data"])
    }

    fn read(data: &Value) -> Result<Self, Why> {
        let text = |name: &str| {
            data[name]
                .as_str()
                .map(str::trim)
                .filter(|it| !it.is_empty())
        };
        let directory = text("acme.directory").unwrap_or(DEFAULT_DIRECTORY);
        let url = Url::parse(directory).ok();
        if !url.is_some_and(|url| url.scheme() == "https" && url.has_host()) {
            return Err(wrong(
                "acme.directory",
                "is no https URL: name the directory of an authority that speaks ACME",
            ));
        }
        let email = text("acme.email");
        if email.is_some_and(|email| !is_email(email)) {
            return Err(wrong(
                "acme.email",
                "is no address of mail: write one such as ops@example.org, or leave it out",
            ));
        }
        let roots = text("acme.rootCertificates").unwrap_or_default();
        if !roots.is_empty() && !is_pem(roots) {
            return Err(wrong(
                "acme.rootCertificates",
                "has no certificate that can be read: write PEM, or leave it out",
            ));
        }
        if text("acme.agreeToTerms") != Some("true") {
            let message = format!(
                "nobody has agreed to the terms of the authority {directory} yet: read them, then set \
                 acme.agreeToTerms: \"true\" with `hivectl edit configmap {SETTINGS} -n {SYSTEM_NAMESPACE}`"
            );
            return Err(Why::new("TermsNotAgreed", message));
        }
        Ok(Self {
            directory: directory.to_owned(),
            email: email.map(str::to_owned),
            roots: roots.to_owned(),
        })
    }
}

fn wrong(field: &str, why: &str) -> Why {
    let message = format!("ConfigMap {SYSTEM_NAMESPACE}/{SETTINGS}: data[{field:?}] {why}");
    Why::new("SettingsInvalid", message)
}

/// It stands in a URL, where some characters would be more.
fn is_email(text: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_graphic() && !matches!(c, b',' | b'?' | b'<' | b'>' | b'%');
    let parts = text.split_once('@');
    text.len() <= MAX_EMAIL
        && text.bytes().all(is_plain)
        && parts.is_some_and(|(who, host)| !who.is_empty() && host.contains('.'))
}

fn is_pem(text: &str) -> bool {
    let mut all = CertificateDer::pem_slice_iter(text.as_bytes()).peekable();
    all.peek().is_some() && all.all(|it| it.is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_read_or_refused_with_what_helps() {
        let agreed = |mut data: Value| {
            data["acme.agreeToTerms"] = json!("true");
            data
        };
        let directory = |directory: &str| agreed(json!({ "acme.directory": directory }));
        let email = |email: &str| agreed(json!({ "acme.email": email }));
        let nonsense = agreed(json!({ "acme.rootCertificates": "nonsense" }));
        for (data, expected) in [
            (json!({}), "TermsNotAgreed"),
            (json!({ "acme.agreeToTerms": "yes" }), "TermsNotAgreed"),
            (agreed(json!({})), "acme-v02.api.letsencrypt.org"),
            (
                directory("https://ca.example:14000/dir"),
                "ca.example:14000",
            ),
            (directory("http://ca.example/dir"), "SettingsInvalid"),
            (directory("ca.example"), "SettingsInvalid"),
            (email("ops@example.org"), "acme-v02.api.letsencrypt.org"),
            (email("ops"), "SettingsInvalid"),
            (email("a@b.c,d@e.f"), "SettingsInvalid"),
            (nonsense, "SettingsInvalid"),
        ] {
            let found = Settings::read(&data);
            let found = match &found {
                Ok(settings) => settings.authority(),
                Err(why) => &why.reason,
            };
            assert_eq!(found, expected, "{data}");
        }
    }

    #[test]
    fn who_has_not_agreed_is_told_how_to() {
        let why = Settings::read(&Value::Null).unwrap_err();
        let command = "`hivectl edit configmap swarm -n hive-system`";
        assert!(why.message.contains(command), "{}", why.message);
        assert!(why.message.contains(DEFAULT_DIRECTORY), "{}", why.message);
    }
}
