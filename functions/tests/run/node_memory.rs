//! How functions share the memory of their node.

use std::time::Duration;

use hive_functions::{
    Instances, InvokeError, LoadError, LogStream, MachineMemory, Reuse, Runtime, RuntimeOptions,
};
use http::StatusCode;

use crate::{
    guests::{
        Loaded, Logs, RUST_0_2, compiled, eventually, get, get_of, guest_with_memory, handler,
        limits, load_compiled_on, looping, options, verified,
    },
    sandbox::PROBE,
};

#[tokio::test]
async fn functions_wait_for_the_memory_slots_of_each_other() {
    let runtime = Runtime::start(RuntimeOptions {
        max_instances: 1,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let (directory, artifact) = verified(&PROBE);
    let load = |logs| runtime.load(&artifact, options(limits(), logs)).unwrap();
    let (one, other) = (load(&Logs::default()), load(&Logs::default()));
    let (first, second) = tokio::join!(one.handle(get_of("/slow?ms=100")), async {
        eventually("the first runs", || one.usage().in_flight == 1).await;
        other.handle(get_of("/")).await
    });
    assert_eq!(
        (first.unwrap().status(), second.unwrap().status()),
        (StatusCode::OK, StatusCode::OK)
    );
    drop(directory);
}

/// Grows by so many pages, or traps, and then runs until it is stopped.
fn holding(pages: u32) -> Vec<u8> {
    handler(&format!(
        "(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))
         (loop (br 0))"
    ))
}

/// With two that hold 40 MiB of 64, the second has none, and everybody else goes on.
#[tokio::test]
async fn all_functions_together_use_no_more_memory_than_the_node_gives() {
    let memory_bytes = 64 << 20;
    let runtime = Runtime::start(RuntimeOptions {
        memory_bytes,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let (_directory, artifact) = verified(&compiled(&holding(640)));
    let (_small_directory, small) = verified(&compiled(RUST_0_2));
    let logs = Logs::default();
    let load = |artifact| runtime.load(artifact, options(limits(), &logs)).unwrap();
    let (one, other, hello) = (load(&artifact), load(&artifact), load(&small));

    let running = tokio::spawn({
        let one = one.clone();
        async move { one.handle(get()).await.map(drop) }
    });
    eventually("it has its memory", || runtime.memory_used() > 40 << 20).await;
    let refused = other.handle(get()).await.unwrap_err();
    assert_eq!(refused, InvokeError::NodeMemory);
    assert_eq!(refused.status(), 503);
    assert!(!refused.nothing_ran());
    assert_eq!(hello.handle(get()).await.unwrap().status(), 200);

    running.abort();
    eventually("its memory is back", || runtime.memory_used() == 0).await;
    let running = tokio::spawn({
        let other = other.clone();
        async move { other.handle(get()).await.map(drop) }
    });
    eventually("the other has it", || runtime.memory_used() > 40 << 20).await;
    running.abort();
}

#[tokio::test]
async fn a_request_waits_until_its_instance_has_memory_to_start() {
    let (_directory, artifact) = verified(&compiled(&guest_with_memory(
        160,
        r#"(func (export "handle") (param i32 i32) (loop (br 0)))"#,
    )));
    let (_small_directory, small) = verified(&compiled(RUST_0_2));
    let runtime = Runtime::start(RuntimeOptions {
        memory_bytes: 11 << 20,
        ..RuntimeOptions::default()
    })
    .unwrap();
    let logs = Logs::default();
    let load = |artifact| runtime.load(artifact, options(limits(), &logs)).unwrap();
    let (large, hello) = (load(&artifact), load(&small));
    let running = tokio::spawn({
        let large = large.clone();
        async move { large.handle(get()).await.map(drop) }
    });
    eventually("the large one runs", || large.usage().in_flight == 1).await;
    let waiting = tokio::spawn({
        let hello = hello.clone();
        async move { hello.handle(get()).await.map(|response| response.status()) }
    });
    eventually("the other waits", || hello.usage().waiting == 1).await;
    running.abort();
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);

    let too_large = Runtime::start(RuntimeOptions {
        memory_bytes: 4 << 20,
        ..RuntimeOptions::default()
    });
    let refused = too_large.unwrap().load(&artifact, options(limits(), &logs));
    assert!(matches!(
        refused.err(),
        Some(LoadError::NodeMemory { initial, .. }) if initial == 10 << 20
    ));
}

#[tokio::test]
async fn while_the_machine_is_short_of_memory_idle_instances_end_and_one_runs_at_a_time() {
    let runtime = Runtime::start(RuntimeOptions::default()).unwrap();
    let queue = Duration::from_millis(100);
    let code = compiled(RUST_0_2);
    let patient = load_compiled_on(&runtime, &code, |options| {
        options.instances = Instances {
            reuse: Some(Reuse::Serial),
            idle_timeout: Duration::from_secs(3600),
            ..Instances::default()
        };
    });
    let hasty = load_compiled_on(&runtime, &code, |options| options.limits.queue = queue);
    let other = load_compiled_on(&runtime, &compiled(&looping()), |_| ());
    let says = |is_short| {
        runtime.set_machine_memory(MachineMemory {
            ceiling: u64::MAX,
            is_short,
        });
    };
    let answers = async |loaded: &Loaded| {
        let answer = loaded.function.handle(get()).await;
        answer.map(|response| response.status())
    };
    assert_eq!(answers(&patient).await, Ok(StatusCode::OK));
    assert!(runtime.memory_used() > 0, "its instance stays");
    runtime.begun().await;

    says(true);
    eventually("it ends", || runtime.memory_used() == 0).await;
    for _ in 0..3 {
        assert_eq!(answers(&patient).await, Ok(StatusCode::OK));
    }
    let running = tokio::spawn({
        let function = other.function.clone();
        async move { function.handle(get()).await.map(drop) }
    });
    eventually("one runs", || other.function.usage().in_flight == 1).await;
    let late = Err(InvokeError::MemoryPressure(queue));
    assert_eq!(answers(&hasty).await, late);
    let lines = hasty.logs.of(LogStream::Hive);
    let told = "MemoryPressure: no turn within 100ms: the node is short of memory";
    assert!(lines[0].starts_with(told), "{lines:?}");
    says(false);
    assert_eq!(answers(&hasty).await, Ok(StatusCode::OK));
    running.abort();
}
