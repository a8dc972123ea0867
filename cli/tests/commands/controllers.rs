//! controller list, replace, remove.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Swarm;

const PATH: &str = "/apis/hive.dev/v1/controllers";

fn controller(id: u64, voter: bool) -> Value {
    json!({
        "apiVersion": "hive.dev/v1", "kind": "Controller",
        "metadata": { "name": id.to_string() },
        "spec": { "link": format!("10.0.0.{id}:7443") },
        "status": { "voter": voter, "state": "Ready", "role": "voter" },
    })
}

#[tokio::test]
async fn a_removal_may_be_forced() {
    let swarm = Swarm::start().await;
    swarm.fake.put(&format!("{PATH}/3"), controller(3, true));
    let run = swarm.run(&["controller", "remove", "3", "--force"]).await;
    run.expect(0, "controller 3 removed\n", "");
    let sent = swarm.fake.requests().concat();
    assert!(
        sent.contains("DELETE /apis/hive.dev/v1/controllers/3?force=true"),
        "{sent}"
    );
}

#[tokio::test]
async fn the_old_one_goes_only_when_a_new_one_votes() {
    let swarm = Swarm::start().await;
    for id in 1..=3 {
        swarm
            .fake
            .put(&format!("{PATH}/{id}"), controller(id, true));
    }
    let run = swarm.run(&["controller", "replace", "7"]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err
            .contains("there is no controller 7; there are 1, 2, 3"),
        "{}",
        run.err
    );

    swarm.fake.put(&format!("{PATH}/4"), controller(4, false));
    let late = swarm
        .run(&["controller", "replace", "2", "--timeout", "1ms"])
        .await;
    assert_eq!(late.code, 1);
    assert!(late.err.contains("nothing was removed"), "{}", late.err);
    assert!(
        late.out
            .contains("--controllers 10.0.0.1:7443,10.0.0.3:7443,10.0.0.4:7443"),
        "{}",
        late.out
    );
    assert!(swarm.fake.object(&format!("{PATH}/2")).is_some());

    // Of the attempt before: the new one must wait for this one's token.
    swarm.fake.requests();
    let fake = swarm.fake.clone();
    tokio::spawn(async move {
        // Not before it was asked for.
        while !fake
            .requests()
            .concat()
            .contains("POST /api/v1/namespaces/hive-system/secrets")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fake.put(&format!("{PATH}/5"), controller(5, true));
    });
    let run = swarm.run(&["controller", "replace", "2"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out
            .ends_with("controller 5 votes\ncontroller 2 removed: controller 5 has its place\n"),
        "{}",
        run.out
    );
    assert!(swarm.fake.object(&format!("{PATH}/2")).is_none());
}
