//! Runs hivectl in this process against a fake server, and collects what it prints.

use std::ffi::OsString;
use std::io::{self, Cursor, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hive_cli::{Environment, World};
use hive_identity::CertificateAuthority;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::fake::Fake;

/// A command that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// A stream that a test can read and wait for.
#[derive(Clone, Default)]
pub struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    written: Arc<Notify>,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }

    /// Returns when the text was printed.
    pub async fn contains(&self, text: &str) {
        let wait = async {
            loop {
                let written = self.written.notified();
                if self.text().contains(text) {
                    return;
                }
                written.await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("{text:?} was not printed: {}", self.text());
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        self.written.notify_waiters();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub struct Run {
    pub code: u8,
    pub out: String,
    pub err: String,
}

impl Run {
    /// Asserts a whole transcript.
    #[track_caller]
    pub fn expect(&self, code: u8, out: &str, err: &str) {
        assert_eq!(
            (self.code, self.out.as_str(), self.err.as_str()),
            (code, out, err),
            "exit code, stdout and stderr differ"
        );
    }
}

/// A command that is still running.
pub struct Running {
    pub out: Output,
    pub err: Output,
    task: tokio::task::JoinHandle<u8>,
}

impl Running {
    pub async fn end(self) -> Run {
        let code = tokio::time::timeout(DEADLINE, self.task).await;
        Run {
            code: code
                .unwrap_or_else(|_| panic!("hangs: {} {}", self.out.text(), self.err.text()))
                .unwrap(),
            out: self.out.text(),
            err: self.err.text(),
        }
    }

    /// As Ctrl-C does.
    pub fn interrupt(self) {
        self.task.abort();
    }
}

/// A swarm of one fake server, a directory for manifests and a kubeconfig.
pub struct Swarm {
    pub fake: Fake,
    pub dir: TempDir,
    pub ca: CertificateAuthority,
}

impl Swarm {
    pub async fn start() -> Self {
        let swarm = Self {
            fake: Fake::start().await,
            dir: tempfile::tempdir().unwrap(),
            ca: CertificateAuthority::create("test").unwrap(),
        };
        swarm.write_kubeconfig(&[&swarm.fake.url()]);
        swarm
    }

    /// A kubeconfig that lists these servers.
    pub fn write_kubeconfig(&self, servers: &[&str]) {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca.certificate().to_pem());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": servers[0],
                "certificate-authority-data": ca,
                "extensions": [{"name": "hive.dev/servers", "extension": {"servers": servers}}]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "users": [{"name": "admin", "user": {"token": "s3cret"}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).unwrap();
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Writes a file and returns its path as text.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn environment(&self) -> Environment {
        Environment::default()
            .with("KUBECONFIG", self.kubeconfig())
            .with("XDG_CACHE_HOME", self.dir.path().join("cache"))
    }

    pub fn begin(&self, arguments: &[&str], input: &str) -> Running {
        self.begin_in(self.environment(), arguments, input)
    }

    fn begin_in(&self, environment: Environment, arguments: &[&str], input: &str) -> Running {
        let (out, err) = (Output::default(), Output::default());
        let mut world = World {
            input: Box::new(Cursor::new(input.as_bytes().to_vec())),
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            out_colour: false,
            err_colour: false,
            interactive: false,
            environment,
        };
        let arguments: Vec<OsString> = std::iter::once("hivectl")
            .chain(arguments.iter().copied())
            .map(OsString::from)
            .collect();
        let task = tokio::spawn(async move { hive_cli::run(arguments, &mut world).await });
        Running { out, err, task }
    }

    pub async fn run(&self, arguments: &[&str]) -> Run {
        self.begin(arguments, "").end().await
    }

    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        self.begin(arguments, input).end().await
    }

    /// Runs with an editor set.
    pub async fn run_edit(&self, editor: &str, arguments: &[&str]) -> Run {
        let environment = self.environment().with("EDITOR", editor);
        self.begin_in(environment, arguments, "").end().await
    }
}
