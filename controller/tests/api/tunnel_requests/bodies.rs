//! What follows the head, and how it ends.

use futures::StreamExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let target = listen().await;
    let world = World::to(&target).await;
    serve(target, |request| async move {
        Response::new(request.into_body().boxed_unsync())
    });
    for version in BOTH {
        let (sender, pieces) = mpsc::channel(1);
        let frames = ReceiverStream::new(pieces).map(|it| Ok(Frame::data(it)));
        let request = request(version, Method::POST, "photos.example", "/");
        let request = request.body(StreamBody::new(frames).boxed_unsync());
        // Hyper waits for nothing of the body.
        let mut answer = world.ask(version, request.unwrap()).await.into_body();
        for piece in ["one", "two", "three"] {
            sender
                .send(Bytes::from_static(piece.as_bytes()))
                .await
                .unwrap();
            // The next comes only when this was seen.
            let frame = in_time(answer.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(sender);
        let rest = in_time(answer.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "");
    }
}

#[tokio::test]
async fn what_a_target_cuts_is_cut_for_its_client() {
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let counted = "content-length: 10\r\n\r\nhello";
    for (rest, resets) in [(chunked, false), (counted, false), (chunked, true)] {
        let target = listen().await;
        let world = World::to(&target).await;
        let (go, went) = tokio::sync::watch::channel(0);
        serve_raw(target, move |mut stream, _| {
            let mut went = went.clone();
            async move {
                let asked = *went.borrow();
                let answer = format!("HTTP/1.1 200 OK\r\n{rest}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                // A reset may throw away what was not read yet.
                let _ = went.wait_for(|it| *it > asked).await;
                if resets {
                    abort(stream);
                }
            }
        });
        for version in BOTH {
            let answer = world.get(version).await;
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let frame = in_time(body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "hello");
            go.send_modify(|it| *it += 1);
            let end = in_time(body.frame()).await;
            assert!(matches!(end, Some(Err(_))), "{rest:?} {version:?}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_lets_its_target_go() {
    for begins in [false, true] {
        let target = listen().await;
        let world = World::to(&target).await;
        let (ended, mut ends) = mpsc::channel(1);
        serve_raw(target, move |mut stream, _| {
            let ended = ended.clone();
            async move {
                if begins {
                    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                ended.send("asked").await.unwrap();
                // No second request follows: only the end can come.
                let _ = stream.read_u8().await;
                ended.send("ended").await.unwrap();
            }
        });
        let head = "GET / HTTP/1.1\r\nhost: photos.example\r\n\r\n";
        let mut client = world.raw(head).await;
        assert_eq!(in_time(ends.recv()).await, Some("asked"));
        if begins {
            assert!(read_head(&mut client).await.starts_with("http/1.1 200"));
        }
        drop(client);
        assert_eq!(in_time(ends.recv()).await, Some("ended"));
        world
            .until(|it| it.all()[0].metered().connections == 0)
            .await;
    }
}
