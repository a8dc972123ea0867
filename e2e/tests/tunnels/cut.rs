//! A link that breaks while much is under way: what it cuts is seen to be cut, by clients and by services, and
//! what comes after it is whole.

use hive_e2e::Swarm;
use hive_e2e::wait::{PATIENCE, holds, until};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;

use crate::declared::{declare, proven, target};
use crate::noise::{Noise, Sum, sum};
use crate::requests::{nothing, send, within};
use crate::tcp::connect;
use crate::transfer::{Transfer, WHOLE, Way};

const HOST: &str = "film.localhost";

/// So far each of them gets before the link breaks. What is buffered on the way is far from the rest.
const BEGUN: usize = 16 << 20;

/// Three transfers, and who breaks the link.
const TOGETHER: usize = 4;

/// How a transfer ended, and after how many bytes.
type Ended = (usize, Result<(), String>);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_link_cuts_is_not_taken_for_whole() {
    let mut swarm = Swarm::builder().agents(1).apart().start().await;
    let gives = Transfer::start(swarm.take_port(), Way::Gives).await;
    let answers = Transfer::start(swarm.take_port(), Way::Answers).await;
    let takes = Transfer::start(swarm.take_port(), Way::Takes).await;
    let [down, up] = [swarm.take_port(), swarm.take_port()];
    declare(&swarm, "down", tcp(down, &gives)).await;
    declare(&swarm, "up", tcp(up, &takes)).await;
    let spec = json!({ "http": { "host": HOST }, "targets": [target("node-1", answers.port())] });
    declare(&swarm, "film", spec).await;
    for name in ["down", "up", "film"] {
        proven(&swarm, name).await;
    }
    let controller = &swarm.controllers[0];
    let [down, up] = [down, up].map(|port| controller.address(port));
    let ingress = controller.ingress_address();

    let together = Barrier::new(TOGETHER);
    let node = &swarm.agent("node-1").member;
    let transfers = async {
        tokio::join!(
            download(&down, &together),
            upload(&up, &together),
            request(&ingress, &together)
        )
    };
    let breaking = async {
        within("all are under way", together.wait()).await;
        // Answers nothing, as one whose network is gone: controllers give its link up.
        node.signal(Signal::STOP);
        within("they go on", together.wait()).await;
    };
    let (transfers, ()) = tokio::join!(within("all end", transfers), breaking);
    for (name, (bytes, ended)) in [
        ("download", transfers.0),
        ("upload", transfers.1),
        ("request", transfers.2),
    ] {
        println!("  {name}: {bytes} bytes, {ended:?}");
        assert!(ended.is_err(), "{name}: {bytes} bytes look whole");
        assert!(bytes < WHOLE, "{name}: {bytes} bytes were there already");
    }
    node.signal(Signal::CONT);
    until("the service sees that it was cut", PATIENCE, async || {
        let taken = takes.taken();
        holds(matches!(taken[..], [Err(_)]), format!("{taken:?}"))
    })
    .await;

    until("the link is back", PATIENCE, async || {
        let read = connect(&down).await.read_u8().await;
        read.map_err(|error| error.to_string())
    })
    .await;
    let (bytes, ended) = upload(&up, &Barrier::new(1)).await;
    assert_eq!((bytes, ended), (WHOLE, Ok(())));
    until("the service has all of it", PATIENCE, async || {
        let taken = takes.taken();
        holds(taken.contains(&Ok(WHOLE)), format!("{taken:?}"))
    })
    .await;
    assert_eq!(within("all of it", whole(&down)).await, sum(WHOLE));
}

fn tcp(port: u16, service: &Transfer) -> Value {
    json!({ "protocol": "TCP", "port": port, "targets": [target("node-1", service.port())] })
}

/// Stands still, once begun, until all have begun, and again until the link is broken.
async fn pause(so_far: usize, paused: &mut bool, together: &Barrier) {
    if so_far >= BEGUN && !*paused {
        *paused = true;
        together.wait().await;
        together.wait().await;
    }
}

async fn download(address: &str, together: &Barrier) -> Ended {
    let mut stream = connect(address).await;
    let (mut bytes, mut paused, mut buffer) = (0, false, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return (bytes, Ok(())),
            Ok(read) => bytes += read,
            Err(error) => return (bytes, Err(error.to_string())),
        }
        pause(bytes, &mut paused, together).await;
    }
}

async fn upload(address: &str, together: &Barrier) -> Ended {
    let mut stream = connect(address).await;
    let (mut bytes, mut paused) = (0, false);
    for piece in Noise::new(WHOLE) {
        if let Err(error) = stream.write_all(&piece).await {
            return (bytes, Err(error.to_string()));
        }
        bytes += piece.len();
        pause(bytes, &mut paused, together).await;
    }
    // The service says nothing: its end comes when it has heard all.
    let ended = async {
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    let ended = ended.await;
    (bytes, ended.map(drop).map_err(|error| error.to_string()))
}

async fn request(ingress: &str, together: &Barrier) -> Ended {
    let request = Request::get("/").header("host", HOST);
    let response = send(ingress, request.body(nothing()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let (mut bytes, mut paused) = (0, false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, |data| data.len()),
            Err(error) => return (bytes, Err(error.to_string())),
        }
        pause(bytes, &mut paused, together).await;
    }
    (bytes, Ok(()))
}

/// What comes to its end, summed up.
async fn whole(address: &str) -> String {
    let mut stream = connect(address).await;
    let (mut heard, mut buffer) = (Sum::default(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return heard.text(),
            read => heard.add(&buffer[..read]),
        }
    }
}
