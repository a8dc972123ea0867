//! Compiling: from a component that a function names to records in its status, or to the reason why not.

use hive_controller::artifacts::Digest;
use hive_controller::reconcile::Outlook;
use hive_controller::reconcile::compile::{Compilation, CompileWorker};
use hive_controller::state::{Command, Key};
use hive_controller::together::Together;
use hive_functions::{Compiler, Target};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::artifacts::upload;
use crate::functions::COMPONENT;
use crate::harness::{FUNCTIONS, Server};

/// Of more than a mebibyte.
const LARGE: &[u8] = include_bytes!("../../../functions/tests/fixtures/js-hello-p3.wasm");

const TARGET: &str = Target::Pulley64.as_str();

/// What a controller compiles with: its own program.
fn own_program() -> CompileWorker {
    CompileWorker::new(env!("CARGO_BIN_EXE_hive-controller"), &[], None)
}

fn compilation(server: &Server, worker: CompileWorker) -> Compilation {
    let (writer, written) = Together::new(server.replica.clone(), server.stop.clone());
    tokio::spawn(written);
    Compilation::new(
        writer,
        server.artifacts.clone(),
        server.authority.clone(),
        worker,
        TARGET,
    )
}

/// Around the API, which would look into the component.
async fn function(server: &Server, name: &str, component: &Digest) {
    let key = Key::new(Resource::Function, "default", name);
    let body = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "generation": 1 },
        "spec": { "artifact": { "sha256": component.hex() } },
    });
    server
        .propose(Command::Create {
            key,
            body: body.into(),
        })
        .await;
}

async fn status(server: &Server, name: &str) -> Value {
    server.get(&format!("{FUNCTIONS}/{name}")).await.ok()["status"].clone()
}

/// The reasons of the events about a function, with their counts.
async fn events(server: &Server, name: &str) -> Vec<(String, u64)> {
    let path =
        format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}");
    let events = server.get(&path).await.ok();
    let events = events["items"].as_array().unwrap().iter();
    events
        .map(|event| {
            let reason = event["reason"].as_str().unwrap().to_owned();
            (reason, event["count"].as_u64().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_component_is_compiled_by_a_process_of_its_own() {
    let server = Server::start().await;
    let component = upload(&server, COMPONENT).await;
    function(&server, "hello", &component).await;
    let mut compilation = compilation(&server, own_program());
    compilation.pass(&server.replica.state()).await;

    let status = status(&server, "hello").await;
    let condition = &status["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Compiled"), &json!("True")),
        "{status}"
    );
    let artifact = &status["artifacts"][0];
    assert_eq!(artifact["target"], TARGET);
    let here = Compiler::new(TARGET).unwrap().compile(COMPONENT).unwrap();
    let expected = Digest::of(&here);
    assert_eq!(artifact["sha256"], expected.hex());
    assert_eq!(artifact["size"], here.len());
    let held = server.artifacts.load(&expected).await.unwrap();
    assert!(held == here, "the file has other bytes");
    let outlook = compilation.pass(&server.replica.state()).await;
    assert_eq!(outlook, Outlook::Settled);
}

#[tokio::test]
async fn while_a_large_component_is_compiled_its_function_says_so() {
    let server = Server::start().await;
    let component = upload(&server, LARGE).await;
    function(&server, "large", &component).await;
    // A compiler that waits until it is let go.
    let dir = tempfile::tempdir().unwrap();
    let (script, go) = (dir.path().join("compiler"), dir.path().join("go"));
    let program = env!("CARGO_BIN_EXE_hive-controller");
    let text = format!(
        "while [ ! -e {} ]; do sleep 0.01; done\nexec {program} \"$@\"\n",
        go.display()
    );
    std::fs::write(&script, text).unwrap();
    // It is read, not run: of a file that a child of another test still has open, the system runs nothing.
    let worker = CompileWorker::new("/bin/sh", &[script.to_str().unwrap()], None);
    let mut compilation = compilation(&server, worker);
    let replica = server.replica.clone();
    let done = tokio::spawn(async move { compilation.pass(&replica.state()).await });
    let key = Key::new(Resource::Function, "default", "large");
    server
        .until(|state| {
            let function = state.get(&key).unwrap().body();
            function["status"]["conditions"][0]["reason"] == "Compiling"
        })
        .await;
    let during = status(&server, "large").await;
    let condition = &during["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&json!("False"), &json!("for pulley64, 1.6 MiB"))
    );
    std::fs::write(go, "").unwrap();
    done.await.unwrap();
    let after = status(&server, "large").await;
    assert_eq!(after["conditions"][0]["status"], "True");
    let told = events(&server, "large").await;
    assert!(told.contains(&("Compiling".to_owned(), 1)), "{told:?}");
    assert!(told.contains(&("Compiled".to_owned(), 1)), "{told:?}");
}

#[tokio::test]
async fn a_component_that_cannot_be_compiled_says_why_and_is_not_tried_again() {
    let server = Server::start().await;
    let component = upload(&server, "(component)").await;
    function(&server, "broken", &component).await;
    let mut compilation = compilation(&server, own_program());
    for _ in 0..2 {
        compilation.pass(&server.replica.state()).await;
    }
    let status = status(&server, "broken").await;
    let condition = &status["conditions"][0];
    assert_eq!(condition["reason"], "CompileFailed", "{status}");
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.starts_with("for pulley64: cannot compile"),
        "{message}"
    );
    assert_eq!(
        events(&server, "broken").await,
        [("CompileFailed".to_owned(), 1)]
    );
    let outlook = compilation.pass(&server.replica.state()).await;
    assert_eq!(outlook, Outlook::Settled);
}

#[tokio::test]
async fn a_compiler_that_crashes_is_told_and_tried_again_later() {
    let server = Server::start().await;
    let component = upload(&server, COMPONENT).await;
    function(&server, "unlucky", &component).await;
    let mut compilation = compilation(&server, CompileWorker::new("/bin/false", &[], None));
    for _ in 0..2 {
        let outlook = compilation.pass(&server.replica.state()).await;
        assert_eq!(outlook, Outlook::Again);
    }
    let status = status(&server, "unlucky").await;
    assert_eq!(status["conditions"][0]["reason"], "CompilerCrashed");
    assert_eq!(
        events(&server, "unlucky").await,
        [("CompilerCrashed".to_owned(), 1)]
    );
}
