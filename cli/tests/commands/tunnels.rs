//! expose, and what describe and wait say of a tunnel.

use http::Method;
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::harness::Swarm;

const TUNNELS: &str = "/apis/hive.dev/v1/namespaces/default/tunnels";
const PHOTOS: &str = "/apis/hive.dev/v1/namespaces/default/tunnels/photos";

async fn swarm() -> Swarm {
    let swarm = Swarm::start().await;
    for node in ["pi-1", "pi-2"] {
        swarm.fake.put(
            &format!("/apis/hive.dev/v1/nodes/{node}"),
            json!({"apiVersion": "hive.dev/v1", "kind": "Node", "metadata": {"name": node}}),
        );
    }
    swarm.fake.put(
        "/apis/hive.dev/v1/namespaces/default/functions/hello",
        json!({"apiVersion": "hive.dev/v1", "kind": "Function",
               "metadata": {"name": "hello", "namespace": "default"}}),
    );
    swarm
}

/// As the leader writes it.
fn tell(fake: &Fake, path: &str, ready: &str, reason: &str, message: &str) {
    fake.edit(path, |tunnel| {
        tunnel["status"] = json!({
            "observedGeneration": tunnel["metadata"]["generation"],
            "addresses": ["http://photos.example.org"],
            "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": message}],
        });
    });
}

const PHOTOS_FLAGS: [&str; 8] = [
    "expose",
    "node/pi-1",
    "--port",
    "3000",
    "--host",
    "photos.example.org",
    "--name",
    "photos",
];

#[tokio::test]
async fn a_service_is_exposed_and_its_address_told() {
    let swarm = swarm().await;
    let running = swarm.begin(&PHOTOS_FLAGS, "");
    swarm.fake.made(PHOTOS).await;
    tell(
        &swarm.fake,
        PHOTOS,
        "Unknown",
        "NotTried",
        "nobody was there",
    );
    let address =
        "tunnel.hive.dev/photos exposed at http://photos.example.org\n  access: everybody\n";
    running.end().await.expect(0, address, "");
    let spec = json!({
        "protocol": "HTTP",
        "http": {"host": "photos.example.org"},
        "targets": [{"node": "pi-1", "port": 3000}],
    });
    assert_eq!(swarm.fake.object(PHOTOS).unwrap()["spec"], spec);
    let sent = swarm.fake.requests();
    let apply = format!("PATCH {PHOTOS}?fieldValidation=Strict&fieldManager=hivectl-expose");
    assert!(sent.contains(&apply), "{sent:?}");

    // Saying it again is saying it once.
    let run = swarm.run(&PHOTOS_FLAGS).await;
    run.expect(0, address, "");

    // Who does not wait hears what is in the way all the same.
    let taken = "port 2222 is that of tunnel default/ssh, which is older";
    tell(&swarm.fake, PHOTOS, "False", "PortConflict", taken);
    let run = swarm.run(&PHOTOS_FLAGS).await;
    let note = format!("not reached yet: {taken} (PortConflict)\n");
    run.expect(0, address, &note);
}

#[tokio::test]
async fn expose_waits_until_the_service_was_reached_and_says_what_is_in_the_way() {
    let swarm = swarm().await;
    let running = swarm.begin(&[&PHOTOS_FLAGS[..], &["--wait"]].concat(), "");
    swarm.fake.made(PHOTOS).await;
    let down = "127.0.0.1:3000 refuses connections on node pi-1";
    tell(&swarm.fake, PHOTOS, "False", "TargetDown", down);
    running.err.contains(down).await;
    tell(&swarm.fake, PHOTOS, "True", "Proven", "reached in 12 ms");
    let run = running.end().await;
    assert_eq!(
        (run.code, &*run.out),
        (
            0,
            "tunnel.hive.dev/photos exposed at http://photos.example.org\n  access: everybody\n\
             tunnel.hive.dev/photos ready: reached in 12 ms\n"
        )
    );
    let line = format!("waiting for tunnel \"photos\": {down} (TargetDown)\n");
    assert!(run.err.ends_with(&line), "{}", run.err);

    tell(&swarm.fake, PHOTOS, "False", "TargetDown", down);
    let run = swarm
        .run(&[&PHOTOS_FLAGS[..], &["--wait=5s", "-o", "name"]].concat())
        .await;
    run.expect(
        1,
        "tunnel.hive.dev/photos\n",
        &format!(
            "{line}error: timed out waiting for tunnel \"photos\" to be reached\n  \
             {down} (TargetDown)\n  \
             it stays, and is tried again: `hivectl describe tunnel photos` tells more\n"
        ),
    );

    let running = swarm.begin(&[&PHOTOS_FLAGS[..], &["--wait=0s"]].concat(), "");
    running.err.contains(down).await;
    swarm.fake.remove(PHOTOS);
    let run = running.end().await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains("was deleted"), "{}", run.err);
}

#[tokio::test]
async fn a_dry_run_prints_a_manifest_and_changes_nothing() {
    let swarm = swarm().await;
    let flags = ["expose", "node/elsewhere", "--port=22", "--tcp-port=2222"];
    let run = swarm
        .run(&[&flags[..], &["--dry-run=client", "-o", "yaml"]].concat())
        .await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(swarm.fake.requests().is_empty());
    let manifest = swarm.file("tunnel.yaml", &run.out);
    let run = swarm.run(&["apply", "-f", &manifest]).await;
    run.expect(0, "tunnel.hive.dev/elsewhere-22 created\n", "");
    let made = swarm.fake.object(&format!("{TUNNELS}/elsewhere-22"));
    assert_eq!(
        made.unwrap()["spec"],
        json!({"protocol": "TCP", "port": 2222, "targets": [{"node": "elsewhere", "port": 22}]})
    );

    let flags = ["expose", "fn/hello", "--host=hello.example.org"];
    let run = swarm
        .run(&[&flags[..], &["--dry-run=server"]].concat())
        .await;
    run.expect(0, "tunnel.hive.dev/hello exposed (server dry run)\n", "");
    assert_eq!(swarm.fake.object(&format!("{TUNNELS}/hello")), None);
    let bodies = swarm.fake.bodies();
    let spec = &bodies.last().unwrap()["spec"];
    assert_eq!(spec["function"], "hello");
}

#[tokio::test]
async fn a_mistake_is_answered_by_what_there_is() {
    let swarm = swarm().await;
    let run = swarm.run(&["expose", "node/pi-11", "--port", "3000"]).await;
    run.expect(
        1,
        "",
        "Error from server (NotFound): nodes.hive.dev \"pi-11\" not found\n  \
         did you mean \"pi-1\"?\n  there are nodes pi-1, pi-2\n",
    );
    let run = swarm
        .run(&["expose", "function", "shop", "--host", "shop.example.org"])
        .await;
    run.expect(
        1,
        "",
        "Error from server (NotFound): functions.hive.dev \"shop\" not found\n  there is only \"hello\"\n",
    );
    assert!(swarm.fake.bodies().is_empty(), "nothing was sent");
    for usage in [
        &["expose", "node/pi-1"][..],
        &["expose", "pi-1", "--port=1"],
        &["expose", "node/pi-1", "--port=1", "--tcp-port=80"],
        &["expose", "fn/hello"],
    ] {
        assert_eq!(swarm.run(usage).await.code, 2, "{usage:?}");
    }
    let run = swarm.run(&["expose", "svc/shop", "--port=80"]).await;
    assert_eq!(run.code, 2);
    let forms = "expose takes node/NAME --port PORT, or function/NAME --host HOST";
    assert!(run.err.contains(forms), "{}", run.err);
    let run = swarm.run(&["edit", "tunnel"]).await;
    assert_eq!(run.code, 1);
    let kind = "\"tunnel\" is a kind: say which one, as in tunnel/NAME";
    assert!(run.err.contains(kind), "{}", run.err);

    // Who may not look at nodes may make a tunnel all the same.
    let node = "/apis/hive.dev/v1/nodes/pi-2";
    let refuse = |method, path: &str, code, reason, details: Value| {
        swarm.fake.refuse(method, path, code, reason, details);
    };
    refuse(Method::GET, node, 403, "Forbidden", json!({}));
    let flags = ["expose", "node/pi-2", "--port=80", "-o", "name"];
    let run = swarm.run(&flags).await;
    run.expect(0, "tunnel.hive.dev/pi-2-80\n", "");

    let path = format!("{TUNNELS}/pi-2-80");
    let causes = json!({"causes": [{"reason": "FieldManagerConflict", "field": ".spec.targets", "message": "conflict"}]});
    refuse(Method::PATCH, &path, 409, "Conflict", causes);
    let run = swarm.run(&flags).await;
    assert_eq!(run.code, 1);
    let remedy = "tunnel \"pi-2-80\" is declared elsewhere: change it there, or give this one another --name";
    assert!(run.err.contains(remedy), "{}", run.err);
}

#[tokio::test]
async fn a_tunnel_is_described_and_waited_for() {
    let swarm = swarm().await;
    swarm.fake.put(
        PHOTOS,
        json!({"apiVersion": "hive.dev/v1", "kind": "Tunnel",
            "metadata": {"name": "photos", "namespace": "default", "generation": 1, "uid": "new"},
            "spec": {"protocol": "HTTP", "idleTimeout": "1h", "tls": {"secretName": "photos-tls"},
                "access": {"allowedClients": ["10.0.0.0/8"], "basicAuth": {"secretName": "users"}},
                "targets": [{"node": "pi-1", "host": "127.0.0.1", "port": 3000},
                            {"node": "pi-2", "host": "127.0.0.1", "port": 3000}]},
            "status": {"observedGeneration": 1, "addresses": ["http://photos.default.localhost:8080"],
                "targets": [{"node": "pi-1", "address": "127.0.0.1:3000", "healthy": false,
                             "reason": "Refused", "message": "nothing listens there"}],
                "probe": {"lastSuccess": "2026-01-01T00:00:00Z", "latencyMs": 12,
                    "lastFailure": {"time": "2026-01-02T00:00:00Z", "reason": "TargetDown", "message": "no target answers"}},
                "conditions": [{"type": "Ready", "status": "False", "reason": "TargetDown",
                    "message": "no target answers"}]}}),
    );
    swarm.fake.put(
        "/api/v1/namespaces/default/events/photos.1",
        json!({"metadata": {"name": "photos.1", "namespace": "default"}, "type": "Warning", "reason": "TargetDown",
            "involvedObject": {"kind": "Tunnel", "name": "photos"}, "message": "no target answers"}),
    );
    for (event, reason, uid) in [
        ("photos.2", "Proven", "new"),
        ("photos.3", "NotResolved", "old"),
    ] {
        swarm.fake.put(
            &format!("/api/v1/namespaces/default/events/{event}"),
            json!({"metadata": {"name": event, "namespace": "default"}, "type": "Normal", "reason": reason,
                "involvedObject": {"kind": "Tunnel", "name": "photos", "uid": uid}, "message": "it was so"}),
        );
    }
    let run = swarm.run(&["describe", "tun", "photos"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    for part in [
        "Status:          Not ready (TargetDown): no target answers\n",
        "Address:         http://photos.default.localhost:8080\n",
        "Protocol:        HTTP\n",
        "Idle Timeout:    1h\n",
        "Provider:        Hive\n",
        "Certificate:     of Secret photos-tls\n",
        "Access:          from 10.0.0.0/8\n",
        "                 who is in Secret users\n",
        "pi-1   127.0.0.1:3000   Down (Refused)   nothing listens there\n",
        "pi-2   127.0.0.1:3000   Unknown\n",
        "Last Reached:    2026-01-01T00:00:00Z (",
        " ago), in 12 ms\n",
        "Last Failure:    2026-01-02T00:00:00Z (",
        " ago): TargetDown\n",
        "Conditions:",
        "Warning   TargetDown",
        "Normal    Proven",
    ] {
        assert!(run.out.contains(part), "{part}: {}", run.out);
    }
    // On top, and in the event.
    let said = run.out.matches("no target answers").count();
    assert_eq!(said, 2, "{}", run.out);
    // That was of another one, which had the name before.
    assert!(!run.out.contains("NotResolved"), "{}", run.out);

    let running = swarm.begin(&["wait", "--for=condition=Ready", "tunnel/photos"], "");
    tell(&swarm.fake, PHOTOS, "True", "Proven", "reached in 12 ms");
    let run = running.end().await;
    run.expect(0, "tunnel.hive.dev/photos condition met\n", "");
    let run = swarm.run(&["describe", "tunnel/photos"]).await;
    let ready = "Status:          Ready: reached in 12 ms\n";
    assert!(run.out.contains(ready), "{}", run.out);
    let run = swarm.run(&["get", "tunnels", "-o", "name"]).await;
    run.expect(0, "tunnel.hive.dev/photos\n", "");
    let run = swarm.run(&["delete", "tunnel", "photos"]).await;
    run.expect(0, "tunnel.hive.dev \"photos\" deleted\n", "");
}
