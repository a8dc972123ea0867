//! Buckets, as a guest sees them by both drafts.

use futures::future::join_all;
use hive_functions::HostServices;

use super::{answer, given, memory};
use crate::guests::Loaded;

fn keeping(names: &[&str]) -> Loaded {
    given(HostServices {
        key_value: Some(memory::buckets(names)),
        ..HostServices::default()
    })
}

const DRAFTS: [&str; 2] = ["draft", "draft2"];

/// Each request is an instance of its own: what one wrote another one reads.
#[tokio::test]
async fn entries_outlive_the_request_that_wrote_them() {
    for draft in DRAFTS {
        let loaded = keeping(&["default", "other"]);
        let cases = [
            ("get?key=a", "nothing\n"),
            ("exists?key=a", "false\n"),
            ("set?key=a&value=1", "done\n"),
            ("get?key=a", "1\n"),
            ("get?key=a&bucket=default", "1\n"),
            ("exists?key=a", "true\n"),
            ("get?key=a&bucket=other", "nothing\n"),
            ("set?key=a&value=2", "done\n"),
            ("get?key=a", "2\n"),
            ("set-many?key=b&key=c&value=3", "done\n"),
            ("list", "3 keys a,b,c to the end\n"),
            ("delete?key=a", "done\n"),
            ("delete?key=a", "done\n"),
            ("delete-many?key=b&key=x", "done\n"),
            ("list", "1 keys c to the end\n"),
        ];
        for (what, expected) in cases {
            let answer = answer(&loaded, &format!("/kv/{draft}/{what}")).await;
            assert_eq!(answer, expected, "{draft} {what}");
        }
    }
}

#[tokio::test]
async fn many_are_read_in_the_order_that_was_asked() {
    let loaded = keeping(&["default"]);
    answer(&loaded, "/kv/draft/set-many?key=a&key=b&value=1").await;
    let got = answer(&loaded, "/kv/draft/get-many?key=b&key=x&key=a").await;
    assert_eq!(got, "b=1,nothing,a=1\n");
    let got = answer(&loaded, "/kv/draft2/get-many?key=b&key=x&key=a").await;
    assert_eq!(got, "b=1,x=nothing,a=1\n");
}

#[tokio::test]
async fn only_buckets_that_are_named_open() {
    for draft in DRAFTS {
        let get = format!("/kv/{draft}/get?key=a");
        let nothing = given(HostServices::default());
        let refused = answer(&nothing, &get).await;
        assert_eq!(refused, "refused Error::AccessDenied\n");

        let other = keeping(&["other"]);
        let refused = answer(&other, &get).await;
        assert_eq!(refused, "refused Error::NoSuchStore\n");
        assert_eq!(answer(&other, &(get + "&bucket=other")).await, "nothing\n");
    }
}

#[tokio::test]
async fn increments_of_many_requests_at_once_are_all_counted() {
    let loaded = keeping(&["default"]);
    let count = |n: usize| {
        let draft = DRAFTS[n % 2];
        let loaded = &loaded;
        async move { answer(loaded, &format!("/kv/{draft}/increment?key=n")).await }
    };
    join_all((0..100).map(count)).await;
    assert_eq!(answer(&loaded, "/kv/draft/get?key=n").await, "100\n");
    let less = answer(&loaded, "/kv/draft2/increment?key=n&delta=-101").await;
    assert_eq!(less, "-1\n");
    for (draft, key) in [("draft", "n"), ("draft2", "text")] {
        answer(&loaded, "/kv/draft/set?key=text&value=abc").await;
        let refused = answer(&loaded, &format!("/kv/{draft}/increment?key={key}")).await;
        assert!(refused.contains("holds no number that fits"), "{refused}");
    }
    answer(&loaded, &format!("/kv/draft/set?key=n&value={}", u64::MAX)).await;
    let refused = answer(&loaded, "/kv/draft/increment?key=n").await;
    assert!(
        refused.contains("would be no number that fits"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_swap_happens_only_where_nobody_was_between() {
    let loaded = keeping(&["default"]);
    let cases = [
        ("swap?key=a&value=1", "swapped nothing\n"),
        ("swap?key=a&value=2", "swapped 1\n"),
        ("swap?key=a&value=3&meddle=x", "failed at x, then swapped\n"),
        // The same value again is another one.
        ("swap?key=a&value=4&meddle=3", "failed at 3, then swapped\n"),
        ("get?key=a", "4\n"),
    ];
    for (what, expected) in cases {
        let answer = answer(&loaded, &format!("/kv/draft2/{what}")).await;
        assert_eq!(answer, expected, "{what}");
    }
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let loaded = keeping(&["default"]);
    for thousand in 0..2 {
        let keys: Vec<_> = (0..900).map(|n| format!("key={thousand}{n:03}")).collect();
        let target = format!("/kv/draft/set-many?value=1&{}", keys.join("&"));
        assert_eq!(answer(&loaded, &target).await, "done\n");
    }
    let page = answer(&loaded, "/kv/draft/list").await;
    assert_eq!(page, "1000 keys  to 1000\n");
    let page = answer(&loaded, "/kv/draft/list?cursor=1000").await;
    assert_eq!(page, "800 keys  to the end\n");
    let page = answer(&loaded, "/kv/draft/list?cursor=1798").await;
    assert_eq!(page, "2 keys 1898,1899 to the end\n");
    let page = answer(&loaded, "/kv/draft/list?cursor=5000").await;
    assert_eq!(page, "0 keys  to the end\n");

    let page = answer(&loaded, "/kv/draft2/list").await;
    assert_eq!(page, "1000 keys  to 1099\n");
    let page = answer(&loaded, "/kv/draft2/list?cursor=1897").await;
    assert_eq!(page, "2 keys 1898,1899 to the end\n");
}

#[tokio::test]
async fn a_full_disk_is_an_event() {
    let loaded = keeping(&["default"]);
    let fill = |thousand: usize| {
        let keys: Vec<_> = (0..1000).map(|n| format!("key={thousand}{n:03}")).collect();
        format!("/kv/draft/set-many?value=1&{}", keys.join("&"))
    };
    for thousand in 0..memory::ROOM / 1000 {
        assert_eq!(answer(&loaded, &fill(thousand)).await, "done\n");
    }
    assert_eq!(loaded.logs.records(), []);
    let refused = answer(&loaded, "/kv/draft/set?key=a&value=1").await;
    assert!(
        refused.contains("the disk of the node is full"),
        "{refused}"
    );
    let records = loaded.logs.records();
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(
        record.text,
        "DiskFull: bucket \"default\": the disk of the node is full"
    );
    let event = record.event.as_ref().unwrap();
    assert_eq!(
        (event.reason, &*event.message),
        ("DiskFull", "the disk of the node is full")
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_says_the_bound() {
    let loaded = keeping(&["default"]);
    let long = "k".repeat(1025);
    let many: Vec<_> = (0..1001).map(|n| format!("key={n}")).collect();
    let many = many.join("&");
    let cases = [
        (
            format!("get?key={long}"),
            "a key has 1 to 1024 bytes, not 1025",
        ),
        ("get?key=".to_owned(), "a key has 1 to 1024 bytes, not 0"),
        (
            format!("get-many?{many}"),
            "1001 keys in one call, and 1000",
        ),
        (
            format!("delete-many?{many}"),
            "1001 keys in one call, and 1000",
        ),
        (
            "set?key=a&bytes=1048577".to_owned(),
            "1048577 bytes, and 1048576",
        ),
        (
            "set-many?key=a&key=b&key=c&key=d&key=e&bytes=1000000".to_owned(),
            "more than 4194304 bytes in one call",
        ),
    ];
    for draft in DRAFTS {
        for (what, why) in &cases {
            let refused = answer(&loaded, &format!("/kv/{draft}/{what}")).await;
            let start = refused.starts_with("refused Error::Other(");
            assert!(start && refused.contains(why), "{draft} {why}: {refused}");
        }
    }
    let largest = answer(&loaded, "/kv/draft/set?key=a&bytes=1048576").await;
    assert_eq!(largest, "done\n");
    assert_eq!(
        answer(&loaded, "/kv/draft/get?key=a").await,
        "1048576 bytes\n"
    );
}
