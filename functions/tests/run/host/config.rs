//! Settings: those of the manifest, by every name that guests know them by.

use std::{collections::BTreeMap, sync::Arc};

use hive_functions::{HostServices, InspectLimits, inspect};

use super::{SERVICES, answer, given};
use crate::guests::Loaded;

fn set(settings: &[(&str, &str)]) -> Loaded {
    let settings = settings.iter();
    let settings: BTreeMap<_, _> = settings
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    given(HostServices {
        config: Arc::new(settings),
        ..HostServices::default()
    })
}

#[test]
fn what_it_imports_is_let_through() {
    let limits = InspectLimits {
        max_memory: 64 << 20,
    };
    let info = inspect(SERVICES, limits).unwrap();
    for name in [
        "wasi:config/store@0.2.0-rc.1",
        "wasi:config/store@0.2.0-draft-2024-09-27",
        "fermyon:spin/variables@2.0.0",
        "fermyon:spin/key-value@2.0.0",
    ] {
        assert!(info.imports.iter().any(|it| it == name), "{name}");
    }
}

#[tokio::test]
async fn a_setting_is_read_by_each_of_its_interfaces() {
    let loaded = set(&[("a", "1"), ("b.c-d", "ü\n")]);
    for path in ["/config?", "/config/draft?", "/variable?"] {
        assert_eq!(answer(&loaded, &format!("{path}name=a")).await, "1\n");
        let other = answer(&loaded, &format!("{path}name=b.c-d")).await;
        assert_eq!(other, "ü\n\n");
    }
    for path in ["/configs", "/configs/draft"] {
        assert_eq!(answer(&loaded, path).await, "a=1\nb.c-d=ü\n\n");
    }
}

#[tokio::test]
async fn what_is_not_set_is_not_there() {
    let loaded = set(&[]);
    assert_eq!(answer(&loaded, "/config?name=PATH").await, "nothing\n");
    assert_eq!(answer(&loaded, "/config/draft?name=").await, "nothing\n");
    assert_eq!(answer(&loaded, "/configs").await, "\n");
    let variable = answer(&loaded, "/variable?name=PATH").await;
    assert!(
        variable.starts_with("refused Error::Undefined"),
        "{variable}"
    );
    assert!(variable.contains("spec.config"), "{variable}");
}
