#![allow(clippy::unwrap_used)]
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::fixture::free_ports;

/// How a server treats a connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Reads a request, and answers with this; `NONCE` stands for what the request brought.
    Says(&'static str),
    /// Reads, and says nothing.
    Silent,
    /// Ends a connection at once.
    Closes,
    /// Talks first.
    Greets,
}

/// Serves every connection until the test ends.
async fn serve(manner: Manner) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(treat(stream, manner));
        }
    });
    port
}

async fn treat(mut stream: TcpStream, manner: Manner) -> io::Result<()> {
    match manner {
        Manner::Closes => return Ok(()),
        Manner::Greets => stream.write_all(b"SSH-2.0-x\r\n").await?,
        Manner::Silent => {}
        Manner::Says(answer) => {
            let head = read_head(&mut stream).await?;
            let lines = head.lines();
            let mut nonces = lines.filter_map(|line| line.strip_prefix("x-hive-probe: "));
            let nonce = nonces.next().unwrap_or_default();
            let answer = answer.replace("NONCE", nonce);
            return stream.write_all(answer.as_bytes()).await;
        }
    }
    // Until the other end has enough.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn nobody() -> u16 {
    let [port] = free_ports();
    port
}

fn ask(way: Way, ports: &[u16]) -> Ask {
    let controllers = (1..).zip(ports).map(|(id, port)| Advertised {
        id,
        host: "127.0.0.1".into(),
        port: *port,
    });
    Ask {
        way,
        controllers: controllers.collect(),
        guarded: false,
    }
}

fn http(host: &str, patience: Duration) -> Way {
    Way::Http(Question {
        host: host.to_owned(),
        method: Some("GET"),
        path: "/healthz?x=1".into(),
        patience,
        https: None,
    })
}

/// As long as a busy machine may take.
const LONG: Duration = Duration::from_secs(120);

async fn knocked(way: Way, port: u16) -> Answer {
    let door = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    knock(door, &way).await
}

#[tokio::test]
async fn an_answer_counts_if_it_came_through_a_controller() {
    let unavailable = "HTTP/1.1 502 Bad Gateway\r\nx-hive-probe: NONCE\r\nx-hive-reason: TargetDown\r\n\
                       content-length: 33\r\n\r\n502 TargetDown: nothing listens\x07\n";
    let silent_body = "HTTP/1.1 503 x\r\nx-hive-probe: NONCE\r\nx-hive-reason: NotReady\r\n\r\n";
    let odd =
        "HTTP/1.1 502 x\r\nx-hive-probe: NONCE\r\nx-hive-reason: a b\r\ncontent-length: 0\r\n\r\n";
    let refused = |reason: &str, message: &str| Answer::Refused(Why::new(reason, message));
    for (manner, expected) in [
        // Whatever it says: it is there.
        (
            Manner::Says("HTTP/1.1 404 x\r\nx-hive-probe: NONCE\r\ncontent-length: 0\r\n\r\n"),
            None,
        ),
        (
            Manner::Says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            Some(Answer::Stranger),
        ),
        (
            Manner::Says("HTTP/1.1 200 OK\r\nx-hive-probe: old\r\n\r\n"),
            Some(Answer::Stranger),
        ),
        (
            Manner::Says(unavailable),
            Some(refused("TargetDown", "nothing listens")),
        ),
        (Manner::Says(silent_body), Some(refused("NotReady", ""))),
        (Manner::Says(odd), Some(refused("Unknown", ""))),
        (Manner::Says("SSH-2.0-x\r\n"), Some(Answer::Closed)),
        (Manner::Greets, Some(Answer::Closed)),
        (Manner::Closes, Some(Answer::Closed)),
    ] {
        let found = knocked(http("photos.localhost", LONG), serve(manner).await).await;
        match expected {
            Some(expected) => assert_eq!(found, expected, "{manner:?}"),
            None => assert!(matches!(found, Answer::Reached(_)), "{found:?}"),
        }
    }
    // A door that knows the path shows so much, where asking otherwise would change something.
    let other = "HTTP/1.1 405 x\r\nx-hive-probe: NONCE\r\nx-hive-reason: NoMethod\r\ncontent-length: 0\r\n\r\n";
    let mut way = http("photos.localhost", LONG);
    let found = knocked(way.clone(), serve(Manner::Says(other)).await).await;
    assert_eq!(found, refused("NoMethod", ""));
    if let Way::Http(question) = &mut way {
        question.method = None;
    }
    let found = knocked(way, serve(Manner::Says(other)).await).await;
    assert!(matches!(found, Answer::Reached(_)), "{found:?}");

    let silent = serve(Manner::Silent).await;
    let found = knocked(http("photos.localhost", Duration::from_millis(50)), silent).await;
    assert_eq!(found, Answer::Silent);
    let found = knocked(http("photos.localhost", LONG), nobody()).await;
    assert_eq!(
        found,
        Answer::Unreachable("the connection was refused".into())
    );
}

#[tokio::test]
async fn a_connection_counts_if_it_stays() {
    for (manner, stays) in [
        (Manner::Silent, true),
        (Manner::Greets, true),
        (Manner::Closes, false),
    ] {
        let found = knocked(Way::Tcp, serve(manner).await).await;
        match stays {
            true => assert!(matches!(found, Answer::Reached(_)), "{manner:?} {found:?}"),
            false => assert_eq!(found, Answer::Closed),
        }
    }
    let found = knocked(Way::Tcp, nobody()).await;
    assert_eq!(
        found,
        Answer::Unreachable("the connection was refused".into())
    );
}

#[tokio::test]
async fn a_datagram_counts_if_it_is_answered() {
    let udp = |patience| Way::Udp {
        datagram: Some(b"ping".to_vec()),
        patience,
    };
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let answering = async {
        let mut asked = [0; 16];
        // As if the first was lost.
        for _ in 0..2 {
            let (length, from) = service.recv_from(&mut asked).await.unwrap();
            assert_eq!(&asked[..length], b"ping");
            service.connect(from).await.unwrap();
        }
        service.send(b"pong").await.unwrap();
    };
    let (found, ()) = join(knocked(udp(Duration::from_secs(6)), port), answering).await;
    assert!(matches!(found, Answer::Reached(_)), "{found:?}");

    let port = nobody();
    let silent = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
    let found = knocked(udp(Duration::from_millis(50)), port).await;
    assert_eq!(found, Answer::Silent);
    drop(silent);
    let found = knocked(udp(Duration::from_secs(3)), port).await;
    let refused = Answer::Unreachable("the connection was refused".into());
    assert_eq!(found, refused);
    let nothing = Way::Udp {
        datagram: None,
        patience: Duration::from_secs(3),
    };
    assert_eq!(knocked(nothing, port).await, Answer::Untried);
}

#[tokio::test]
async fn the_request_is_a_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap()
    };
    let (head, _) = join(asked, knocked(http("photos.localhost", LONG), port)).await;
    assert!(head.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{head}");
    let host = format!("host: photos.localhost:{port}\r\n");
    assert!(head.contains(&host), "{head}");
}

/// All doors are tried at once: where the name leads, and each controller's.
#[tokio::test]
async fn every_door_is_tried() {
    let there = "HTTP/1.1 204 No Content\r\nx-hive-probe: NONCE\r\n\r\n";
    let (one, two) = (serve(Manner::Says(there)).await, nobody());
    let mut ask = ask(http("photos.localhost", LONG), &[one, two]);
    ask.controllers.push(Advertised {
        id: 3,
        host: "no..name".into(),
        port: one,
    });
    let seen = probe(&ask).await;
    let door = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let mut public = seen.public.unwrap();
    public.sort();
    let mut expected = [door(v4, one), door(v4, two), door(v6, one), door(v6, two)];
    expected.sort();
    assert_eq!(public, expected);
    assert_eq!(seen.controllers[&1], [door(v4, one)]);
    assert!(seen.controllers[&3].is_empty());
    assert_eq!(seen.answers.len(), 4);
    assert!(matches!(seen.answers[&door(v4, one)], Answer::Reached(_)));
    assert!(matches!(
        seen.answers[&door(v4, two)],
        Answer::Unreachable(_)
    ));

    ask.way = Way::Tcp;
    let seen = probe(&ask).await;
    assert_eq!(seen.public.unwrap(), [door(v4, one), door(v4, two)]);
    assert_eq!(seen.answers.len(), 2);
}

#[tokio::test]
async fn names_under_localhost_lead_to_the_machine_itself() {
    let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for name in ["localhost", "photos.default.localhost", "Photos.LOCALHOST."] {
        assert_eq!(resolve(name).await.unwrap(), local, "{name}");
    }
    assert_eq!(
        resolve("2001:db8::1").await.unwrap(),
        ["2001:db8::1".parse::<IpAddr>().unwrap()]
    );
    assert!(!is_local("localhost.example.org") && !is_local("mylocalhost"));
    assert!(resolve("no..name").await.is_err());
}

#[test]
fn who_ends_a_connection_was_reached_only_where_it_guards() {
    let took = Duration::from_millis(3);
    let tls = || {
        Way::Tls(Greeting {
            name: "db.localhost".into(),
            patience: LONG,
        })
    };
    for (way, guarded, expected) in [
        (Way::Tcp, true, Answer::Reached(took)),
        (Way::Tcp, false, Answer::Closed),
        (tls(), true, Answer::Reached(took)),
        (tls(), false, Answer::Closed),
        (http("photos.localhost", LONG), true, Answer::Closed),
    ] {
        let ask = Ask {
            guarded,
            ..ask(way, &[])
        };
        let found = let_off(&ask, Answer::Closed, took);
        assert_eq!(found, expected, "{:?} {guarded}", ask.way);
        assert_eq!(let_off(&ask, Answer::Silent, took), Answer::Silent);
    }
}
