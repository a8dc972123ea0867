//! The locked application of Spin, which says which component of an image answers requests.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::{Descriptor, ManifestError, some};
use crate::digest::Digest;

/// A locked application, as far as it says what answers requests.
#[derive(Deserialize)]
struct Application {
    #[serde(default)]
    triggers: Vec<Trigger>,
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Trigger {
    trigger_type: String,
    #[serde(default)]
    trigger_config: Value,
}

#[derive(Deserialize)]
struct Component {
    id: String,
    #[serde(default)]
    source: Value,
}

/// The layer of the one component that answers requests of a Spin application.
pub fn component_of_spin(
    application: &[u8],
    layers: &[Descriptor],
) -> Result<Descriptor, ManifestError> {
    let application: Application =
        serde_json::from_slice(application).map_err(|_| ManifestError::NotAnApplication)?;
    let named: BTreeSet<&str> = application
        .triggers
        .iter()
        .filter(|trigger| trigger.trigger_type == "http")
        .filter_map(|trigger| trigger.trigger_config["component"].as_str())
        .collect();
    let name = match Vec::from_iter(named)[..] {
        [] => return Err(ManifestError::NoHttpTrigger),
        [name] => name,
        ref several => {
            let names = some(several.iter().map(|name| format!("{name:?}")));
            return Err(ManifestError::SeveralTriggers(
                several.len(),
                names.join(", "),
            ));
        }
    };
    application
        .components
        .iter()
        .find(|component| component.id == name)
        .and_then(|component| component.source["digest"].as_str()?.parse::<Digest>().ok())
        .and_then(|digest| layers.iter().find(|layer| layer.digest == digest))
        .cloned()
        .ok_or_else(|| ManifestError::NoSuchComponent(name.chars().take(80).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::media;

    #[test]
    fn a_spin_application_says_which_component_answers() {
        let layers = ["web", "jobs"].map(|text| Descriptor {
            media_type: media::COMPONENTS[1].to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
        });
        let trigger = |kind: &str, component: &str| json!({ "id": "t", "trigger_type": kind, "trigger_config": { "component": component, "route": "/..." } });
        let component = |id: &str| json!({ "id": id, "source": { "content_type": "application/wasm", "digest": Digest::of(id.as_bytes()).to_string() } });
        let locked = |triggers: &[Value], components: &[Value]| {
            let text = json!({ "triggers": triggers, "components": components }).to_string();
            component_of_spin(text.as_bytes(), &layers).map(|layer| layer.digest)
        };
        let components = [component("jobs"), component("web")];
        let triggers = [
            trigger("http", "web"),
            trigger("http", "web"),
            trigger("redis", "jobs"),
        ];
        assert_eq!(locked(&triggers, &components), Ok(Digest::of(b"web")));
        assert_eq!(
            locked(&triggers[2..], &components),
            Err(ManifestError::NoHttpTrigger)
        );
        assert_eq!(
            locked(&triggers, &components[..1]),
            Err(ManifestError::NoSuchComponent("web".to_owned()))
        );
        let text = json!({ "triggers": triggers, "components": components }).to_string();
        let refused = component_of_spin(text.as_bytes(), &layers[1..]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the Spin application's http trigger answers with another component than the image holds: \
             triggers[].trigger_config.component names \"web\", whose source.digest is none of the image's layers; \
             push the application again, with that component"
        );
        let both = [trigger("http", "web"), trigger("http", "jobs")];
        assert!(matches!(
            locked(&both, &components),
            Err(ManifestError::SeveralTriggers(2, _))
        ));
        assert_eq!(
            component_of_spin(b"{", &layers),
            Err(ManifestError::NotAnApplication)
        );
    }
}
