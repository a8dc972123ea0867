//! HTTP by host: what the service sees, bodies that go on, WebSockets, and several services for one host.

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, stream};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests, web};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::process::Command;

use crate::declared::{declare, proven, target};
use crate::noise::{MUCH, Noise, sum};
use crate::requests::{next, nothing, send, streamed, within};
use crate::site::Site;
use crate::websocket::{self, ACCEPT, KEY};

/// A host of the domain under which everybody finds the machine itself.
const HOST: &str = "photos.localhost";

#[tokio::test(flavor = "multi_thread")]
async fn http_tunnels_carry_requests_as_they_are() {
    let mut swarm = Swarm::builder().agents(2).apart().start().await;
    let ports = [swarm.take_port(), swarm.take_port()];
    let one = Site::start("one", ports[0]).await;
    let _two = Site::start("two", ports[1]).await;
    let spec = json!({ "http": { "host": HOST }, "targets": [target("node-1", ports[0])] });
    declare(&swarm, "photos", spec).await;
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|it| it.ingress_address())
        .collect();
    let mut steps = Steps::new();

    steps
        .run(
            "a service answers at its host through every controller",
            async {
                proven(&swarm, "photos").await;
                for ingress in &ingresses {
                    answers(ingress, HOST, "one").await;
                }
                let other = web::get(&ingresses[0], "other.localhost", "/").await;
                assert_eq!(other.unwrap().status, 404);
            },
        )
        .await;
    steps.run("curl is answered", curl(&ingresses[1])).await;
    steps
        .run("the service sees who asks, and for whom", async {
            let asked = [("connection", "x-hop"), ("x-hop", "1"), ("x-own", "kept")];
            let answer = web::get_with(&ingresses[0], HOST, "/headers", &asked).await;
            let headers = answer.unwrap().text();
            for line in [
                "host: photos.localhost\n",
                "x-forwarded-for: 127.0.0.1\n",
                "x-forwarded-proto: http\n",
                "x-forwarded-host: photos.localhost\n",
                "x-own: kept\n",
            ] {
                assert!(headers.contains(line), "{line}: {headers}");
            }
            assert!(!headers.contains("x-hop"), "{headers}");
        })
        .await;
    steps
        .run(
            "an answer comes as it is written",
            events(&ingresses[2], &one),
        )
        .await;
    steps
        .run("request and answer go on at once", both_ways(&ingresses[0]))
        .await;
    steps
        .run("64 MiB are uploaded", upload(&ingresses[1]))
        .await;
    for ingress in &ingresses {
        steps.run("WebSockets pass", socket(ingress)).await;
    }
    steps
        .run("requests go to all services of a tunnel", async {
            let targets = [target("node-1", ports[0]), target("node-2", ports[1])];
            let spec = json!({ "http": { "host": HOST }, "targets": targets });
            declare(&swarm, "photos", spec).await;
            for ingress in &ingresses {
                both_answer(ingress, HOST, ["one", "two"]).await;
            }
        })
        .await;
    steps
        .run(
            "a function is exposed at another host",
            function(&mut swarm),
        )
        .await;
    steps.finish();
}

/// Waits until the service of that name answers for a host.
pub async fn answers(ingress: &str, host: &str, name: &str) {
    until(
        &format!("{name} answers for {host} at {ingress}"),
        PATIENCE,
        async || {
            let answer = web::get(ingress, host, "/").await;
            let answer = answer.map_err(|error| error.to_string())?.ok()?;
            holds(answer.text() == name, answer.text())
        },
    )
    .await;
}

/// Waits until both services have answered for a host.
pub async fn both_answer(ingress: &str, host: &str, names: [&str; 2]) {
    let mut heard = BTreeSet::new();
    until(
        &format!("{names:?} answer at {ingress}"),
        PATIENCE,
        async || {
            let answer = web::get(ingress, host, "/").await;
            heard.insert(answer.map_err(|error| error.to_string())?.ok()?.text());
            let both = names.iter().all(|name| heard.contains(*name));
            holds(both, format!("{heard:?} did"))
        },
    )
    .await;
}

/// As people try it. curl takes the port from the URL, and the address from what it is told.
async fn curl(ingress: &str) {
    let address = ingress.to_socket_addrs().unwrap().next().unwrap();
    let (ip, port) = (address.ip(), address.port());
    let resolve = format!("{HOST}:{port}:{ip}");
    let url = format!("http://{HOST}:{port}/");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]);
    command.args(["--max-time", "30", "--resolve", &resolve, &url]);
    match within("curl ends", command.output()).await {
        Err(error) => println!("  SKIPPED: curl: {error}"),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "one");
        }
    }
}

async fn events(ingress: &str, site: &Site) {
    let request = Request::get("/events").header("host", HOST);
    let response = send(ingress, request.body(nothing()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut body = response.into_body();
    for event in ["first", "second", "third"] {
        assert_eq!(site.publish(event), 1, "one client listens");
        assert_eq!(next(&mut body).await, format!("data: {event}\n\n"));
    }
    drop(body);
    until(
        "the service is told that nobody listens",
        PATIENCE,
        async || {
            let listening = site.publish("to nobody");
            holds(listening == 0, format!("{listening} do"))
        },
    )
    .await;
}

async fn both_ways(ingress: &str) {
    let (mut saying, said) = mpsc::channel(1);
    let request = Request::post("/echo").header("host", HOST);
    saying.send(Bytes::from("begin")).await.unwrap();
    let response = send(ingress, request.body(streamed(said)).unwrap()).await;
    let mut body = response.into_body();
    assert_eq!(next(&mut body).await, "begin");
    for word in ["middle", "end"] {
        saying.send(Bytes::from(word)).await.unwrap();
        assert_eq!(next(&mut body).await, word);
    }
    drop(saying);
    let rest = within("the end", body.collect()).await.unwrap();
    assert!(rest.to_bytes().is_empty());
}

async fn upload(ingress: &str) {
    let pieces = streamed(stream::iter(Noise::new(MUCH)));
    let request = Request::post("/upload").header("host", HOST);
    let response = send(ingress, request.body(pieces).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer = within("the answer", response.into_body().collect()).await;
    assert_eq!(answer.unwrap().to_bytes(), sum(MUCH));
}

async fn socket(ingress: &str) {
    let request = Request::get("/socket")
        .header(header::HOST, HOST)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, KEY);
    let response = send(ingress, request.body(nothing()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], ACCEPT);
    assert_eq!(response.headers()[header::UPGRADE], "websocket");
    let upgraded = within("the upgrade", hyper::upgrade::on(response)).await;
    let mut stream = TokioIo::new(upgraded.unwrap());
    for text in ["hello", "are you still there"] {
        let exchange = async {
            websocket::send(&mut stream, text, Some([1, 2, 3, 4])).await?;
            websocket::receive(&mut stream).await
        };
        assert_eq!(within("an echo", exchange).await.unwrap(), text);
    }
}

async fn function(swarm: &mut Swarm) {
    let spec = json!({ "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let expose = ["expose", "function/hello", "--host=hi.localhost"];
    let exposed = swarm.ctl(&[&expose[..], &["--wait=180s"]].concat()).await;
    let said = exposed.ok();
    assert!(
        said.contains("tunnel.hive.dev/hello exposed at "),
        "{exposed}"
    );
    assert!(said.contains("tunnel.hive.dev/hello ready: "), "{exposed}");
    for controller in &swarm.controllers {
        let ingress = controller.ingress_address();
        until(&format!("it answers at {ingress}"), PATIENCE, async || {
            let answer = web::get(&ingress, "hi.localhost", "/").await;
            let answer = answer.map_err(|error| error.to_string())?.ok()?;
            holds(answer.text().contains("from hello"), answer.text())
        })
        .await;
    }
    swarm.ctl(&["delete", "tunnel", "hello"]).await.ok();
    // Where it answers by itself it goes on.
    let own = swarm.invoke("hello", "/").await;
    assert_eq!(own.status, 200, "{}", own.text());
}
