//! An OpenID issuer of another make (`oidc-provider` of npm), and a person with a browser for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Now, Stdio};
use std::time::Duration;

use hive_e2e::hive;
use hive_e2e::wait::PATIENCE;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Of the issuer's ID tokens. Long enough to be used, short enough to be waited for.
pub const ID_TOKEN_LIFETIME: Duration = Duration::from_secs(20);

/// As what the issuer knows a tunnel at `localhost`, and the secret of that client.
#[allow(dead_code, reason = "the tests of tunnels use it")]
pub const CLIENT: &str = "photos";
#[allow(dead_code, reason = "the tests of tunnels use it")]
pub const CLIENT_SECRET: &str = "of-the-test";

/// The issuer's program, while it runs.
pub struct Issuer {
    pub url: String,
    pub certificate: PathBuf,
    directory: PathBuf,
    /// Where this person's programs keep their things.
    pub cache: PathBuf,
    /// What the program says.
    log: PathBuf,
    _program: Child,
}

impl Issuer {
    pub async fn start(desk: &Path) -> Option<Self> {
        let directory = install()?;
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (desk.join("issuer.crt"), desk.join("issuer.key"));
        fs::write(&certificate, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        let log = desk.join("issuer.log");
        let mut program = Command::new("node")
            .arg(directory.join("issuer.mjs"))
            .args([&certificate, &key])
            .arg(ID_TOKEN_LIFETIME.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut lines = BufReader::new(program.stdout.take().unwrap());
        tokio::time::timeout(PATIENCE, lines.read_line(&mut url))
            .await
            .expect("the issuer serves in time")
            .unwrap();
        let said = || fs::read_to_string(&log).unwrap();
        assert!(url.starts_with("https://"), "the issuer ended: {}", said());
        Some(Self {
            url: url.trim().to_owned(),
            certificate,
            directory,
            cache: desk.join("cache"),
            log,
            _program: program,
        })
    }

    /// `hivectl` with this person's cache, and the flags of the issuer behind a subcommand.
    pub fn hivectl(&self, kubeconfig: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(hive());
        command
            .args(["ctl", "--kubeconfig"])
            .arg(kubeconfig)
            .args(arguments)
            .args(["--oidc-issuer-url", &self.url, "--oidc-client-id", "hive"])
            .args(["--oidc-extra-scope", "email,groups", "--oidc-ca-file"])
            .arg(&self.certificate)
            .env("XDG_CACHE_HOME", &self.cache)
            .kill_on_drop(true);
        command
    }

    /// Signs in as `user` at the page that hivectl names.
    pub async fn sign_in(&self, kubeconfig: &Path, flags: &[&str], user: &str) -> String {
        let arguments = [&["login"], flags].concat();
        let mut login = self
            .hivectl(kubeconfig, &arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(login.stderr.take().unwrap()).lines();
        let page = async {
            while let Some(line) = said.next_line().await.unwrap() {
                let page = line.trim().strip_prefix("or open ").unwrap_or(line.trim());
                if page.starts_with("https://") {
                    return page.to_owned();
                }
                println!("    {line}");
            }
            panic!("hivectl names no page");
        };
        let page = tokio::time::timeout(PATIENCE, page).await.expect("in time");
        let browser = self.browse(&[&*page, user]);
        let mut told = String::new();
        let mut out = login.stdout.take().unwrap();
        let ended = async {
            out.read_to_string(&mut told).await.unwrap();
            login.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("in time");
        assert!(
            status.success(),
            "{told}\nthe browser: {browser}\n{}",
            self.said()
        );
        told
    }

    /// Signs in as `user` at a page, until the browser is sent where URLs begin with `back`: the whole of that URL.
    #[allow(dead_code, reason = "the tests of tunnels use it")]
    pub fn visit(&self, page: &str, user: &str, back: &str) -> String {
        self.browse(&[page, user, back])
    }

    fn browse(&self, arguments: &[&str]) -> String {
        let mut browser = Now::new("node");
        browser
            .arg(self.directory.join("browser.mjs"))
            .args(arguments)
            .env("NODE_EXTRA_CA_CERTS", &self.certificate);
        run_now(&mut browser).unwrap_or_else(|why| panic!("{why}\n{}", self.said()))
    }

    /// Somebody leaves the house: the issuer knows them no more.
    pub fn dismiss(&self, user: &str) {
        let url = format!("{}/test/dismiss?user={user}", self.url);
        let mut node = Now::new("node");
        node.args([
            "--input-type=module",
            "-e",
            "await fetch(process.argv[1])",
            &url,
        ])
        .env("NODE_EXTRA_CA_CERTS", &self.certificate);
        run_now(&mut node).unwrap();
    }

    fn said(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        format!("the issuer:\n{said}")
    }
}

fn install() -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/oidc");
    let directory = PathBuf::from(std::env::var_os("HOME")?).join(".cache/hive-ci/client-oidc");
    let lock = "package-lock.json";
    let wanted = fs::read(sources.join(lock)).unwrap();
    if !fs::read(directory.join("lock")).is_ok_and(|found| found == wanted) {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        for file in ["package.json", lock] {
            fs::copy(sources.join(file), directory.join(file)).unwrap();
        }
        let mut npm = Now::new("npm");
        npm.args(["ci", "--silent", "--no-audit", "--no-fund"])
            .current_dir(&directory);
        if let Err(why) = run_now(&mut npm) {
            eprintln!(
                "\n!!!! SKIPPED: the OpenID issuer can't be installed: {why}\n         it needs Node 20 \
                 with npm (apt-get install nodejs npm) and its registry\n"
            );
            return None;
        }
        fs::write(directory.join("lock"), wanted).unwrap();
    }
    // A module is looked for beside the file that imports it.
    for file in ["issuer.mjs", "browser.mjs"] {
        fs::copy(sources.join(file), directory.join(file)).unwrap();
    }
    Some(directory)
}

fn run_now(command: &mut Now) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
