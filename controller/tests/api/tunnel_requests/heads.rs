//! Who is asked for what, and what everybody is told.

use std::sync::{Arc, Mutex};

use hive_proto::invoke::FUNCTION;
use tokio::net::TcpSocket;

use super::*;
use crate::batches::Node;

#[tokio::test]
async fn what_a_target_could_read_otherwise_never_reaches_it() {
    let target = listen().await;
    let world = World::to(&target).await;
    serve_raw(target, |mut stream, _| async move {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    });
    for (path, headers, expected) in [
        ("/public/x", "Host: photos.example", "200 ok"),
        ("/public/../x", "Host: photos.example", "badpath"),
        ("/public/%2E%2e%2Fx", "Host: photos.example", "badpath"),
        (
            "/",
            "Host: photos.example\r\nHost: other.example",
            "badhost",
        ),
        ("http://photos.example/", "Host: photos.example", "200 ok"),
        ("http://photos.example/", "Host: other.example", "badhost"),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        let mut stream = world.raw(&head).await;
        let answer = in_time(read_head(&mut stream)).await;
        assert!(answer.contains(expected), "{head}{answer}");
        let is_refused = answer.starts_with("http/1.1 400 ");
        assert_eq!(is_refused, expected.starts_with("bad"), "{head}{answer}");
    }
}

#[tokio::test]
async fn a_target_is_told_what_was_asked_and_by_whom() {
    let target = listen().await;
    let world = World::to(&target).await;
    let seen = Arc::new(Mutex::new(None));
    let sees = seen.clone();
    serve(target, move |request| {
        let sees = sees.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            *sees.lock().unwrap() = Some((head, body));
            let answer = Response::builder()
                .status(201)
                .header("x-own", "1")
                .header("x-hive-reason", "Invented")
                .header("keep-alive", "timeout=5");
            let body = Full::new(Bytes::from_static(b"made"));
            let body = body.map_err(|never| match never {});
            answer.body(body.boxed_unsync()).unwrap()
        }
    });
    for version in BOTH {
        let host = "Photos.example:8080";
        let request = request(version, Method::POST, host, "/albums?sort=new")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-hive-function", "other")
            .header("x-own", "2");
        let answer = world
            .ask(version, request.body(whole("new")).unwrap())
            .await;
        assert_eq!((answer.status().as_u16(), answer.version()), (201, version));
        let headers = answer.headers().clone();
        assert_eq!(headers["x-own"], "1");
        for hidden in ["x-hive-reason", "keep-alive", "connection"] {
            assert!(!headers.contains_key(hidden), "{hidden}");
        }
        let body = in_time(answer.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes(), "made");

        let (head, body) = seen.lock().unwrap().take().unwrap();
        assert_eq!(
            (head.method, head.version),
            (Method::POST, Version::HTTP_11)
        );
        assert_eq!(head.uri, "/albums?sort=new");
        assert_eq!(body, "new");
        let via = if version == Version::HTTP_2 {
            "2 hive"
        } else {
            "1.1 hive"
        };
        for (name, expected) in [
            ("host", host),
            ("x-forwarded-host", host),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("via", via),
            ("cookie", "a=1; b=2"),
            ("x-own", "2"),
        ] {
            let all: Vec<_> = head.headers.get_all(name).iter().collect();
            assert_eq!(all, [expected], "{name}");
        }
        assert!(!head.headers.contains_key("x-hive-function"));
        assert_eq!(head.headers["x-request-id"], headers["x-request-id"]);
    }
}

#[tokio::test]
async fn who_asks_in_vain_is_told_why() {
    // Nobody listens there, and nobody else can meanwhile.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let read_only = json!({
        "targets": [{ "node": "pi", "port": 80 }],
        "http": { "host": "read.example", "routes": [{ "methods": ["GET"] }] },
    });
    let world = World::with(&[
        ("down", spec("down.example", nobody.local_addr().unwrap())),
        ("read", read_only),
        (
            "alias",
            json!({ "function": "gone", "http": { "host": "alias.example" } }),
        ),
    ])
    .await;
    for (method, host, status, reason, sentence) in [
        (
            "GET",
            "down.example",
            502,
            "TargetDown",
            "no target of tunnel default/down took a connection",
        ),
        (
            "POST",
            "read.example",
            405,
            "NoMethod",
            "what answers at this path takes GET",
        ),
        (
            "GET",
            "alias.example",
            503,
            "NoTarget",
            "tunnel default/alias leads to function gone, which does not exist",
        ),
        (
            "GET",
            "other.example",
            404,
            "NoRoute",
            "for host \"other.example\"",
        ),
        (
            "CONNECT",
            "down.example",
            405,
            "Tunnel",
            "the ingress is no proxy",
        ),
    ] {
        let path = if method == "CONNECT" {
            "down.example:80"
        } else {
            "/"
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let mut client = world.raw(&head).await;
        let mut answer = String::new();
        in_time(client.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(
            answer.contains(&format!("\r\nx-hive-reason: {reason}\r\n")),
            "{answer}"
        );
        assert!(answer.contains(&format!("{status} {reason}: ")), "{answer}");
        assert!(answer.contains(sentence), "{answer}");
    }
}

#[tokio::test]
async fn a_function_answers_at_the_host_of_a_tunnel() {
    let alias = json!({ "function": "taker", "http": { "host": "alias.example" } });
    let world = World::with(&[("alias", alias)]).await;
    let node = Node::with_function(&world.swarm, "phone", "taker").await;
    *node.answer.lock().unwrap() = (200, &[], "taken");
    let answered = in_time(async {
        loop {
            let get = request(Version::HTTP_11, Method::GET, "alias.example", "/x");
            let get = get.body(whole("")).unwrap();
            let answer = world.ask(Version::HTTP_11, get).await;
            if answer.status() == 200 {
                return answer.into_body().collect().await.unwrap().to_bytes();
            }
        }
    });
    assert_eq!(answered.await, "taken");
    let (head, _) = node.asked.lock().unwrap().pop().unwrap();
    assert_eq!(head.headers()[FUNCTION], "taker");
    assert_eq!(head.headers()["host"], "alias.example");
    assert_eq!(head.uri(), "/x");
}
