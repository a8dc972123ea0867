//! A sandbox of namespaces (network, mounts, processes) for one run of a test.
//!
//! A test starts itself again in the sandbox. Networks, mounted disks and processes made there are
//! gone with it, however it ends; runs side by side do not see each other.

use std::process::{Command, Stdio};

use super::{levers, tool};

const MARK: &str = "HIVE_SANDBOX";

/// `ip netns` keeps names in a directory that must be the sandbox's own.
const PREPARE: &str =
    "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && exec \"$@\"";

const UNSHARE: [&str; 6] = [
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// Programs that the sandbox and its faults need, with the Debian packages that hold them.
const TOOLS: [(&str, &[&str], &str); 6] = [
    ("ip", &["-V"], "iproute2"),
    ("nft", &["--version"], "nftables"),
    ("nsenter", &["--version"], "util-linux"),
    ("cc", &["--version"], "gcc"),
    ("mkfs.ext4", &["-V"], "e2fsprogs"),
    ("losetup", &["--version"], "mount"),
];

/// Whether this machine and user may have one; if not, why.
pub fn permitted() -> Result<(), String> {
    for (program, version, package) in TOOLS {
        tool::run(program, version)
            .map_err(|error| format!("{error} (package {package} of Debian has it)"))?;
    }
    let mut arguments = UNSHARE.to_vec();
    arguments.extend(["sh", "-c", PREPARE, "sh", "losetup", "--find"]);
    tool::run("unshare", &arguments)
        .map(drop)
        .map_err(|error| format!("{error} (root is needed, and loop devices)"))
}

/// Says so where nobody can overlook it, and whether to go on.
pub fn is_permitted(test: &str) -> bool {
    match permitted() {
        Ok(()) => {
            if levers::faketime().is_none() {
                println!(
                    "\n!!!! NOT TESTED: {test}: wrong clocks: libfaketime is not there (package \
                     libfaketime of Debian has it)\n"
                );
            }
            true
        }
        Err(why) => {
            println!("\n!!!! SKIPPED: {test}: no sandbox for faults here: {why}\n");
            false
        }
    }
}

pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// This program again, for one of its ignored tests, in a sandbox.
pub fn command(test: &str) -> Command {
    let program = std::env::current_exe().expect("a process can find its own file");
    let mut command = Command::new("unshare");
    command
        .args(UNSHARE)
        .args(["sh", "-c", PREPARE, "sh"])
        .arg(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(MARK, "1");
    command
}

/// Runs an ignored test of this program in a sandbox, to its end. Panics if it fails there.
pub fn run(test: &str, variables: &[(&str, String)]) {
    let dir = tempfile::tempdir().expect("the directory for temporary files can be written");
    let status = command(test)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        // What it leaves behind goes with this directory.
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .status()
        .expect("unshare ran before");
    assert!(status.success(), "{test} in its sandbox: {status}");
}
