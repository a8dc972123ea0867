//! The examples that people copy are right.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::Path;

use hive_manifests::{document, resource_of, validate};

#[test]
fn every_example_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut checked = 0;
    for example in fs::read_dir(folder).unwrap() {
        let example = example.unwrap().path();
        if !example.is_dir() {
            continue;
        }
        for file in fs::read_dir(&example).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let name = path.display().to_string();
            for document in document::read(File::open(&path).unwrap(), &name).unwrap() {
                let resource = resource_of(&document.value).unwrap();
                let errors: Vec<_> = validate(resource, &document.value)
                    .iter()
                    .map(|error| document.locate(error))
                    .collect();
                assert_eq!(errors, [""; 0]);
                checked += 1;
            }
        }
    }
    assert!(checked > 0, "no example was found");
}
