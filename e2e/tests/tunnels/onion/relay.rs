//! One relay of the network, which may be an authority: its keys and its configuration.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Between two votes, in seconds: few, and still enough for votes to come from everybody on a busy machine.
const VOTE: u32 = 20;

/// A period of the directory of services, in minutes: as long as the 24 votes by which a random value is found, as C tor
/// has it in networks for tests.
pub const PERIOD: u32 = 24 * VOTE / 60;

/// For keys of one relay.
const MAKING: Duration = Duration::from_secs(30);

/// Stands in a configuration until the authorities' keys are known: without one, C tor takes none of another network.
const NO_AUTHORITY: &str = "none orport=1 no-v2 v3ident=0000000000000000000000000000000000000000 127.0.0.1:1 \
                            0000000000000000000000000000000000000000";

#[derive(Debug)]
pub struct Relay {
    pub name: String,
    pub dir: PathBuf,
    pub port: u16,
    /// Of an authority: where it gives out the directory.
    pub directory: Option<u16>,
}

impl Relay {
    /// Its configuration, but for what needs everybody's keys, and its keys.
    pub async fn make(&self, tor: &Path, gencert: &Path) {
        make_dir(&self.dir);
        let keys = self.dir.join("keys");
        make_dir(&keys);
        let mut text = common(&self.dir);
        // No exit: these neither reach the internet nor ask for names there.
        text += &format!(
            "Nickname {}\nAddress 127.0.0.1\nORPort 127.0.0.1:{}\nSocksPort 0\nAssumeReachable 1\nExitRelay 0\n",
            self.name, self.port
        );
        if let Some(directory) = self.directory {
            text += &authority(directory);
            let mut command = Command::new(gencert);
            command
                .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"])
                .args(["-a", &format!("127.0.0.1:{directory}")])
                .arg("-i")
                .arg(keys.join("authority_identity_key"))
                .arg("-s")
                .arg(keys.join("authority_signing_key"))
                .arg("-c")
                .arg(keys.join("authority_certificate"));
            run(command, "passphrase\n").await;
        }
        let config = self.dir.join("torrc");
        fs::write(&config, text).unwrap();
        let mut command = command(tor, &config);
        command.args(["--DirAuthority", NO_AUTHORITY, "--list-fingerprint"]);
        run(command, "").await;
    }

    /// Starts it with the lines that name the authorities; `bandwidths` is a file of theirs.
    pub fn start(&self, tor: &Path, authorities: &str, bandwidths: &Path) -> Child {
        let config = self.dir.join("torrc");
        let mut text = fs::read_to_string(&config).unwrap() + authorities;
        if self.directory.is_some() {
            text += &format!("V3BandwidthsFile {}\n", bandwidths.display());
            fs::write(self.dir.join("sr-state"), random_values()).unwrap();
        }
        fs::write(&config, text).unwrap();
        start(tor, &config)
    }

    /// The last word of one of its files.
    pub fn word(&self, file: &str) -> String {
        let text = fs::read_to_string(self.dir.join(file)).unwrap();
        text.split_whitespace().last().unwrap().to_owned()
    }

    /// The name of an authority's key for votes.
    pub fn identity(&self) -> String {
        let text = fs::read_to_string(self.dir.join("keys/authority_certificate")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("fingerprint "));
        line.unwrap().to_owned()
    }

    /// The line that names an authority.
    pub fn authority(&self) -> Option<String> {
        let directory = self.directory?;
        Some(format!(
            "DirAuthority {} orport={} no-v2 v3ident={} 127.0.0.1:{directory} {}\n",
            self.name,
            self.port,
            self.identity(),
            self.word("fingerprint"),
        ))
    }
}

/// Votes that call every relay good for everything at once: Arti uses only relays that are stable and fast, and by the
/// usual measure half of a young network is not.
fn authority(directory: u16) -> String {
    format!(
        "DirPort 127.0.0.1:{directory}\n\
         ContactInfo test@example.org\n\
         AuthoritativeDirectory 1\n\
         V3AuthoritativeDirectory 1\n\
         TestingV3AuthInitialVotingInterval {VOTE}\n\
         TestingV3AuthInitialVoteDelay 4\n\
         TestingV3AuthInitialDistDelay 4\n\
         V3AuthVotingInterval {VOTE}\n\
         V3AuthVoteDelay 4\n\
         V3AuthDistDelay 4\n\
         V3AuthNIntervalsValid 2\n\
         TestingDirAuthVoteGuard *\n\
         TestingDirAuthVoteHSDir *\n\
         AuthDirVoteStableGuaranteeMinUptime 0 seconds\n\
         AuthDirFastGuarantee 1 bytes\n"
    )
}

/// Random values as an authority keeps them, as if two had been agreed on already. By them services have their places in
/// the directory, and a network without both has room for one period at a time only, where Arti calls every service
/// unreachable. To agree on two takes a quarter of an hour.
fn random_values() -> String {
    format!(
        "Version 1\n\
         ValidAfter 2000-01-01 00:00:00\n\
         ValidUntil 2099-01-01 00:00:00\n\
         SharedRandPreviousValue 3 {}\n\
         SharedRandCurrentValue 3 {}\n",
        BASE64.encode([1_u8; 32]),
        BASE64.encode([2_u8; 32]),
    )
}

/// What holds for every program of the network.
pub fn common(dir: &Path) -> String {
    format!(
        "TestingTorNetwork 1\nDataDirectory {}\nLog notice file {}\n",
        dir.display(),
        dir.join("log").display()
    )
}

/// As tor wants its directories.
pub fn make_dir(dir: &Path) {
    DirBuilder::new().mode(0o700).create(dir).unwrap();
}

pub fn start(tor: &Path, config: &Path) -> Child {
    command(tor, config).spawn().unwrap()
}

fn command(tor: &Path, config: &Path) -> Command {
    let mut command = Command::new(tor);
    command
        .args(["--defaults-torrc", "/dev/null", "--quiet", "-f"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a program to its end.
async fn run(mut command: Command, input: &str) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = timeout(MAKING, child.wait_with_output()).await;
    let Ok(output) = ended else {
        panic!("{command:?}: goes on for {MAKING:?}");
    };
    let output = output.unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
