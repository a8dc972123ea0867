//! Components as other toolchains make them, from the file to the answer: applied, uploaded,
//! compiled, placed, and asked through the ingress. None of them was made for Hive.
//!
//! What is built from source is built in a copy under `target/tmp`, which later runs find again.
//! What cannot be built here is skipped, and says what to install.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hive_e2e::guests;
use hive_e2e::swarm::{answers, function_path, host, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::{self, Answer};
use hive_e2e::{Steps, Swarm};
use serde_json::json;
use tokio::process::Command;

/// For an engine of 18 MB: it is uploaded, inspected and compiled, by a debug build.
const LARGE: Duration = Duration::from_secs(600);

/// For a build that downloads its compiler (190 MB for JavaScript) over a slow line.
const BUILD: Duration = Duration::from_secs(900);

/// Has js-fetch-hello.wasm and py-hello.wasm, made elsewhere; set where there are such.
const FIXTURES: &str = "HIVE_FIXTURES";

/// Why a case could not be run here, and what would change that.
struct Skipped(String);

#[tokio::test(flavor = "multi_thread")]
async fn components_of_other_toolchains_run_unchanged() {
    // Built first: compilers and a swarm at once are too much for two cores.
    let built_hello = from_source("hello", "hello.wasm").await;
    let built_p3 = from_source("rust-p3", "hello_p3.wasm").await;
    let quickjs = from_source("quickjs", "hello-quickjs.wasm").await;
    let javascript = large("javascript", "hello-javascript.wasm", "js-fetch-hello.wasm").await;
    let python = large("python", "hello-python.wasm", "py-hello.wasm").await;

    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let mut steps = Steps::new();

    steps
        .run("Rust, WASI 0.2, a fixture", async {
            swarm.deploy("rust-p2", &guests::rust_p2(), json!({})).await;
            greets(&swarm.invoke("rust-p2", "/").await);
        })
        .await;
    steps
        .run("Rust, WASI 0.2, the example", async {
            deploy_example(
                &mut swarm,
                "hello",
                "hello",
                &example("hello").join("hello.wasm"),
            )
            .await;
            says(
                &swarm,
                "hello",
                "Hello from hello in default: you asked for /a?b\n",
            )
            .await;
        })
        .await;
    steps
        .run("Rust, WASI 0.3, the example", async {
            let component = example("rust-p3").join("hello_p3.wasm");
            deploy_example(&mut swarm, "rust-p3", "hello-p3", &component).await;
            says(
                &swarm,
                "hello-p3",
                "Hello from hello-p3: you asked for /a?b\n",
            )
            .await;
            counts_down(&swarm, "hello-p3").await;
        })
        .await;

    if let Some(component) = told("Rust, WASI 0.2, from source", built_hello) {
        steps
            .run("Rust, WASI 0.2, from source, answers the same", async {
                deploy_example(&mut swarm, "hello", "hello-built", &component).await;
                let text = "Hello from hello-built in default: you asked for /a?b\n";
                says(&swarm, "hello-built", text).await;
            })
            .await;
    }
    if let Some(component) = told("Rust, WASI 0.3, from source", built_p3) {
        steps
            .run("Rust, WASI 0.3, from source, answers the same", async {
                deploy_example(&mut swarm, "rust-p3", "hello-p3-built", &component).await;
                let text = "Hello from hello-p3-built: you asked for /a?b\n";
                says(&swarm, "hello-p3-built", text).await;
                counts_down(&swarm, "hello-p3-built").await;
            })
            .await;
    }
    if let Some(component) = told("JavaScript on QuickJS, WASI 0.3", quickjs) {
        steps
            .run("JavaScript on QuickJS, WASI 0.3", async {
                deploy_example(&mut swarm, "quickjs", "hello-quickjs", &component).await;
                let text = "Hello from hello-quickjs: you asked for /a?b\n";
                says(&swarm, "hello-quickjs", text).await;
            })
            .await;
    }
    steps
        .run("a script that fails is told as a trap", async {
            let name = "qjs-fails";
            let manifest = swarm.manifest(name, &guests::javascript_p3(), json!({}));
            swarm
                .ctl(&["apply", "-f", manifest.to_str().unwrap()])
                .await
                .ok();
            let address = swarm.controllers[0].ingress_address();
            until("its trap is told", PATIENCE, async || {
                let answer = web::get(&address, &host(name), "/").await;
                let answer = answer.map_err(|error| error.to_string())?;
                let told = answer.status == 502 && answer.header("x-hive-reason") == "Trap";
                holds(told, format!("{}: {}", answer.status, answer.text()))
            })
            .await;
        })
        .await;
    for (language, name, component) in [
        (
            "JavaScript on SpiderMonkey, WASI 0.2",
            "javascript",
            javascript,
        ),
        ("Python, WASI 0.2", "python", python),
    ] {
        let Some(component) = told(language, component) else {
            continue;
        };
        let swarm = &mut swarm;
        steps
            .run(language, async move {
                let function = format!("hello-{name}");
                deploy_example(swarm, name, &function, &component).await;
                let answer = swarm.invoke(&function, "/a").await;
                greets(&answer);
                // The text of a component made elsewhere is its maker's.
                if std::env::var_os(FIXTURES).is_none() {
                    let text = format!("Hello from {function}: you asked for /a\n");
                    assert_eq!(answer.text(), text);
                }
            })
            .await;
    }
    steps.finish();
}

fn example(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap().join("manifests/examples").join(name)
}

/// Applies an example's own manifest with this component, under this name, and waits until it
/// serves.
async fn deploy_example(swarm: &mut Swarm, name: &str, function: &str, component: &Path) {
    let manifest = fs::read_to_string(example(name).join("function.yaml")).unwrap();
    let mut file = None;
    let lines: Vec<String> = manifest
        .lines()
        .map(|line| match line.split_once(": ") {
            // Of the first two, the other `name:` is one of `env` and has a dash before it.
            Some(("  name", _)) => format!("  name: {function}"),
            Some(("    path", path)) => {
                file = Some(path.to_owned());
                line.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    let directory = swarm.path().join(function);
    fs::create_dir(&directory).unwrap();
    fs::copy(
        component,
        directory.join(file.expect("it names a component")),
    )
    .unwrap();
    let path = directory.join("function.yaml");
    fs::write(&path, lines.join("\n")).unwrap();

    let started = Instant::now();
    swarm
        .ctl(&["apply", "-f", path.to_str().unwrap()])
        .await
        .ok();
    let client = swarm.client().await;
    until(&format!("{function} is ready"), LARGE, async || {
        let found = object(&client, &function_path(function)).await?;
        let status = &found["status"];
        // Without a status yet, its fields are all alike.
        let current = status["observedGeneration"] == found["metadata"]["generation"];
        let ready = status["readyReplicas"] == status["replicas"];
        holds(current && ready && status["replicas"] != 0, status)
    })
    .await;
    answers(&swarm.controllers[0].ingress_address(), function).await;
    println!(
        "  {function}: {} KB, serves {:.1} s after apply",
        fs::metadata(component).unwrap().len() / 1000,
        started.elapsed().as_secs_f64()
    );
}

/// Exactly this, to a path with a query.
async fn says(swarm: &Swarm, function: &str, text: &str) {
    let answer = swarm.invoke(function, "/a?b").await;
    greets(&answer);
    assert_eq!(answer.text(), text);
    let kind = answer.header("content-type");
    assert_eq!(kind, "text/plain; charset=utf-8");
}

#[track_caller]
fn greets(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.body.is_empty(), "an empty body");
}

/// A body that is sent while it is made.
async fn counts_down(swarm: &Swarm, function: &str) {
    let answer = swarm.invoke(function, "/countdown").await;
    let text = format!("5\n4\n3\n2\n1\nHello from {function}: you asked for /countdown\n");
    assert_eq!(answer.text(), text);
}

/// The component, if there is one. Who reads the output of a run that went well must see what it
/// left out, so this is written past the capture of tests.
fn told(what: &str, component: Result<PathBuf, Skipped>) -> Option<PathBuf> {
    match component {
        Ok(component) => Some(component),
        Err(Skipped(why)) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
            None
        }
    }
}

/// A component that is too large for the repository: made elsewhere, or built before, or built now.
async fn large(name: &str, file: &str, fixture: &str) -> Result<PathBuf, Skipped> {
    if let Some(directory) = std::env::var_os(FIXTURES) {
        let component = PathBuf::from(directory).join(fixture);
        assert!(
            component.is_file(),
            "{FIXTURES}: no {}",
            component.display()
        );
        return Ok(component);
    }
    let built = example(name).join(file);
    match built.is_file() {
        true => Ok(built),
        false => from_source(name, file).await,
    }
}

/// Builds an example as its README says, in a copy of its sources.
async fn from_source(name: &str, file: &str) -> Result<PathBuf, Skipped> {
    let (probe, wanted): (&[&str], _) = match name {
        "javascript" | "quickjs" => (&["npm", "--version"], "Node 20 with npm 10"),
        "python" => (
            &["python3", "-c", "import venv, ensurepip"],
            "python3 with venv (Debian: apt-get install python3-venv)",
        ),
        _ => (&["rustc", "--version"], "Rust"),
    };
    let found = tidy(Command::new(probe[0]).args(&probe[1..]))
        .output()
        .await;
    if !found.is_ok_and(|output| output.status.success()) {
        return Err(Skipped(format!("install {wanted}")));
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("examples")
        .join(name);
    copy_sources(&example(name), &copy);
    let started = Instant::now();
    let building = tidy(Command::new("sh").arg(copy.join("build.sh")))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(BUILD, building)
        .await
        .unwrap_or_else(|_| panic!("{name}/build.sh still runs after {BUILD:?}"))
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    // build.sh's own words for a toolchain that is not there.
    if !output.status.success() && errors.contains("Install it with:") {
        return Err(Skipped(errors.trim().replace('\n', " ")));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{name}/build.sh: {}\n{said}\n{errors}",
        output.status
    );
    println!(
        "  {name}/build.sh took {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let component = copy.join(file);
    assert!(component.is_file(), "{name}/build.sh left no {file}");
    Ok(component)
}

/// Without what the cargo that runs this test says to itself: a build of its own must not hear it.
fn tidy(command: &mut Command) -> &mut Command {
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        let own = name.contains("CARGO") && name != "CARGO_HOME";
        if own || name.starts_with("RUSTC") || name == "RUSTFLAGS" || name == "LD_LIBRARY_PATH" {
            command.env_remove(&variable);
        }
    }
    command.stdin(Stdio::null())
}

/// Sources only: what a build finds must not be what an earlier one left in the tree. A file that
/// has not changed keeps its time, so that an unchanged example is not built again.
fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            // Hidden ones, such as `.venv`, and what builds leave.
            if !name.starts_with('.')
                && !["target", "node_modules", "__pycache__"].contains(&&*name)
            {
                copy_sources(&source, &target);
            }
            continue;
        }
        let bytes = fs::read(&source).unwrap();
        if !name.ends_with(".wasm") && fs::read(&target).ok().as_ref() != Some(&bytes) {
            fs::copy(&source, &target).unwrap();
        }
    }
}
