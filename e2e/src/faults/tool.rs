//! Programs of the system that the faults are made with.

use std::process::{Command, Stdio};

/// Runs a program to its end; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    feed(program, arguments, "")
}

/// The same, with input.
pub fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    use std::io::Write;
    let shown = format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that ends early says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .map_err(|error| format!("{shown}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{shown}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// Runs a program that cannot fail where the sandbox is permitted.
///
/// # Panics
///
/// If it fails.
pub fn must(program: &str, arguments: &[&str]) -> String {
    run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}
