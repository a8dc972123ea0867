//! The workflow for GitHub, run as GitHub would: its own commands, in bash, with a token that may do
//! what the workflow needs and nothing else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_e2e::ctl::{self, Output};
use hive_e2e::registry::digest;
use hive_e2e::wait::{PATIENCE, until};
use hive_e2e::{Steps, Swarm, guests, hive};
use serde_json::{Value, json};
use tokio::process::Command;

/// What GitHub knows of a workflow, a job and a step; a misspelt key is passed over there in silence.
const WORKFLOW: [&str; 6] = ["name", "on", "permissions", "concurrency", "env", "jobs"];
const JOB: [&str; 4] = ["runs-on", "timeout-minutes", "environment", "steps"];
const STEP: [&str; 6] = ["name", "uses", "with", "env", "run", "if"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("deploy/ci/github")
}

fn workflow() -> Value {
    let text = fs::read_to_string(directory().join("deploy-function.yml")).unwrap();
    let workflow: Value = serde_saphyr::from_str(&text).unwrap();
    known(&workflow, &WORKFLOW);
    let jobs = workflow["jobs"].as_object().unwrap();
    assert_eq!(jobs.len(), 1);
    known(&workflow["jobs"]["deploy"], &JOB);
    for step in workflow["jobs"]["deploy"]["steps"].as_array().unwrap() {
        known(step, &STEP);
    }
    workflow
}

fn known(value: &Value, keys: &[&str]) {
    for key in value.as_object().unwrap().keys() {
        assert!(
            keys.contains(&&**key),
            "{key} is no key that GitHub knows here"
        );
    }
}

/// A runner: variables and secrets, and a directory for each.
struct Runner {
    values: BTreeMap<String, String>,
    work: PathBuf,
    temp: PathBuf,
}

/// What a step printed, by its name.
type Log = Vec<(String, Output)>;

impl Runner {
    /// `${{ secrets.HIVE_TOKEN }}` by its value.
    fn value(&self, text: &str) -> String {
        let Some(inner) = text
            .strip_prefix("${{")
            .and_then(|rest| rest.strip_suffix("}}"))
        else {
            assert!(!text.contains("${{"), "{text} is more than one expression");
            return text.to_owned();
        };
        let found = self.values.get(inner.trim());
        found
            .unwrap_or_else(|| panic!("nobody sets {inner}"))
            .clone()
    }

    /// Runs the steps that are commands, all but the build, until one fails; then those for failures.
    async fn run(&self, workflow: &Value) -> Log {
        let github_path = self.temp.join("path");
        fs::write(&github_path, "").unwrap();
        let mut log = Log::new();
        let mut has_failed = false;
        for step in workflow["jobs"]["deploy"]["steps"].as_array().unwrap() {
            let name = step["name"].as_str().unwrap();
            let is_for_failures = match step["if"].as_str() {
                None => false,
                Some("failure()") => true,
                Some(other) => panic!("{other} is not understood here"),
            };
            let Some(script) = step["run"].as_str() else {
                continue;
            };
            if name == "Build" || is_for_failures != has_failed {
                continue;
            }
            let added = fs::read_to_string(&github_path).unwrap();
            let path = added
                .lines()
                .map(str::to_owned)
                .chain(std::env::var("PATH"));
            let mut bash = Command::new("bash");
            bash.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script])
                .current_dir(&self.work)
                .env_clear()
                .env("PATH", path.collect::<Vec<_>>().join(":"))
                .env("HOME", &self.temp)
                .env("RUNNER_TEMP", &self.temp)
                .env("GITHUB_PATH", &github_path);
            for block in [&workflow["env"], &step["env"]] {
                for (name, value) in block.as_object().into_iter().flatten() {
                    bash.env(name, self.value(value.as_str().unwrap()));
                }
            }
            let output = ctl::run(bash, "").await;
            has_failed |= output.code != 0;
            log.push((name.to_owned(), output));
        }
        log
    }
}

fn outcome(log: &Log) -> Vec<(&str, bool)> {
    log.iter()
        .map(|(name, output)| (&**name, output.code == 0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workflow_deploys_and_its_token_does_nothing_else() {
    let workflow = workflow();
    let triggers: Vec<&String> = workflow["on"].as_object().unwrap().keys().collect();
    assert_eq!(
        triggers,
        ["push", "workflow_dispatch"],
        "strangers must not see the token"
    );
    assert_eq!(workflow["permissions"], json!({ "contents": "read" }));

    let swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let mut steps = Steps::new();
    swarm.ctl(&["create", "namespace", "shop"]).await.ok();
    let access = directory().join("access.yaml");
    swarm
        .ctl(&["-n", "shop", "apply", "-f", access.to_str().unwrap()])
        .await
        .ok();
    let token = swarm
        .ctl(&["-n", "shop", "create", "token", "ci", "--duration", "720h"])
        .await;
    let token = token.ok().trim().to_owned();
    let (work, temp) = (swarm.path().join("checkout"), swarm.path().join("runner"));
    fs::create_dir_all(&work).unwrap();
    fs::create_dir_all(&temp).unwrap();
    let manifest = "\
apiVersion: hive.dev/v1
kind: Function
metadata: {name: hello}
spec: {artifact: {path: hello.wasm}, http: {host: shop.example}}
";
    fs::write(work.join("function.yaml"), manifest).unwrap();
    fs::copy(guests::hello().component, work.join("hello.wasm")).unwrap();
    let ca = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let ca = swarm
        .ctl(&["config", "view", "--without-users", "-o", ca])
        .await;
    let ca = BASE64.decode(ca.ok().trim()).unwrap();
    let program = hive();
    let sha256 = digest(&fs::read(&program).unwrap()).replace("sha256:", "");
    let values = [
        ("vars.HIVE_FUNCTION", "hello".to_owned()),
        ("vars.HIVE_NAMESPACE", "shop".to_owned()),
        ("vars.HIVECTL_URL", format!("file://{}", program.display())),
        ("vars.HIVECTL_SHA256", sha256),
        (
            "secrets.HIVE_SERVER",
            // Nobody is at the first.
            format!(
                "https://127.0.0.1:1,https://{}",
                swarm.controllers[0].api_address()
            ),
        ),
        ("secrets.HIVE_CA", String::from_utf8(ca).unwrap()),
        ("secrets.HIVE_TOKEN", token.clone()),
    ];
    let values: BTreeMap<String, String> = values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut runner = Runner { values, work, temp };

    steps
        .run("the workflow deploys, and waits until it runs", async {
            let log = runner.run(&workflow).await;
            assert_eq!(
                outcome(&log),
                [("Install hivectl", true), ("Deploy", true)],
                "{log:#?}"
            );
            // What the API tells the ingress learns by itself, perhaps a moment later.
            let ingress = swarm.controllers[0].ingress_address();
            until("it answers", PATIENCE, async || {
                let answer = hive_e2e::web::get(&ingress, "shop.example", "/").await;
                answer.map_err(|error| error.to_string())?.ok()
            })
            .await;
        })
        .await;
    steps
        .run("the same token may do nothing else", async {
            for (arguments, verb) in [
                (&["-n", "shop", "get", "secrets"][..], "cannot list"),
                (&["-n", "default", "get", "functions"], "cannot list"),
                (
                    &["-n", "shop", "delete", "function", "hello"],
                    "cannot delete",
                ),
                (&["-n", "default", "apply", "-f", "function.yaml"], "cannot"),
                (&["-n", "shop", "create", "token", "ci"], "cannot create"),
                (&["get", "nodes"], "cannot list"),
            ] {
                let mut command = Command::new(&program);
                command
                    .arg("ctl")
                    .args(arguments)
                    .current_dir(&runner.work)
                    .env_remove("KUBECONFIG");
                for name in ["HIVE_SERVER", "HIVE_CA", "HIVE_TOKEN"] {
                    command.env(name, &runner.values[&format!("secrets.{name}")]);
                }
                let output = ctl::run(command, "").await;
                output.fails(&["system:serviceaccount:shop:ci", verb]);
            }
        })
        .await;
    steps
        .run(
            "a component that cannot run fails the job, and says why",
            async {
                fs::write(runner.work.join("hello.wasm"), b"not a component").unwrap();
                let log = runner.run(&workflow).await;
                let names = [
                    ("Install hivectl", true),
                    ("Deploy", false),
                    ("Say why not", true),
                ];
                assert_eq!(outcome(&log), names, "{log:#?}");
                log[1].1.fails(&["function.yaml:4: spec.artifact"]);
                assert!(log[2].1.stdout.contains("hello"), "{}", log[2].1);
            },
        )
        .await;
    steps
        .run("a token that is revoked deploys nothing", async {
            fs::copy(guests::hello().component, runner.work.join("hello.wasm")).unwrap();
            swarm.ctl(&["token", "revoke", &token]).await.ok();
            let log = runner.run(&workflow).await;
            assert_eq!(outcome(&log)[1], ("Deploy", false), "{log:#?}");
            log[1].1.fails(&["revoked"]);
        })
        .await;
    steps
        .run(
            "what is downloaded is not run unless it is what was meant",
            async {
                let other = "0".repeat(64);
                runner
                    .values
                    .insert("vars.HIVECTL_SHA256".to_owned(), other);
                let log = runner.run(&workflow).await;
                assert_eq!(outcome(&log)[0], ("Install hivectl", false), "{log:#?}");
                assert!(log.iter().all(|(name, _)| name != "Deploy"), "{log:#?}");
            },
        )
        .await;
    steps.finish();
}
