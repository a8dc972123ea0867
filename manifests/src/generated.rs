//! The files under `manifests/crds` and `manifests/schemas`, as they should read.
//!
//! A test compares them with what is in the tree; `HIVE_BLESS=1 cargo test -p hive-manifests`
//! rewrites them. Nothing reads them at run time.

use crate::schema::{crd, editor_schema, whole_numbers};
use crate::{GROUP, Resource};

/// One generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Relative to the folder of this crate.
    pub path: String,
    pub content: String,
}

/// Every generated file, in the order of [`Resource::ALL`].
pub fn files() -> Vec<GeneratedFile> {
    let mut files = Vec::new();
    for resource in Resource::ALL {
        if let Some(crd) = crd(resource) {
            let mut crd = serde_json::to_value(crd).expect("a CRD is JSON");
            whole_numbers(&mut crd);
            crd["apiVersion"] = "apiextensions.k8s.io/v1".into();
            crd["kind"] = "CustomResourceDefinition".into();
            let yaml = serde_saphyr::to_string(&crd).expect("JSON is YAML");
            files.push(GeneratedFile {
                path: format!("crds/{}.{GROUP}.yaml", resource.plural()),
                content: format!("# Generated from the Rust types; see src/generated.rs.\n{yaml}"),
            });
        }
        let schema =
            serde_json::to_string_pretty(&editor_schema(resource)).expect("a schema is JSON");
        files.push(GeneratedFile {
            path: format!("schemas/{}.json", resource.singular()),
            content: format!("{schema}\n"),
        });
    }
    files
}
