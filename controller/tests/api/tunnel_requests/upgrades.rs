//! Connections that go over to another protocol.

use hive_controller::state::Key;

use super::*;

/// A target that goes over to what it is asked for, says hello, and repeats what it hears.
fn switches(target: TcpListener) {
    serve_raw(target, |mut stream, head| async move {
        let Some((_, to)) = head.split_once("\r\nupgrade: ") else {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            return;
        };
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        let (to, _) = to.split_once("\r\n").unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\nX-Own: 1\r\n\r\nhello"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut heard = [0; 5];
        while let Ok(bytes) = stream.read(&mut heard).await
            && bytes > 0
        {
            if &heard[..bytes] == b"break" {
                return abort(stream);
            }
            stream.write_all(&heard[..bytes]).await.unwrap();
        }
        // Said after the other side has ended.
        let _ = stream.write_all(b"bye").await;
    });
}

#[tokio::test]
async fn a_connection_that_goes_over_to_another_protocol_carries_it() {
    let target = listen().await;
    let world = World::to(&target).await;
    switches(target);
    let upgrade = |to: &str| {
        format!(
            "GET /x HTTP/1.1\r\nhost: photos.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: {to}\r\n\r\n"
        )
    };
    let begin = async || {
        let mut client = world.raw(&upgrade("websocket")).await;
        let head = in_time(read_head(&mut client)).await;
        for expected in [
            "http/1.1 101 ",
            "\r\nconnection: upgrade\r\n",
            "\r\nupgrade: websocket\r\n",
            "\r\nx-own: 1\r\n",
        ] {
            assert!(head.contains(expected), "{head}");
        }
        let mut hello = [0; 5];
        in_time(client.read_exact(&mut hello)).await.unwrap();
        assert_eq!(&hello, b"hello");
        client
    };
    // Both ways, and half an end.
    let mut client = begin().await;
    for said in [b"one", b"two"] {
        client.write_all(said).await.unwrap();
        let mut heard = [0; 3];
        in_time(client.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, said);
    }
    assert_eq!(world.tunnels.all()[0].metered().connections, 1);
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    in_time(client.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "bye");
    world
        .until(|it| it.all()[0].metered().connections == 0)
        .await;

    // What breaks does not end.
    let mut client = begin().await;
    client.write_all(b"break").await.unwrap();
    assert!(in_time(client.read_to_string(&mut rest)).await.is_err());

    // Requests inside of it would go where no route leads.
    for to in ["h2c", "websocket, H2C", "HTTP/2.0"] {
        let mut client = world.raw(&upgrade(to)).await;
        let head = in_time(read_head(&mut client)).await;
        assert!(head.starts_with("http/1.1 200"), "{to}: {head}");
    }

    // The tunnel is no more, and neither is what it carries.
    let mut client = begin().await;
    let key = Key::new(Resource::Tunnel, "default", "photos");
    world.swarm.delete(key).await;
    assert!(in_time(client.read_to_string(&mut rest)).await.is_err());
}
