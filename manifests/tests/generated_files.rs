//! The CRDs and JSON schemas in the tree are those of the Rust types.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use hive_manifests::generated;

#[test]
fn generated_files_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bless = std::env::var_os("HIVE_BLESS").is_some();
    let mut stale = Vec::new();
    for file in generated::files() {
        let path = folder.join(&file.path);
        if fs::read_to_string(&path).ok().as_deref() == Some(&file.content) {
            continue;
        }
        if bless {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &file.content).unwrap();
        } else {
            stale.push(file.path);
        }
    }
    assert!(
        stale.is_empty(),
        "{stale:?} differ from the Rust types; run `HIVE_BLESS=1 cargo test -p hive-manifests` and look at the diff"
    );
}

#[test]
fn no_generated_file_is_left_over() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let expected: Vec<_> = generated::files()
        .into_iter()
        .map(|file| folder.join(file.path))
        .collect();
    for name in ["crds", "schemas"] {
        for entry in fs::read_dir(folder.join(name)).unwrap() {
            let path = entry.unwrap().path();
            assert!(expected.contains(&path), "{path:?} is generated no more");
        }
    }
}
