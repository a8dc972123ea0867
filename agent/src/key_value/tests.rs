//! What functions may rely on: what was answered is there, once, within its bound, and its own.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::future::join_all;
use hive_functions::Expected;
use hive_proto::desired::EncodedAssignment;

use super::*;

const DEFAULT: &str = "default";

struct Node {
    dir: tempfile::TempDir,
    key_values: KeyValues,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key_values = KeyValues::in_dir(dir.path().to_owned());
        Self { dir, key_values }
    }

    fn of(&self, function: &str, size_limit: u64) -> Arc<dyn KeyValue> {
        let given = v1::KeyValue {
            function_uid: function.to_owned(),
            stores: vec![DEFAULT.to_owned()],
            size_limit,
        };
        self.key_values.given(&given).unwrap().store
    }

    /// As after a restart: the threads have let go of the file.
    fn again(self) -> Self {
        let Self { dir, key_values } = self;
        drop(key_values);
        let path = dir.path().join(FILE);
        let closed = (0..20_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            redb::Database::open(&path).is_ok()
        });
        assert!(closed, "the file is still in use");
        let key_values = KeyValues::in_dir(dir.path().to_owned());
        Self { dir, key_values }
    }
}

fn write(key: &str, value: &[u8]) -> Write {
    Write {
        key: key.to_owned(),
        value: Some(value.to_vec()),
        expected: None,
    }
}

fn removal(key: &str) -> Write {
    Write {
        value: None,
        ..write(key, b"")
    }
}

async fn get(store: &Arc<dyn KeyValue>, key: &str) -> Option<Vec<u8>> {
    let got = store.get(DEFAULT, vec![key.to_owned()]).await.unwrap();
    Some(got.into_iter().next().flatten()?.value)
}

async fn set(store: &Arc<dyn KeyValue>, key: &str, value: &[u8]) -> Result<bool, KeyValueError> {
    store.apply(DEFAULT, vec![write(key, value)]).await
}

#[tokio::test]
async fn a_node_without_stores_has_no_file() {
    let node = Node::new();
    node.key_values.tend_once(BTreeSet::new()).await.unwrap();
    assert_eq!(node.dir.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let node = Node::new();
    let store = node.of("f", 1 << 20);
    assert_eq!(set(&store, "a", b"1").await, Ok(true));
    let both = vec![write("b", b"2"), removal("a"), write("c", b"")];
    assert_eq!(store.apply(DEFAULT, both).await, Ok(true));
    drop(store);

    let node = node.again();
    let store = node.of("f", 1 << 20);
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(get(&store, "b").await.unwrap(), b"2");
    assert_eq!(get(&store, "c").await.unwrap(), b"");
    let keys = store.list(DEFAULT, None).await.unwrap();
    assert_eq!(keys, ["b", "c"]);
}

/// A power cut while the file is made leaves its length and none of its contents.
#[tokio::test]
async fn a_file_that_was_half_made_is_made_anew() {
    let node = Node::new();
    let unfinished = node.dir.path().join(FILE).with_extension("new");
    std::fs::write(&unfinished, [0; 4096]).unwrap();
    let store = node.of("f", 1 << 20);
    assert_eq!(set(&store, "a", b"1").await, Ok(true));
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn functions_and_buckets_see_their_own_only() {
    let node = Node::new();
    let (one, two) = (node.of("one", 1 << 20), node.of("one2", 1 << 20));
    set(&one, "key", b"1").await.unwrap();
    assert_eq!(get(&two, "key").await, None);
    assert_eq!(two.list(DEFAULT, None).await.unwrap(), [""; 0]);
    // Not even by names that look like a part of another place.
    for bucket in ["", "defaul", "default\0key"] {
        assert_eq!(one.list(bucket, None).await.unwrap(), [""; 0]);
    }
    let mine = one.apply("other", vec![removal("key")]).await;
    assert_eq!(mine, Ok(true));
    assert_eq!(get(&one, "key").await.unwrap(), b"1");
}

#[tokio::test]
async fn of_those_who_expect_the_same_one_writes() {
    let node = Node::new();
    let store = node.of("f", 1 << 20);
    let claim = |expected| {
        let store = store.clone();
        async move {
            let write = Write {
                expected: Some(expected),
                ..write("lock", b"mine")
            };
            store.apply(DEFAULT, vec![write]).await.unwrap()
        }
    };
    let won = join_all((0..50).map(|_| claim(Expected::Nothing))).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);

    let entry = |got: Vec<Option<Entry>>| got.into_iter().next().flatten().unwrap();
    let was = entry(store.get(DEFAULT, vec!["lock".to_owned()]).await.unwrap());
    // Removed, and made anew with the same value: still another one, also after a restart.
    let anew = store.apply(DEFAULT, vec![removal("lock")]).await;
    assert_eq!(anew, Ok(true));
    let node = {
        drop(store);
        node.again()
    };
    let store = node.of("f", 1 << 20);
    set(&store, "lock", b"mine").await.unwrap();
    let is = entry(store.get(DEFAULT, vec!["lock".to_owned()]).await.unwrap());
    assert!(is.version > was.version);
}

#[tokio::test]
async fn a_batch_happens_whole_or_not_at_all() {
    let node = Node::new();
    let store = node.of("f", 1 << 20);
    let unmet = Write {
        expected: Some(Expected::Version(77)),
        ..write("b", b"2")
    };
    let batch = vec![write("a", b"1"), unmet];
    assert_eq!(store.apply(DEFAULT, batch).await, Ok(false));
    assert_eq!(get(&store, "a").await, None);

    let quota = node.of("small", 200);
    let batch = vec![write("a", b"1"), write("b", &[0; 200])];
    let refused = quota.apply(DEFAULT, batch).await;
    assert_eq!(refused, Err(KeyValueError::Quota(200)));
    assert_eq!(get(&quota, "a").await, None);
}

#[tokio::test]
async fn a_quota_is_exact_however_many_write() {
    /// Ten entries of a key of one byte, a value of 35 and 64 bytes each.
    const QUOTA: u64 = 1000;
    let node = Node::new();
    let store = node.of("f", QUOTA);
    let writes = ('a'..='t').map(|key| {
        let store = store.clone();
        async move { set(&store, &key.to_string(), &[b'x'; 35]).await }
    });
    let outcomes = join_all(writes).await;
    let written = outcomes.iter().filter(|it| **it == Ok(true)).count();
    assert_eq!(written, 10);
    let refused = Err(KeyValueError::Quota(QUOTA));
    assert_eq!(outcomes.iter().filter(|it| **it == refused).count(), 10);

    // What is removed makes room, what is written over takes its own.
    let keys = store.list(DEFAULT, None).await.unwrap();
    assert_eq!(set(&store, &keys[0], &[b'y'; 35]).await, Ok(true));
    assert_eq!(set(&store, &keys[0], &[b'y'; 36]).await, refused);
    assert_eq!(
        store.apply(DEFAULT, vec![removal(&keys[0])]).await,
        Ok(true)
    );
    assert_eq!(set(&store, "z", &[b'x'; 35]).await, Ok(true));
    assert_eq!(set(&store, "y", b"").await, refused);

    // A bound that was lowered lets it shrink.
    let lowered = node.of("f", 100);
    assert_eq!(set(&lowered, "z", b"").await, Ok(true));
    assert_eq!(
        set(&lowered, "z", b"1").await,
        Err(KeyValueError::Quota(100))
    );
}

#[tokio::test]
async fn what_nobody_wants_goes_after_a_week() {
    let node = Node::new();
    let (kept, gone) = (node.of("kept", 1 << 20), node.of("gone", 1 << 20));
    set(&kept, "a", b"1").await.unwrap();
    set(&gone, "a", b"1").await.unwrap();
    let store = node.key_values.open().unwrap();
    let wanted = BTreeSet::from(["kept".to_owned()]);

    let later = now() + retention::KEPT;
    let removed = store.retain(wanted.clone(), later).await.unwrap();
    assert_eq!(removed, [""; 0]);
    let removed = store.retain(wanted, later + retention::KEPT).await.unwrap();
    assert_eq!(removed, ["gone"]);
    assert_eq!(get(&gone, "a").await, None);
    assert_eq!(get(&kept, "a").await.unwrap(), b"1");
}

/// Names that an assignment gives are those that are looked for.
#[test]
fn assignments_say_what_is_wanted() {
    let assignment = |function_uid: Option<&str>| {
        EncodedAssignment::new(v1::Assignment {
            key_value: function_uid.map(|uid| v1::KeyValue {
                function_uid: uid.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let desired = DesiredSet {
        assignments: vec![assignment(None), assignment(Some("f"))],
        ..DesiredSet::none()
    };
    assert_eq!(wanted(&desired), BTreeSet::from(["f".to_owned()]));
}

/// Nobody is given another value for one in which a bit turned.
#[tokio::test]
async fn a_turned_bit_is_told() {
    let node = Node::new();
    let store = node.of("f", 1 << 20);
    set(&store, "a", &[b'x'; 1000]).await.unwrap();
    drop(store);
    let Node { dir, key_values } = node.again();
    drop(key_values);
    let path = dir.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let value = bytes
        .windows(500)
        .position(|window| window == [b'x'; 500])
        .unwrap();
    bytes[value + 7] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let key_values = KeyValues::in_dir(dir.path().to_owned());
    // redb asserts in builds of tests what it reports in others.
    let Ok(opened) = catch_unwind(AssertUnwindSafe(|| key_values.open())) else {
        return;
    };
    match opened {
        Err(error) => {
            assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(FILE), "{error}");
        }
        Ok(store) => {
            let place = Place {
                function: "f".into(),
                bucket: DEFAULT.to_owned(),
            };
            let got = store.get(place, vec!["a".to_owned()]).await;
            let is_given = got.as_ref().is_ok_and(|entries| entries[0].is_some());
            assert!(!is_given, "{got:?}");
        }
    }
}
