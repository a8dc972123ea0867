//! Spin's own interfaces, of both generations: the same buckets and settings as by WASI's drafts.

use std::{collections::BTreeMap, sync::Arc};

use hive_functions::HostServices;

use super::{answer, given, memory};
use crate::{
    guests::{Loaded, limits, load_compiled, options},
    scratch::SERVICES_0_3,
};

/// A guest of WASI 0.2 and one of 0.3, which were given the same.
fn both(services: HostServices) -> [Loaded; 2] {
    let later = load_compiled(&SERVICES_0_3, |logs| {
        let mut options = options(limits(), logs);
        options.services = services.clone();
        options
    });
    [given(services), later]
}

fn keeping(names: &[&str]) -> [Loaded; 2] {
    both(HostServices {
        key_value: Some(memory::buckets(names)),
        ..HostServices::default()
    })
}

#[tokio::test]
async fn a_bucket_is_the_same_by_each_interface() {
    let [earlier, later] = &keeping(&["default", "other"]);
    for (loaded, target, expected) in [
        (earlier, "/kv/spin/get?key=a", "nothing"),
        (earlier, "/kv/spin/set?key=a&value=1", "done"),
        (later, "/kv/spin3/get?key=a", "1"),
        (earlier, "/kv/draft2/get?key=a", "1"),
        (later, "/kv/spin3/exists?key=a&bucket=other", "false"),
        (later, "/kv/spin3/set?key=a&value=2", "done"),
        (later, "/kv/spin3/set?key=b&value=3", "done"),
        (earlier, "/kv/spin/get?key=a", "2"),
        (earlier, "/kv/spin/exists?key=b", "true"),
        (earlier, "/kv/spin/list", "2 keys"),
        (earlier, "/kv/spin/delete?key=a", "done"),
        (later, "/kv/spin3/list", "1 keys"),
        (later, "/kv/spin3/delete?key=b", "done"),
        (later, "/kv/spin3/delete?key=b", "done"),
        (later, "/kv/spin3/list", "0 keys"),
    ] {
        assert_eq!(
            answer(loaded, target).await.trim_end(),
            expected,
            "{target}"
        );
    }
}

#[tokio::test]
async fn what_is_not_given_is_refused_in_spins_words() {
    let nothing = both(HostServices::default());
    let other = keeping(&["other"]);
    for (loaded, reason) in [(nothing, "AccessDenied"), (other, "NoSuchStore")] {
        for (loaded, kind) in loaded.iter().zip(["spin", "spin3"]) {
            let refused = answer(loaded, &format!("/kv/{kind}/get?key=a")).await;
            assert_eq!(refused, format!("refused Error::{reason}\n"));
        }
    }
    let [earlier, later] = &keeping(&["default"]);
    let key = "k".repeat(1025);
    for (loaded, kind) in [(earlier, "spin"), (later, "spin3")] {
        let refused = answer(loaded, &format!("/kv/{kind}/get?key={key}")).await;
        assert!(refused.starts_with("refused Error::Other("), "{refused}");
    }
}

#[tokio::test]
async fn a_list_has_the_keys_of_all_pages() {
    let [earlier, later] = &keeping(&["default"]);
    for thousand in 0..2 {
        let keys: Vec<_> = (0..900).map(|n| format!("key={thousand}{n:03}")).collect();
        let target = format!("/kv/draft/set-many?value=1&{}", keys.join("&"));
        assert_eq!(answer(earlier, &target).await, "done\n");
    }
    assert_eq!(answer(earlier, "/kv/spin/list").await, "1800 keys\n");
    assert_eq!(answer(later, "/kv/spin3/list").await, "1800 keys\n");
}

#[tokio::test]
async fn settings_are_variables() {
    let settings = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    let loaded = both(HostServices {
        config: Arc::new(settings),
        ..HostServices::default()
    });
    for loaded in &loaded {
        assert_eq!(answer(loaded, "/variable?name=a").await, "1\n");
        let refused = answer(loaded, "/variable?name=b").await;
        assert!(
            refused.starts_with("refused Error::Undefined("),
            "{refused}"
        );
    }
}
