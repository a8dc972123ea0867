//! Who may use a tunnel, with which certificate it is served and who brings its connections, in words.
//!
//! Pure: a Tunnel flows in, lines flow out. What this build cannot read is shown as it is.

use hive_manifests::tunnel::access::{Access, Allow};
use serde_json::Value;

use crate::table::harmless;

/// Of the spec's rules one line each. All must be met, but of those that ask who somebody is one suffices.
pub fn access(tunnel: &Value) -> Vec<String> {
    let said = &tunnel["spec"]["access"];
    let read = serde_json::from_value::<Option<Access>>(said.clone());
    let lines = match read {
        Ok(access) => rules(&access.unwrap_or_default()),
        Err(_) => vec![said.to_string()],
    };
    lines.iter().map(|line| harmless(line)).collect()
}

fn rules(access: &Access) -> Vec<String> {
    let mut lines = Vec::new();
    if !access.allowed_clients.is_empty() {
        lines.push(format!("from {}", access.allowed_clients.join(", ")));
    }
    if let Some(limit) = access.rate_limit {
        let often = limit.requests_per_second;
        let burst = limit.burst.unwrap_or(often);
        lines.push(format!(
            "{often} a second from each client, {burst} at once"
        ));
    }
    let mut ways = Vec::new();
    if let Some(basic) = &access.basic_auth {
        ways.push(format!("who is in Secret {}", basic.secret_name));
    }
    if let Some(bearer) = &access.bearer {
        ways.push(format!(
            "who has a token of {} for {}{}",
            bearer.issuer_url,
            bearer.audience,
            named(&bearer.allow)
        ));
    }
    if let Some(login) = &access.oidc {
        ways.push(format!(
            "who signs in at {}{}",
            login.issuer_url,
            named(&login.allow)
        ));
    }
    let ways = ways.into_iter().enumerate();
    lines.extend(ways.map(|(place, way)| match place {
        0 => way,
        _ => format!("or {way}"),
    }));
    if lines.is_empty() {
        lines.push("everybody".to_owned());
    }
    lines
}

/// `: ann@example.com, @example.org, group makers`
fn named(allow: &Allow) -> String {
    let emails = allow.emails.iter().cloned();
    let domains = allow.domains.iter().map(|domain| format!("@{domain}"));
    let groups = allow.groups.iter().map(|group| format!("group {group}"));
    let all: Vec<String> = emails.chain(domains).chain(groups).collect();
    match all.is_empty() {
        true => String::new(),
        false => format!(": {}", all.join(", ")),
    }
}

/// Where the certificate is from by which it is served; `None` of a tunnel that is served without.
pub fn certificate(tunnel: &Value) -> Option<String> {
    let (tls, status) = (&tunnel["spec"]["tls"], &tunnel["status"]["certificate"]);
    let text = |value: &Value| value.as_str().map(harmless);
    if let Some(secret) = text(&tls["secretName"]) {
        return Some(format!("of Secret {secret}"));
    }
    if tls["acme"] != true {
        return None;
    }
    let until = text(&status["notAfter"]);
    Some(match (text(&status["secretName"]), until) {
        (Some(secret), Some(until)) => format!("by ACME, in Secret {secret}, until {until}"),
        _ => "by ACME, not there yet".to_owned(),
    })
}

/// Who brings its connections.
pub fn provider(tunnel: &Value) -> String {
    let spec = &tunnel["spec"];
    let text = |value: &Value| value.as_str().map(harmless);
    let provider = text(&spec["provider"]).unwrap_or_else(|| "Hive".to_owned());
    let said = &spec["cloudflare"];
    let secret = text(&said["secretName"]).map(|secret| format!(", by Secret {secret}"));
    let account = text(&said["accountId"]).map(|account| format!(", in account {account}"));
    provider + &secret.unwrap_or_default() + &account.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_rule_is_a_line() {
        let oidc = json!({ "issuerUrl": "https://a.example", "clientId": "photos",
                           "allow": { "emails": ["ann@b.example"], "domains": ["c.example"], "groups": ["makers"] } });
        let bearer = json!({ "issuerUrl": "https://a.example", "audience": "robots" });
        for (access, expected) in [
            (Value::Null, vec!["everybody"]),
            (json!({}), vec!["everybody"]),
            (
                json!({ "allowedClients": ["10.0.0.0/8", "fd00::/8"],
                        "rateLimit": { "requestsPerSecond": 10, "burst": 20 } }),
                vec![
                    "from 10.0.0.0/8, fd00::/8",
                    "10 a second from each client, 20 at once",
                ],
            ),
            (
                json!({ "basicAuth": { "secretName": "users" }, "bearer": bearer, "oidc": oidc }),
                vec![
                    "who is in Secret users",
                    "or who has a token of https://a.example for robots",
                    "or who signs in at https://a.example: ann@b.example, @c.example, group makers",
                ],
            ),
            (
                json!({ "rateLimit": { "requestsPerSecond": 3 } }),
                vec!["3 a second from each client, 3 at once"],
            ),
            // Of a later version.
            (
                json!({ "allowedClients": "later" }),
                vec![r#"{"allowedClients":"later"}"#],
            ),
        ] {
            let tunnel = json!({ "spec": { "access": access } });
            assert_eq!(super::access(&tunnel), expected, "{access}");
        }
    }

    #[test]
    fn a_certificate_is_somebody_s_and_ends() {
        let had = json!({ "secretName": "photos-acme", "notAfter": "2026-12-01T00:00:00Z" });
        for (tls, status, expected) in [
            (Value::Null, Value::Null, None),
            (
                json!({ "secretName": "photos-tls" }),
                Value::Null,
                Some("of Secret photos-tls"),
            ),
            (
                json!({ "acme": true }),
                Value::Null,
                Some("by ACME, not there yet"),
            ),
            (
                json!({ "acme": true }),
                had,
                Some("by ACME, in Secret photos-acme, until 2026-12-01T00:00:00Z"),
            ),
        ] {
            let tunnel = json!({ "spec": { "tls": tls }, "status": { "certificate": status } });
            assert_eq!(certificate(&tunnel).as_deref(), expected, "{tunnel}");
        }
    }

    #[test]
    fn whoever_brings_connections_is_named() {
        let made = json!({ "provider": "Cloudflare", "cloudflare": { "secretName": "api", "accountId": "69" } });
        let own = json!({ "provider": "Cloudflare", "cloudflare": { "secretName": "token" } });
        for (spec, expected) in [
            (json!({}), "Hive"),
            (json!({ "provider": "Tor" }), "Tor"),
            (own, "Cloudflare, by Secret token"),
            (made, "Cloudflare, by Secret api, in account 69"),
        ] {
            assert_eq!(provider(&json!({ "spec": spec })), expected);
        }
    }
}
