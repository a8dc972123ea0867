//! kubectl, as Debian has it and as this machine has it, on a live swarm: `clients/kubectl/*.txt` are
//! command lines and what they print.
//!
//! `HIVE_BLESS=1` writes what is printed now into the files; the difference is for a reviewer. The
//! files are of kubectl 1.20, which is Debian's. Any other must succeed and fail where it does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use hive_e2e::transcript::{BLESS, Compare, Replacements, Terminal, Transcript};
use hive_e2e::{Steps, Swarm, guests};
use serde_json::{Value, json};

const INSTALL: &str = "apt-get install kubernetes-client";

/// The topics, in the order in which a person learns them. Each has a namespace of its own.
const TOPICS: [&str; 11] = [
    "discovery",
    "objects",
    "apply",
    "owners",
    "deleting",
    "access",
    "certificates",
    "watching",
    "functions",
    "controllers",
    "elsewhere",
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prints_what_it_prints_of_kubernetes() {
    let debian = debian();
    let other = on_path().filter(|program| !is_1_20(program));
    if debian.is_none() {
        eprintln!("\n!!!! SKIPPED: kubectl 1.20 is not here and cannot be unpacked: {INSTALL}\n");
    }
    if debian.is_none() && other.is_none() {
        return;
    }
    let mut swarm = Swarm::builder().agents(1).start().await;
    swarm
        .deploy("hello", &guests::hello(), json!({ "replicas": 1 }))
        .await;
    let mut steps = Steps::new();
    let kubectls = [(debian, Compare::Everything), (other, Compare::Success)];
    for (kubectl, compare) in kubectls {
        let Some(kubectl) = kubectl else { continue };
        let desk = Desk::new(&swarm, &kubectl, compare).await;
        for topic in topics(compare) {
            let name = format!("{topic}, {}", version(&kubectl));
            steps.run(&name, desk.run(topic)).await;
        }
    }
    steps.finish();
}

/// What a kubectl can be asked. `newer` is of what 1.20 lacks.
fn topics(compare: Compare) -> Vec<&'static str> {
    let newer = (compare == Compare::Success).then_some("newer");
    TOPICS.into_iter().chain(newer).collect()
}

/// Where the commands of one kubectl are run.
struct Desk {
    directory: PathBuf,
    config: Value,
    hello: String,
    compare: Compare,
}

impl Desk {
    async fn new(swarm: &Swarm, kubectl: &Path, compare: Compare) -> Self {
        let directory = swarm.path().join(match compare {
            Compare::Everything => "desk",
            Compare::Success => "other-desk",
        });
        fs::create_dir_all(directory.join("bin")).unwrap();
        symlink(kubectl, directory.join("bin/kubectl")).unwrap();
        let function = swarm.ctl(&["get", "fn", "hello", "-o", "json"]).await;
        let function: Value = serde_json::from_str(function.ok()).unwrap();
        let hello = function["spec"]["artifact"]["sha256"].as_str().unwrap();
        let config = fs::read(&swarm.ctl.kubeconfig).unwrap();
        Self {
            directory,
            config: serde_json::from_slice(&config).unwrap(),
            hello: hello.to_owned(),
            compare,
        }
    }

    fn prune_list(&self) -> &'static str {
        match self.compare {
            Compare::Everything => "whitelist",
            Compare::Success => "allowlist",
        }
    }

    /// A topic's commands, in a directory and a namespace of its name.
    async fn run(&self, topic: &str) {
        let directory = self.directory.join(topic);
        fs::create_dir(&directory).unwrap();
        let kubeconfig = self.directory.join(format!("{topic}.kubeconfig"));
        let mut config = self.config.clone();
        config["contexts"][0]["context"]["namespace"] = json!(topic);
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let path = std::env::var("PATH").unwrap();
        let shown = self.directory.display();
        let terminal = Terminal {
            directory: &directory,
            variables: vec![
                ("PATH", format!("{shown}/bin:{path}")),
                ("KUBECONFIG", kubeconfig.display().to_string()),
                ("HELLO", self.hello.clone()),
                // What the kinds that `apply --prune` looks at are called.
                ("LIST", self.prune_list().to_owned()),
                // Where kubectl keeps what it discovered; nothing of the person who runs this.
                ("HOME", shown.to_string()),
                ("LC_ALL", "C".to_owned()),
            ],
        };
        let replace = Replacements::new(vec![(directory.display().to_string(), ".".to_owned())]);

        let around =
            |line: &str| Transcript::parse(&format!("$ kubectl {line} namespace {topic}\n"));
        around("create").run(&terminal, &replace).await;
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("clients/kubectl/{topic}.txt"));
        let expected = Transcript::parse(&fs::read_to_string(&file).unwrap());
        let printed = expected.run(&terminal, &replace).await;
        // The next kubectl finds its namespaces empty.
        around("delete").run(&terminal, &replace).await;

        let own = self.compare == Compare::Everything || topic == "newer";
        if own && std::env::var_os(BLESS).is_some() {
            fs::write(&file, printed.to_string()).unwrap();
            return;
        }
        let differences = expected.differences(&printed, self.compare);
        assert!(differences.is_empty(), "{}:\n{differences}", file.display());
    }
}

/// kubectl 1.20: the one on PATH, or that of Debian's package, unpacked under the cache of CI. On
/// some machines another package owns its place, so that it can't be installed.
fn debian() -> Option<PathBuf> {
    if let Some(program) = on_path().filter(|program| is_1_20(program)) {
        return Some(program);
    }
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/hive-ci/kubectl-1.20");
    let program = cache.join("usr/bin/kubectl");
    if !program.is_file() {
        fs::create_dir_all(&cache).ok()?;
        let unpack = "apt-get download -qq kubernetes-client && dpkg -x kubernetes-client_*.deb .";
        let shell = Command::new("sh")
            .args(["-c", unpack])
            .current_dir(&cache)
            .output()
            .ok()?;
        if !shell.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&shell.stderr));
        }
    }
    Some(program).filter(|program| is_1_20(program))
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("kubectl"))
        .find(|program| program.is_file())
        .and_then(|program| program.canonicalize().ok())
}

fn is_1_20(kubectl: &Path) -> bool {
    version(kubectl).starts_with("v1.20.")
}

fn version(kubectl: &Path) -> String {
    let output = Command::new(kubectl)
        .args(["version", "--client", "-o", "json"])
        .output();
    let Ok(output) = output else {
        return String::new();
    };
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let version = told["clientVersion"]["gitVersion"].as_str();
    version.unwrap_or_default().to_owned()
}
