//! What runs, and how it is reached.

use hive_agent::Agent;
use hive_proto::frame;
use hive_proto::link::{Purpose, Stream};
use hive_proto::v1::{self, Phase};
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::controller::{Controller, Swarm, desired};
use crate::support::{
    BROKEN, HELLO, assignment, config, eventually, get, put, restarted, running, send, within,
};

async fn next_line(stream: &mut Stream) -> Option<v1::LogLine> {
    within(frame::read(stream, frame::MAX_FRAME_BYTES))
        .await
        .unwrap()
}

/// What the node has of the log of `hello`.
async fn log_of_hello(controller: &Controller, request: v1::LogRequest) -> Vec<v1::LogLine> {
    let mut stream = controller.link().open(Purpose::Logs).await.unwrap();
    let request = v1::LogRequest {
        namespace: "default".into(),
        function: "hello".into(),
        ..request
    };
    frame::write(&mut stream, &request).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = next_line(&mut stream).await {
        lines.push(line);
    }
    lines
}

fn invocation(namespace: &str, function: &str) -> http::request::Builder {
    Request::get("/")
        .header("host", "anything")
        .header("x-hive-namespace", namespace)
        .header("x-hive-function", function)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_answers_locally_and_to_the_ingress() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;

    let local = get(&agent, "hello.test:8070", "/").await;
    assert_eq!(local.status(), 200);
    assert!(!local.body().is_empty());
    assert!(local.headers().contains_key("x-request-id"));

    let stream = controller.link().open(Purpose::Invoke).await.unwrap();
    let request = invocation("default", "hello")
        .header("x-request-id", "from-the-ingress")
        .body(Full::default())
        .unwrap();
    let invoked = send(stream, request).await;
    assert_eq!(invoked.status(), 200);
    assert_eq!(invoked.body(), local.body());
    assert_eq!(invoked.headers()["x-request-id"], "from-the-ingress");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_here_is_said_so() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;

    let unknown = get(&agent, "other.test", "/").await;
    assert_eq!(unknown.status(), 404);
    assert!(unknown.body().contains("hello.test"), "{}", unknown.body());

    let stream = controller.link().open(Purpose::Invoke).await.unwrap();
    let request = invocation("default", "gone").body(Full::default()).unwrap();
    let gone = send(stream, request).await;
    assert_eq!(gone.status(), 503);
    assert_eq!(gone.headers()["x-hive-retry"], "1");
    assert_eq!(gone.headers()["x-hive-reason"], "NotReady");

    // Only a controller may name a function.
    let stream = tokio::net::TcpStream::connect(agent.local_address().unwrap());
    let request = invocation("default", "hello")
        .body(Full::default())
        .unwrap();
    assert_eq!(send(stream.await.unwrap(), request).await.status(), 404);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (_controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    let mut stream = tokio::net::TcpStream::connect(agent.local_address().unwrap())
        .await
        .unwrap();
    // The body need not come: what it says of itself is enough.
    let head = format!(
        "POST / HTTP/1.1\r\nhost: hello.test\r\ncontent-length: {}\r\n\r\n",
        33 << 20
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 512];
    let read = within(stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("x-hive-reason: BodyTooLarge"), "{answer}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_fails_is_a_502_an_event_and_a_log_line() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &BROKEN).await;

    let failed = get(&agent, "hello.test", "/").await;
    assert_eq!(failed.status(), 502);
    assert_eq!(failed.headers()["x-hive-reason"], "Trap");
    assert!(failed.body().starts_with("502 Trap: "), "{}", failed.body());
    let event = eventually("an event", || {
        let state = controller.state();
        let mut events = state.reports.iter().flat_map(|report| &report.events);
        events.find(|event| event.reason == "Trap").cloned()
    })
    .await;
    assert_eq!(
        (event.r#type.as_str(), event.assignment.as_str()),
        ("Warning", "hello.0")
    );

    let lines = log_of_hello(&controller, v1::LogRequest::default()).await;
    let id = failed.headers()["x-request-id"].to_str().unwrap();
    assert!(
        lines.iter().any(|line| line.stream == "hive"
            && line.text.contains("Trap")
            && line.request_id == id),
        "{lines:?}"
    );
    assert_eq!((event.request_id.as_str(), event.generation), (id, 1));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_before_a_session_is_answered_is_told_in_it() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &BROKEN).await;
    controller.set_answers(false);
    let sessions = controller.state().hellos.len();
    controller.link().close("to see the next session begin");
    eventually("the next session", || {
        (controller.state().hellos.len() > sessions).then_some(())
    })
    .await;
    // What waited until then was on its way with the greeting; nothing else will be told after this.
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 502);
    controller.set_answers(true);
    eventually("an event", || {
        let state = controller.state();
        let mut events = state.reports.iter().flat_map(|report| &report.events);
        events.find(|event| event.reason == "Trap").map(|_| ())
    })
    .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_cannot_run_leaves_the_old_generation_serving() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    let stranger = Swarm::new();
    let forged = assignment(&stranger, "hello", 2, &HELLO);
    controller.desire(2, &[forged]);
    let status = controller
        .reported("hello.0", "failed", |status| !status.reason.is_empty())
        .await;
    assert_eq!(status.reason, "BadSignature");
    // It answers: who passed it over would lose the function for want of its newest version.
    assert_eq!(
        (status.phase(), status.function_generation),
        (Phase::Ready, 1)
    );
    assert!(
        status.message.contains("generation 1 serves on"),
        "{}",
        status.message
    );
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_desired_state_is_refused() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    // Older, and empty: whoever took it would stop serving. The newer one shows that it was heard.
    let hello = assignment(&swarm, "hello", 1, &HELLO);
    let second = assignment(&swarm, "second", 1, &HELLO);
    controller.say(vec![
        desired(0, &[]),
        desired(1, &[]),
        desired(2, &[hello, second]),
    ]);
    controller.ready("second.0").await;
    let generations: Vec<_> = controller
        .state()
        .reports
        .iter()
        .skip_while(|report| report.generation == 0)
        .map(|report| report.generation)
        .collect();
    assert!(generations.is_sorted(), "{generations:?}");
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    agent.stop().await;

    // The ledger has it too.
    controller.say(vec![desired(1, &[])]);
    controller.state().reports.clear();
    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    controller.ready("second.0").await;
    controller.ready("hello.0").await;
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_the_log_gets_what_happens() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &BROKEN).await;
    get(&agent, "hello.test", "/").await;

    let mut stream = controller.link().open(Purpose::Logs).await.unwrap();
    let request = v1::LogRequest {
        namespace: "default".into(),
        function: "hello".into(),
        follow: true,
        ..Default::default()
    };
    frame::write(&mut stream, &request).await.unwrap();
    let kept = next_line(&mut stream).await.unwrap();
    let answer = get(&agent, "hello.test", "/").await;
    let id = answer.headers()["x-request-id"].to_str().unwrap();
    assert_ne!(kept.request_id, id);
    while next_line(&mut stream).await.unwrap().request_id != id {}
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_functions_that_move_at_once_are_served_throughout() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    put(&controller, &HELLO);
    let names: Vec<String> = (10..50).map(|n| format!("f{n}")).collect();
    let first: Vec<_> = names
        .iter()
        .map(|name| assignment(&swarm, name, 1, &HELLO))
        .collect();
    // Each in another slot than before, which is filled beside the old one.
    let moved: Vec<_> = first
        .iter()
        .map(|before| v1::Assignment {
            name: format!("{}.1", before.function),
            ..before.clone()
        })
        .collect();
    controller.desire(1, &first);
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    for name in &names {
        controller.ready(&format!("{name}.0")).await;
    }

    let ask = async {
        let mut asked = 0;
        for name in names.iter().cycle() {
            let answer = get(&agent, &format!("{name}.test"), "/").await;
            assert_eq!(answer.status(), 200, "{name}: {}", answer.body());
            asked += 1;
            // Some requests must have met the new table.
            let has_moved = controller.state().reports.iter().any(|report| {
                let mut statuses = report.assignments.iter();
                report.generation == 2 && statuses.all(|status| status.phase() == Phase::Ready)
            });
            if has_moved && asked > names.len() {
                break;
            }
        }
    };
    controller.desire(2, &moved);
    within(ask).await;
    for name in &names {
        assert_eq!(
            get(&agent, &format!("{name}.test"), "/").await.status(),
            200
        );
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_kept_by_version_and_for_a_while_after_the_function_left() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &BROKEN).await;
    let id_of = async |agent: &Agent| {
        let answer = get(agent, "hello.test", "/").await;
        answer.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let read = async |previous: bool, request_id: &str| {
        let request = v1::LogRequest {
            previous,
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let lines = log_of_hello(&controller, request).await;
        let mut ids: Vec<_> = lines.into_iter().map(|line| line.request_id).collect();
        ids.dedup();
        ids
    };
    let first = id_of(&agent).await;
    let mut changed = assignment(&swarm, "hello", 2, &BROKEN);
    changed.env.insert("A".into(), "b".into());
    controller.desire(2, std::slice::from_ref(&changed));
    controller
        .reported("hello.0", "changed", |status| {
            status.function_generation == 2
        })
        .await;
    let second = id_of(&agent).await;
    assert_eq!(read(true, "").await, [&*first]);
    assert_eq!(read(false, "").await, [&*second]);
    assert_eq!(read(false, &first).await, [&*first]);
    agent.stop().await;

    controller.state().reports.clear();
    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    controller.ready("hello.0").await;
    let third = id_of(&agent).await;
    let lines = log_of_hello(&controller, v1::LogRequest::default()).await;
    assert!(lines[0].text.contains("the agent started"), "{lines:?}");
    assert_eq!(read(false, "").await, ["", &*third]);
    assert_eq!(read(true, "").await, [""; 0]);

    // Asked no more until it is gone: each answer of this function is a line, and the oldest lines go.
    controller.desire(3, &[]);
    eventually("it is reported gone", || {
        let state = controller.state();
        let report = state.reports.last()?;
        (report.generation == 3 && report.assignments.is_empty()).then_some(())
    })
    .await;
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 404);
    assert_eq!(read(false, "").await[..2], ["", &*third]);
    agent.stop().await;
}
