//! Requests made from the API's own OpenAPI documents, good and bad ones: nothing is answered by a
//! server error.
//!
//! Uses schemathesis, from PyPI, in an environment of its own below the target directory.
//! `HIVE_SCHEMA_EXAMPLES=n` tries more requests of each operation, `HIVE_SEED=n` repeats them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use hive_e2e::Swarm;
use hive_e2e::swarm::object;

/// Of each operation, in `cargo test`.
const EXAMPLES: &str = "3";

/// Known to understand the documents; installed where nothing else is.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// The program learns from answers which values there are. Where tokens are kept it would sooner or later
/// delete its own, and hear nothing but 401 from then on. And the revisions of controllers are of no use
/// elsewhere: a revision of the future is waited for and then answered 504, as Kubernetes does.
const HOOKS: &str = "\
import schemathesis

@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    return (path_parameters or {}).get('namespace') != 'hive-system'

@schemathesis.hook
def filter_query(context, query):
    revision = str((query or {}).get('resourceVersion'))
    return not (revision.isdigit() and len(revision) > 12)
";

/// Longer than any request of the API may take.
const REQUEST_SECONDS: &str = "25";

fn variable(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn run(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The program, installed if need be.
fn schemathesis() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(SCHEMATHESIS);
    let program = home.join("bin/schemathesis");
    if run(&program, &["--version"]).is_err() {
        let shown = home.display().to_string();
        run(Path::new("python3"), &["-m", "venv", "--clear", &shown])?;
        run(&home.join("bin/pip"), &["install", "--quiet", SCHEMATHESIS])?;
    }
    Ok(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_answered_by_a_server_error() {
    let program = match schemathesis() {
        Ok(program) => program,
        Err(why) => {
            println!(
                "\n!!!! SKIPPED: requests from the OpenAPI documents: no schemathesis: {why}\n"
            );
            return;
        }
    };
    let mut swarm = Swarm::builder().controllers(1).agents(0).start().await;
    let client = swarm.client().await;
    let index = object(&client, "/openapi/v3").await.unwrap();
    let url = format!("https://{}", swarm.controllers[0].api_address());
    let authorization = format!("Authorization: Bearer {}", swarm.admin_token());
    let seed = variable("HIVE_SEED", "1");
    let examples = variable("HIVE_SCHEMA_EXAMPLES", EXAMPLES);
    std::fs::write(swarm.path().join("hooks.py"), HOOKS).unwrap();
    let mut bad = Vec::new();
    for (group, entry) in index["paths"].as_object().unwrap() {
        let path = entry["serverRelativeURL"].as_str().unwrap();
        let document = object(&client, path).await.unwrap();
        let file = swarm
            .path()
            .join(format!("{}.json", group.replace('/', "-")));
        std::fs::write(&file, document.to_string()).unwrap();
        let output = tokio::process::Command::new(&program)
            .current_dir(swarm.path())
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", swarm.path())
            .arg("run")
            .arg(&file)
            .args(["--url", &url, "--header", &authorization])
            .args([
                "--tls-verify",
                "false",
                "--request-timeout",
                REQUEST_SECONDS,
            ])
            .args(["--checks", "not_a_server_error", "--phases", "fuzzing"])
            .args(["--max-examples", &examples, "--seed", &seed])
            .args(["--generation-database", "none"])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = text.lines().rev().find(|line| line.contains("generated"));
        println!("{group}: {}", summary.unwrap_or_default().trim());
        if !output.status.success() {
            println!("{text}");
            bad.push(group.clone());
        }
    }
    assert!(bad.is_empty(), "HIVE_SEED={seed}: {bad:?}");
    assert!(swarm.controllers[0].member.is_running());
}
