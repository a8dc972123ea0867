//! What registries and people may write, damaged in every way.

#![allow(clippy::unwrap_used)]

use hive_fuzz::{Target, text};
use http::{HeaderMap, HeaderValue};

use super::*;

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

#[test]
fn references_are_read_or_refused() {
    Target::new("reference", |input: &[u8]| {
        let reference: Reference = text(input)?
            .parse()
            .map_err(|e: ReferenceError| e.to_string())?;
        let again: Reference = reference.to_string().parse().unwrap();
        assert_eq!(again.to_string(), reference.to_string());
        let base = reference.base();
        // It names one repository of one host, and nothing beside.
        assert_eq!(base.path(), format!("/v2/{}/", reference.repository()));
        assert!(base.username().is_empty() && base.password().is_none());
        assert!(base.query().is_none() && base.fragment().is_none());
        assert_eq!(base.scheme() == "http", reference.is_local());
        Ok::<_, String>(())
    })
    .seeds([
        "oci://ghcr.io/acme/hello:1.2",
        "localhost:5000/a__b/c-d@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "[::1]:80/a",
        "127.0.0.1/a",
        "hello",
    ])
    .words(["oci://", "://", "/", ":", "@sha256:", "@", "..", "__", "0x7f.1", "[", "]", "%2f", "#", "?", "\\"])
    .at_most(1024)
    .hold();
}

#[test]
fn manifests_are_read_or_refused() {
    Target::new("image_manifest", |input: &[u8]| {
        let manifest = Manifest::parse(input).map_err(|error| error.to_string())?;
        let choice = manifest.choose().map_err(|error| error.to_string())?;
        assert_eq!(manifest.is_index(), matches!(choice, Choice::Manifest(_)));
        if let Choice::Application { layers, .. } = choice {
            assert!(layers.len() > 1);
        }
        Ok::<_, String>(())
    })
    .seeds([
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.wasm.config.v0+json","digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5},"layers":[{"mediaType":"application/wasm","digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5}]}"#,
        r#"{"manifests":[{"mediaType":"x","digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5,"platform":{"architecture":"wasm","os":"wasip2"}}]}"#,
    ])
    .words([
        "\"layers\":", "\"manifests\":", "\"mediaType\":", "\"application/wasm\"", "\"platform\":", "null", "[]", "{}",
        "\"application/vnd.fermyon.spin.application.v1+config\"", "-1", "1e400",
    ])
    .at_most(8 * 1024)
    .hold();
}

#[test]
fn applications_are_read_or_refused() {
    let layers: Vec<Descriptor> = [b"a".as_slice(), b"b"]
        .map(|bytes| Descriptor {
            media_type: "application/wasm".to_owned(),
            digest: Digest::of(bytes),
            size: 1,
        })
        .into();
    let seed = format!(
        r#"{{"triggers":[{{"trigger_type":"http","trigger_config":{{"component":"a"}}}}],"components":[{{"id":"a","source":{{"digest":"{}"}}}}]}}"#,
        layers[0].digest
    );
    Target::new("spin_application", |input: &[u8]| {
        let found = component_of_spin(input, &layers).map_err(|error| error.to_string())?;
        assert!(layers.contains(&found));
        Ok::<_, String>(())
    })
    .seeds([seed])
    .words([
        "\"triggers\":",
        "\"components\":",
        "\"component\":",
        "\"http\"",
        "null",
        "[]",
        "{}",
    ])
    .at_most(8 * 1024)
    .hold();
}

#[test]
fn challenges_are_read_or_refused() {
    Target::new("challenge", |input: &[u8]| {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(input).map_err(|error| error.to_string())?;
        headers.insert(http::header::WWW_AUTHENTICATE, value);
        let found = challenges(&headers).map_err(|error| error.to_string())?;
        assert!(!found.is_empty());
        Ok::<_, String>(())
    })
    .seeds([
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull""#,
        r#"Basic realm="x", Negotiate"#,
    ])
    .words(["Bearer ", "Basic ", "realm=", "service=", "\"", "\\\"", ",", "=", "=="])
    .at_most(8 * 1024)
    .hold();
}

#[test]
fn docker_configs_are_read_or_refused() {
    let reference: Reference = "ghcr.io/acme/hello".parse().unwrap();
    Target::new("dockerconfig", |input: &[u8]| {
        let credentials = Credentials::parse(input).map_err(|error| error.to_string())?;
        credentials.find(&reference);
        Ok::<_, String>(())
    })
    .seeds([
        r#"{"auths":{"ghcr.io/acme":{"auth":"YTpi"},"https://index.docker.io/v1/":{"username":"a","password":"b","identitytoken":"c"}},"credHelpers":{"gcr.io":"gcloud"},"credsStore":"x"}"#,
    ])
    .words(["\"auths\":", "\"auth\":", "\"ghcr.io\"", "YTpi", "null", "{}", "\"credHelpers\":", "/v1/", "https://"])
    .at_most(8 * 1024)
    .hold();
}
