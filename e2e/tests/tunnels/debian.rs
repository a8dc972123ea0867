//! Programs of other people that a test needs, from Debian.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// For lists and packages to come over a slow line.
const PATIENCE: Duration = Duration::from_secs(600);

/// The first of these programs that is on PATH; where none is, the package that has them is installed, if this user
/// may do that. Without it, says so where nobody can overlook it.
pub async fn program(test: &str, names: &[&str], package: &str) -> Option<PathBuf> {
    if let Some(program) = on_path(names) {
        return Some(program);
    }
    let why = match install(package).await {
        Ok(()) => match on_path(names) {
            Some(program) => return Some(program),
            None => "it is not in the package".to_owned(),
        },
        Err(why) => why,
    };
    println!(
        "\n!!!! SKIPPED: {test}: there is no {} (apt-get install {package}): {why}\n",
        names.join(", and no ")
    );
    None
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut programs = names
        .iter()
        .flat_map(|name| directories.iter().map(move |it| it.join(name)));
    programs.find(|program| program.is_file())
}

async fn install(package: &str) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may install it".to_owned());
    }
    let update = ["update", "-qq"];
    let wait = "DPkg::Lock::Timeout=120";
    let install = [
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        "-o",
        wait,
        package,
    ];
    for arguments in [&update[..], &install] {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = ended
            .map_err(|_| format!("apt-get {} goes on for {PATIENCE:?}", arguments[0]))?
            .map_err(|error| format!("apt-get: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
    }
    Ok(())
}
