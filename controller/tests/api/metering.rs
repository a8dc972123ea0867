//! What was used: counted once, shown as objects and tables, to whoever may see it.

use hive_controller::access::tokens::Role;
use hive_controller::state::{Command, metering};
use serde_json::json;

use crate::functions::hello;
use crate::harness::{FUNCTIONS, Server};

/// A batch of what `hello` used, as its node's session proposes it.
async fn used(server: &Server, sequence: u64) {
    let entry = |function: &str| metering::Entry {
        namespace: "default".into(),
        function: function.into(),
        used: metering::Used {
            requests: 10,
            memory_kib_ms: 1 << 30,
            ..metering::Used::default()
        },
    };
    let batch = metering::Batch {
        device: "device".into(),
        origin: "origin".into(),
        sequence,
        at_unix_ms: 1_700_000_000_000,
        entries: vec![entry("hello"), entry("gone")],
    };
    server.propose(Command::Meter { batch }).await;
}

#[tokio::test]
async fn usage_is_counted_once_and_outlives_its_function_in_the_namespace() {
    let server = Server::start().await;
    hello(&server).await;
    let base = "/apis/metering.hive.dev/v1";
    let functions = format!("{base}/namespaces/default/functions");
    let unused = server.get(&format!("{functions}/hello")).await.ok();
    assert_eq!(
        (&unused["kind"], &unused["requests"]),
        (&json!("FunctionUsage"), &json!(0))
    );
    for _ in 0..2 {
        used(&server, 1).await;
    }
    let one = server.get(&format!("{functions}/hello")).await.ok();
    assert_eq!(
        (&one["requests"], &one["gbSeconds"]),
        (&json!(10), &json!(1.024))
    );
    assert_eq!(one["since"], "2023-11-14T22:13:20Z");
    let list = server.get(&format!("{base}/functions")).await.ok();
    assert_eq!(list["items"], json!([one]));
    server.get(&format!("{functions}/missing")).await.fails(
        404,
        "NotFound",
        "functions.hive.dev \"missing\" not found",
    );

    let table = server
        .request("GET", &format!("{base}/namespaces"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .bearing(&server.token(Role::View, None).await)
        .send()
        .await
        .ok();
    let rows = table["rows"].as_array().unwrap().iter();
    let default = rows
        .map(|row| &row["cells"])
        .find(|cells| cells[0] == "default");
    assert_eq!(default.unwrap()[1], "20", "{table}");

    server.delete(&format!("{FUNCTIONS}/hello")).await.ok();
    server
        .until(|state| state.metering().functions().next().is_none())
        .await;
    let namespace = server.get(&format!("{base}/namespaces/default")).await.ok();
    assert_eq!(
        (&namespace["kind"], &namespace["requests"]),
        (&json!("NamespaceUsage"), &json!(20))
    );
}
