//! What those who bring connections from elsewhere need.

use super::*;

/// A good tunnel at Cloudflare.
fn cloudflare(changes: Value) -> Value {
    let mut spec = json!({
        "provider": "Cloudflare",
        "http": {"host": "photos.example.org"},
        "cloudflare": {"secretName": "photos-cloudflare"},
    });
    let fields = changes.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    http(spec)
}

fn client(key: &str) -> Value {
    json!({"provider": "Tor", "tor": {"authorizedClients": [key]}})
}

#[test]
fn providers_are_told_what_they_need() {
    let account = "699d98642c564d2e855e9661899b7252";
    let key = format!("descriptor:x25519:{}", "A2".repeat(26));
    for value in [
        http(json!({"provider": "Hive"})),
        cloudflare(json!({})),
        cloudflare(json!({"http": {"routes": [{"host": "a.example.org"}]}})),
        cloudflare(json!({"cloudflare": {"secretName": "x", "accountId": account}})),
        http(json!({"provider": "Tor"})),
        tcp(json!({"provider": "Tor", "tor": {}})),
        http(client(&key)),
    ] {
        completed(value);
    }
    let no_key = |key: &str| {
        format!(
            "spec.tor.authorizedClients[0]: \"{key}\" is not a public key such as \"descriptor:x25519:<52 letters and digits>\""
        )
    };
    let twice = json!({"provider": "Tor", "tor": {"authorizedClients": [key, key.to_lowercase()]}});
    let cases: Vec<(Value, String)> = vec![
        (
            http(json!({"provider": "Ngrok"})),
            "spec.provider: \"Ngrok\" is none of Hive, Cloudflare, Tor".into(),
        ),
        (
            http(json!({"cloudflare": {"secretName": "x"}})),
            "spec.cloudflare: only with provider Cloudflare: leave it out, or write provider: Cloudflare".into(),
        ),
        (
            cloudflare(json!({"tor": {}})),
            "spec.tor: only with provider Tor: leave it out, or write provider: Tor".into(),
        ),
        (
            cloudflare(json!({"cloudflare": null})),
            "spec.cloudflare: required with provider Cloudflare: name a Secret with the tunnel's token, such as {secretName: photos-cloudflare}".into(),
        ),
        (
            cloudflare(json!({"cloudflare": {}})),
            "spec.cloudflare.secretName: required, but missing".into(),
        ),
        (
            cloudflare(json!({"cloudflare": {"secretName": "X"}})),
            "spec.cloudflare.secretName: \"X\" is not the name of a secret: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit".into(),
        ),
        (
            cloudflare(json!({"cloudflare": {"secretName": "x", "accountId": "me"}})),
            "spec.cloudflare.accountId: \"me\" is not an account of 32 hexadecimal digits, as the address of its dashboard has it".into(),
        ),
        (
            cloudflare(json!({"http": null})),
            "spec.http.host: required with provider Cloudflare: name the host, in one of your zones there".into(),
        ),
        (http(client("A2")), no_key("A2")),
        (
            http(client("descriptor:x25519:A2")),
            no_key("descriptor:x25519:A2"),
        ),
        (
            http(twice),
            "spec.tor.authorizedClients[1]: is there twice; leave one of them out".into(),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(messages(&value), [expected], "{value}");
    }
    let tcp = tcp(json!({"provider": "Cloudflare", "cloudflare": {"secretName": "x"}}));
    assert!(
        messages(&tcp)[0].starts_with("spec.provider: Cloudflare carries requests to everybody"),
        "{:?}",
        messages(&tcp)
    );
}
