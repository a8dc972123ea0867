//! Greetings as they come, and what else comes.

#![allow(clippy::unwrap_used)]

use rustls::{ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::*;
use crate::client_tls;

/// What a client says first.
fn greeting(name: &str) -> Vec<u8> {
    let config = Arc::new(client_tls::config(RootCertStore::empty()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut said = Vec::new();
    client.write_tls(&mut said).unwrap();
    said
}

/// The name that is read of what comes in such pieces, what was read with it, and what the client hears.
async fn read(sent: &[u8], piece: usize) -> (Result<String, Refusal>, Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = tokio::io::duplex(piece);
    let mut said = Vec::new();
    let reads = async {
        let hello = hello::read(&mut server, &mut said).await;
        drop(server);
        hello.map(|hello| asked_for(&hello))
    };
    let (mut hears, mut says) = tokio::io::split(&mut client);
    let writes = async {
        // Who is refused need not hear all.
        let _ = says.write_all(sent).await;
        let _ = says.shutdown().await;
    };
    let mut heard = Vec::new();
    let listens = async {
        let _ = hears.read_to_end(&mut heard).await;
    };
    let (name, (), ()) = tokio::join!(reads, writes, listens);
    (name, said, heard)
}

#[tokio::test]
async fn a_greeting_is_read_however_it_comes_and_kept_as_it_came() {
    let sent = greeting("DB.example.org");
    for piece in [1, 7, 100, 1 << 14] {
        let (name, said, heard) = read(&sent, piece).await;
        assert_eq!(name.unwrap(), "db.example.org", "{piece}");
        assert_eq!(said, sent, "{piece}");
        assert!(heard.is_empty());
    }
    let (name, ..) = read(&greeting("192.0.2.1"), 1 << 14).await;
    assert_eq!(name.unwrap(), "", "an address is no name");
}

#[tokio::test]
async fn what_is_no_greeting_is_refused() {
    let whole = greeting("a.example");
    // A record of handshakes without end.
    let mut endless = Vec::new();
    for _ in 0..64 {
        endless.extend_from_slice(&[22, 3, 1, 4, 0]);
        let first = endless.len() == 5;
        let start: &[u8] = if first { &[1, 0, 255, 255] } else { &[0; 4] };
        endless.extend_from_slice(start);
        endless.extend_from_slice(&[0; 1020]);
    }
    let cases: [(&str, &[u8], bool); 4] = [
        ("nothing", &[], false),
        ("half", &whole[..whole.len() / 2], false),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n", true),
        ("endless", &endless, false),
    ];
    for (what, sent, hears) in cases {
        let (name, said, heard) = read(sent, 1 << 14).await;
        assert_eq!(name, Err(Refusal::BadHello), "{what}");
        assert!(said.len() <= 20 << 10, "{what}");
        // An alert.
        assert_eq!(heard.first() == Some(&21), hears, "{what}");
    }
}

#[test]
fn who_is_misdirected_can_read_why() {
    let response = misdirected();
    assert_eq!(response.status(), 421);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    client.write_all(&greeting("a.example")[..9]).await.unwrap();
    let room = Arc::new(Semaphore::new(1));
    let reading = room.clone().acquire_owned().await.unwrap();
    let greeted = greet(stream, Instant::now() + HANDSHAKE_TIMEOUT, reading).await;
    assert_eq!(greeted.hello.err(), Some(Refusal::Slow));
    assert_eq!(room.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_for_who_came_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let whole = greeting("a.example");
    let mut clients = Vec::new();
    for said in [&whole[..9], &whole[..]] {
        let at = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(said).await.unwrap();
        clients.push(client);
    }
    let doorway = Doorway::new(listener, 8, "greetings");
    let (room, cancel) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
    let mut greeted = JoinSet::new();
    for _ in &clients {
        let (accepted, reading) = next(&doorway, &room, &cancel).await.unwrap();
        let until = Instant::now() + HANDSHAKE_TIMEOUT;
        greeted.spawn(greet(accepted.stream, until, reading));
    }
    let mut ended = Vec::new();
    while let Some(greeted) = greeted.join_next().await {
        ended.push(greeted.unwrap().hello.err());
    }
    assert_eq!(ended, [Some(Refusal::Slow), None]);
}
