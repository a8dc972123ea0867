//! The program under test: the `hive` that was built along with the test that runs.

use std::path::PathBuf;

/// `target/<profile>/hive`, two directories above `target/<profile>/deps/<test>`.
///
/// # Panics
///
/// If it was not built.
pub fn hive() -> PathBuf {
    let test = std::env::current_exe().expect("a process can find its own file");
    let beside = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("hive"))
        .find(|program| program.is_file());
    beside.unwrap_or_else(|| {
        panic!(
            "there is no program `hive` near {}: build it with `cargo build`",
            test.display()
        )
    })
}
