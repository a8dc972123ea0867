//! What a registry says is in an image, and which of it is the component.
//!
//! A manifest's bytes flow in; out flows where to go on: another manifest, the component's layer, or
//! the Spin application that says which layer. Nothing of an image grants anything: environment,
//! routes and hosts that it names are not read.

mod spin;

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::digest::Digest;
use crate::media;
pub use spin::component_of_spin;

/// The most that registries must take of a manifest, says the distribution specification. Bytes.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// A Spin application is some KB. Bytes.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Told of what was found instead; a list of all would be no sentence.
const MOST_FOUND: usize = 4;

/// A blob of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the registry's answer is no manifest of an image")]
    NotAnImage,
    #[error("the image holds no component{}", but(.found))]
    NoComponent { found: Vec<String> },
    #[error("the image holds {0} components and does not say which of them answers requests")]
    Several(usize),
    #[error("{0:?} in the image's manifest is no SHA-256 digest")]
    Digest(String),
    #[error("the manifest that was answered is not the one with digest {0}")]
    OtherManifest(Digest),
    #[error("the image is a list of lists of images")]
    Nested,
    #[error(
        "the Spin application has no trigger of type http: triggers[].trigger_type; push one that answers HTTP"
    )]
    NoHttpTrigger,
    #[error(
        "the Spin application has {0} components that answer requests, and a function is one: \
         triggers[].trigger_config.component names {1}; push each as an application of its own"
    )]
    SeveralTriggers(usize, String),
    #[error(
        "the Spin application's http trigger answers with another component than the image holds: \
         triggers[].trigger_config.component names {0:?}, whose source.digest is none of the image's layers; \
         push the application again, with that component"
    )]
    NoSuchComponent(String),
    #[error("the Spin application in the image cannot be read")]
    NotAnApplication,
}

fn but(what: &[String]) -> String {
    match what.is_empty() {
        true => String::new(),
        false => format!(", but {}", what.join(", ")),
    }
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The manifest of the platform that is WebAssembly.
    Manifest(Digest),
    Component(Descriptor),
    /// `application` says which of `layers` it is.
    Application {
        application: Descriptor,
        layers: Vec<Descriptor>,
    },
}

/// A manifest, of one image or of several platforms.
#[derive(Clone, Debug)]
pub struct Manifest(Parsed);

#[derive(Clone, Debug)]
enum Parsed {
    Image {
        config: Option<Raw>,
        layers: Vec<Raw>,
    },
    Index(Vec<Raw>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    config: Option<Raw>,
    layers: Option<Vec<Raw>>,
    manifests: Option<Vec<Raw>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
}

impl Manifest {
    /// Reads it by what it holds: `Content-Type` and `mediaType` are often absent or wrong. What is
    /// both an image and a list of images is neither: two programs would take it for different things.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|_| ManifestError::NotAnImage)?;
        let says = |known: &[&str]| {
            document.media_type.is_empty() || known.contains(&&*document.media_type)
        };
        match (document.layers, document.manifests) {
            (Some(layers), None) if says(&media::MANIFESTS) => Ok(Self(Parsed::Image {
                config: document.config,
                layers,
            })),
            (None, Some(manifests)) if says(&media::INDEXES) => Ok(Self(Parsed::Index(manifests))),
            _ => Err(ManifestError::NotAnImage),
        }
    }

    /// Where the component is.
    pub fn choose(&self) -> Result<Choice, ManifestError> {
        match &self.0 {
            Parsed::Index(manifests) => Ok(Choice::Manifest(platform(manifests)?)),
            Parsed::Image { config, layers } => component(config.as_ref(), layers),
        }
    }

    pub fn is_index(&self) -> bool {
        matches!(self.0, Parsed::Index(_))
    }
}

impl Raw {
    fn digest(&self) -> Result<Digest, ManifestError> {
        let digest = self.digest.parse();
        digest.map_err(|_| ManifestError::Digest(self.digest.chars().take(80).collect()))
    }

    fn descriptor(&self) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest()?,
            size: self.size,
        })
    }
}

/// The newest WASI that there is an image for; or the only one, which may name no platform.
fn platform(manifests: &[Raw]) -> Result<Digest, ManifestError> {
    let of = |raw: &Raw| raw.platform.clone().unwrap_or_default();
    let is_wasm = |raw: &&Raw| of(raw).architecture.starts_with("wasm");
    let best = manifests
        .iter()
        .filter(is_wasm)
        .min_by_key(|raw| match &*of(raw).os {
            "wasip3" => 0,
            "wasip2" => 1,
            "wasip1" => 3,
            _ => 2,
        });
    if let Some(raw) = best {
        return raw.digest();
    }
    match manifests {
        [only] if only.platform.is_none() => only.digest(),
        _ => {
            let platforms = manifests.iter().map(|raw| {
                let platform = of(raw);
                format!("an image for {}/{}", platform.os, platform.architecture)
            });
            Err(ManifestError::NoComponent {
                found: some(platforms),
            })
        }
    }
}

/// A Spin application is asked also where there is one component only: it may not be the one that answers.
fn component(config: Option<&Raw>, layers: &[Raw]) -> Result<Choice, ManifestError> {
    let is_component = |raw: &&Raw| media::COMPONENTS.contains(&&*raw.media_type);
    let components: Vec<&Raw> = layers.iter().filter(is_component).collect();
    let mut all = layers.iter().chain(config);
    let application = all.find(|raw| raw.media_type == media::SPIN_APPLICATION);
    match (&components[..], application) {
        ([], _) => Err(ManifestError::NoComponent {
            found: some(
                layers
                    .iter()
                    .map(|raw| match media::known_as(&raw.media_type) {
                        Some(words) => words.to_owned(),
                        None => {
                            format!("{:?}", raw.media_type.chars().take(80).collect::<String>())
                        }
                    }),
            ),
        }),
        ([only], None) => Ok(Choice::Component(only.descriptor()?)),
        (several, None) => Err(ManifestError::Several(several.len())),
        (components, Some(application)) => Ok(Choice::Application {
            application: application.descriptor()?,
            layers: components
                .iter()
                .map(|raw| raw.descriptor())
                .collect::<Result<_, _>>()?,
        }),
    }
}

/// Each once, and not all of many.
fn some(found: impl Iterator<Item = String>) -> Vec<String> {
    let all: BTreeSet<String> = found.collect();
    all.into_iter().take(MOST_FOUND).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn digest(text: &str) -> String {
        Digest::of(text.as_bytes()).to_string()
    }

    fn blob(media_type: &str, text: &str) -> Value {
        json!({ "mediaType": media_type, "digest": digest(text), "size": text.len() })
    }

    fn choose(manifest: Value) -> Result<Choice, String> {
        let parsed = Manifest::parse(manifest.to_string().as_bytes());
        parsed.and_then(|m| m.choose()).map_err(|e| e.to_string())
    }

    fn image(config: &str, layers: &[Value]) -> Value {
        json!({ "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": blob(config, "{}"), "layers": layers })
    }

    #[test]
    fn the_component_is_found_in_each_layout() {
        for (config, layer) in [
            (media::WASM_CONFIG, media::WASM),
            (
                "application/vnd.oci.image.config.v1+json",
                media::COMPONENTS[1],
            ),
            ("application/vnd.wasm.config.v1+json", media::COMPONENTS[1]),
            (
                "application/vnd.wasmcloud.actor.archive.config",
                media::COMPONENTS[2],
            ),
        ] {
            let asset = blob("application/vnd.wasm.content.layer.v1+data", "asset");
            let chosen = choose(image(config, &[asset, blob(layer, "component")])).unwrap();
            let Choice::Component(found) = chosen else {
                panic!("{layer}: {chosen:?}");
            };
            assert_eq!(
                (found.digest, found.size),
                (Digest::of(b"component"), 9),
                "{layer}"
            );
        }
    }

    #[test]
    fn what_holds_no_component_says_what_it_is() {
        for (layer, words) in [
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "a container image",
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "a container image",
            ),
            (
                "application/vnd.wasmcloud.provider.archive.layer.v1+par",
                "a provider archive of wasmCloud",
            ),
            ("text/plain", "\"text/plain\""),
        ] {
            let refused = choose(image("", &[blob(layer, "a"), blob(layer, "b")])).unwrap_err();
            assert_eq!(
                refused,
                format!("the image holds no component, but {words}")
            );
        }
        assert_eq!(
            choose(image("", &[])).unwrap_err(),
            "the image holds no component"
        );
        for bad in [
            json!({}),
            json!([]),
            json!("x"),
            json!({ "layers": [], "manifests": [] }),
            json!({ "layers": [{}] }),
        ] {
            assert_eq!(
                choose(bad).unwrap_err(),
                ManifestError::NotAnImage.to_string()
            );
        }
        let mut lying = image("", &[]);
        lying["mediaType"] = json!(media::OCI_INDEX);
        assert_eq!(
            choose(lying).unwrap_err(),
            ManifestError::NotAnImage.to_string()
        );
        let mut other = blob(media::WASM, "a");
        other["digest"] = json!("sha512:00");
        assert!(
            choose(image("", &[other]))
                .unwrap_err()
                .contains("no SHA-256")
        );
    }

    fn index(platforms: &[(&str, &str)]) -> Value {
        let manifests: Vec<Value> = platforms
            .iter()
            .map(|(os, architecture)| {
                let mut manifest = blob(media::OCI_MANIFEST, &format!("{os}/{architecture}"));
                if !os.is_empty() {
                    manifest["platform"] = json!({ "os": os, "architecture": architecture });
                }
                manifest
            })
            .collect();
        json!({ "schemaVersion": 2, "manifests": manifests })
    }

    #[test]
    fn of_several_platforms_the_newest_wasi_is_taken() {
        let linux = ("linux", "amd64");
        for (platforms, taken) in [
            (
                &[linux, ("wasip1", "wasm"), ("wasip2", "wasm")][..],
                "wasip2/wasm",
            ),
            (&[("wasip1", "wasm"), ("wasi", "wasm32")], "wasi/wasm32"),
            (&[linux, ("wasip1", "wasm")], "wasip1/wasm"),
            (&[("", "")], "/"),
        ] {
            let chosen = choose(index(platforms)).unwrap();
            assert_eq!(
                chosen,
                Choice::Manifest(Digest::of(taken.as_bytes())),
                "{platforms:?}"
            );
        }
        let refused = choose(index(&[linux, ("linux", "arm64")])).unwrap_err();
        assert!(
            refused.ends_with("but an image for linux/amd64, an image for linux/arm64"),
            "{refused}"
        );
    }

    #[test]
    fn a_spin_application_is_to_say_which_component_answers() {
        let digests = |layers: &[Descriptor]| Vec::from_iter(layers.iter().map(|it| it.digest));
        // Also of one: there may be another one that answers. Spin keeps files of components beside them.
        let asset = blob("application/vnd.wasm.content.layer.v1+data", "asset");
        let only = [asset, blob(media::COMPONENTS[1], "jobs")];
        let Choice::Application { layers, .. } =
            choose(image(media::SPIN_APPLICATION, &only)).unwrap()
        else {
            panic!("no application");
        };
        assert_eq!(digests(&layers), [Digest::of(b"jobs")]);
        let layer = |text: &str| blob(media::COMPONENTS[1], text);
        let several = [
            layer("web"),
            layer("jobs"),
            blob(media::SPIN_APPLICATION, "app"),
        ];
        let Choice::Application {
            application,
            layers,
        } = choose(image("", &several)).unwrap()
        else {
            panic!("no application");
        };
        assert_eq!(application.digest, Digest::of(b"app"));
        let named = ["web", "jobs"].map(|text| Digest::of(text.as_bytes()));
        assert_eq!(digests(&layers), named);
        let refused = choose(image("", &several[..2])).unwrap_err();
        assert!(refused.contains("2 components"), "{refused}");
    }
}
