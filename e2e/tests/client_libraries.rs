//! Clients written for Kubernetes, in Python, JavaScript and Rust, on a live swarm: programs of many
//! cases each, as users of those libraries write them (`clients/*`, `kube_rs.rs`).
//!
//! They are installed, or built, under the cache of CI, at the versions in their lock files.
//! What can't be installed is skipped, and says what is missing.
#![allow(clippy::unwrap_used)]

#[path = "client_libraries/kube_rs.rs"]
mod kube_rs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Now, Stdio};
use std::time::Duration;

use hive_e2e::{Steps, Swarm, guests};
use serde_json::{Value, json};
use tokio::process::Command;

/// For one suite, on the slowest machine that builds this in debug.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn libraries_written_for_kubernetes_work_unchanged() {
    // Installed first: a swarm waits for nobody's downloads.
    let (python, javascript, runtime) = (python(), javascript(), runtime());
    let mut swarm = Swarm::builder().agents(1).start().await;
    swarm
        .deploy("hello", &guests::hello(), json!({ "replicas": 1 }))
        .await;
    let mut steps = Steps::new();
    let client = swarm.client().await;
    let artifact = artifact(&swarm).await;
    steps.run("Rust", kube_rs::suite(client, &artifact)).await;
    if let Some(program) = runtime {
        let suite = suite(&swarm, program, &artifact);
        steps.run("Rust, with kube's runtime", suite).await;
    }
    if let Some(program) = python {
        steps.run("Python", suite(&swarm, program, &artifact)).await;
    }
    if let Some(program) = javascript {
        steps
            .run("JavaScript", suite(&swarm, program, &artifact))
            .await;
    }
    steps.finish();
}

/// The digest of the component that is deployed.
async fn artifact(swarm: &Swarm) -> String {
    let function = swarm.ctl(&["get", "fn", "hello", "-o", "json"]).await;
    let function: Value = serde_json::from_str(function.ok()).unwrap();
    let digest = function["spec"]["artifact"]["sha256"].as_str();
    digest.unwrap().to_owned()
}

/// Runs a suite, given the administrator's access and a component that is there.
async fn suite(swarm: &Swarm, mut program: Command, artifact: &str) {
    let running = program
        .arg(&swarm.ctl.kubeconfig)
        .arg(artifact)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let ended = tokio::time::timeout(PATIENCE, running).await;
    let status = ended.expect("the suite ends in time").unwrap();
    assert!(status.success(), "the suite failed: its cases are above");
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(language)
}

fn python() -> Option<Command> {
    let lock = sources("python").join("requirements.txt");
    let cache = installed("python", &lock, |directory| {
        let venv = directory.join("venv");
        run(Now::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Now::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&lock))
    })?;
    let mut program = Command::new(cache.join("venv/bin/python"));
    program.arg(sources("python").join("suite.py"));
    Some(program)
}

fn javascript() -> Option<Command> {
    let sources = sources("javascript");
    let lock = sources.join("package-lock.json");
    let cache = installed("javascript", &lock, |directory| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(sources.join(file), directory.join(file)).map_err(|e| e.to_string())?;
        }
        run(Now::new("npm")
            .args(["ci", "--silent", "--no-audit", "--no-fund"])
            .current_dir(directory))
    })?;
    // A module is looked for beside the file that imports it.
    fs::copy(sources.join("suite.mjs"), cache.join("suite.mjs")).ok()?;
    let mut program = Command::new("node");
    program.arg(cache.join("suite.mjs"));
    Some(program)
}

fn runtime() -> Option<Command> {
    let sources = sources("rust");
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/hive-ci/client-rust");
    let built = run(Now::new("cargo")
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(sources.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&cache));
    if let Err(why) = built {
        eprintln!(
            "\n!!!! SKIPPED: kube's runtime can't be built: {why}\n         it needs cargo and crates.io\n"
        );
        return None;
    }
    Some(Command::new(cache.join("debug/hive-e2e-client")))
}

/// The directory in the cache where a library is, as its lock file says; made by `install` if it is
/// not there yet. The lock file is copied last, so that half of one is never taken for the whole.
fn installed(
    language: &str,
    lock: &Path,
    install: impl Fn(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/hive-ci");
    let directory = cache.join(format!("client-{language}"));
    let kept = directory.join("lock");
    let wanted = fs::read(lock).unwrap();
    if fs::read(&kept).is_ok_and(|found| found == wanted) {
        return Some(directory);
    }
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    if let Err(why) = install(&directory) {
        eprintln!(
            "\n!!!! SKIPPED: the client in {language} can't be installed: {why}\n         it needs {}\n",
            match language {
                "python" => "python3 with venv (apt-get install python3-venv) and PyPI",
                _ => "Node 20 with npm (apt-get install nodejs npm) and its registry",
            }
        );
        return None;
    }
    fs::write(&kept, wanted).unwrap();
    Some(directory)
}

fn run(command: &mut Now) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
