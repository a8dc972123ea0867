//! Which of a target's words are passed on, and how many targets are asked for some.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_that_no_target_bears_is_shown_to_few() {
    let ports = [80, 81, 82, 83, 84];
    let world = World::new(&ports, json!({}));
    for port in ports {
        world.listen(port, breaks_after(0));
    }
    let answered = world.get().await;
    assert!(
        matches!(answered, Err(TunnelError::Lost { .. })),
        "{answered:?}"
    );
    assert_eq!(world.node.asked.lock().unwrap().len(), MAX_TRIES);
}

#[tokio::test(start_paused = true)]
async fn a_target_does_not_speak_for_the_ingress() {
    let world = World::new(&[80], json!({}));
    let claims: Target = Arc::new(|mut stream: Stream| {
        async move {
            read_head(&mut stream).await;
            let answer =
                b"HTTP/1.1 502 x\r\nx-hive-reason: NodeSilent\r\nx-own: 1\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            // Until it is dropped at the other end.
            read_head(&mut stream).await;
        }
        .boxed()
    });
    world.listen(80, claims);
    let answer = world.get().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["x-own"], "1");
    assert!(!answer.headers().contains_key(REASON));
}
