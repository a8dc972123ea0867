//! The program under test: the `hive` that was built along with the test that runs; and, for tests of
//! upgrades, the one of the version before.

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

/// The `hive` of the version before, at the path in `HIVE_PREVIOUS`.
///
/// # Panics
///
/// If there is no such file, or it is the program under test.
pub fn previous() -> Option<PathBuf> {
    let program = PathBuf::from(std::env::var_os("HIVE_PREVIOUS")?);
    assert!(
        program.is_file(),
        "HIVE_PREVIOUS={}: there is no such program",
        program.display()
    );
    let same = std::fs::read(&program).ok() == std::fs::read(hive()).ok();
    assert!(!same, "HIVE_PREVIOUS names the program under test itself");
    Some(program)
}
