//! There are no files, no standard input, and no environment but the function's own.

use super::{all_refused, all_refused_by_both, answer, both, both_with};

#[tokio::test]
async fn no_file_is_read() {
    all_refused(&[
        "/fs?path=/etc/passwd",
        "/fs?path=etc/passwd",
        "/fs?path=../../../../etc/passwd",
        "/fs?path=/proc/self/environ",
        "/fs?path=/dev/stdin",
        "/fs?path=",
    ])
    .await;
}

#[tokio::test]
async fn no_file_is_written_or_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made").display().to_string();
    all_refused(&[
        &format!("/write?path={path}"),
        "/write?path=made",
        "/write?path=../made",
    ])
    .await;
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn no_directory_is_listed() {
    all_refused(&["/dir?path=/", "/dir?path=.", "/dir?path=..", "/dir?path="]).await;
}

/// Below the standard library: there is no directory that WASI's calls could begin from.
#[tokio::test]
async fn no_directory_is_given() {
    for probe in both() {
        assert_eq!(answer(&probe, "/directories").await, "given []\n");
    }
    all_refused_by_both(&[
        "/at?how=open&path=/etc/passwd",
        "/at?how=symlink&path=link&to=/etc/passwd",
    ])
    .await;
}

#[tokio::test]
async fn standard_input_is_at_its_end() {
    for probe in both() {
        assert_eq!(answer(&probe, "/stdin").await, "read 0 bytes\n");
    }
}

/// That of the tests' process is full of names.
#[tokio::test]
async fn the_environment_is_the_functions_own() {
    assert_ne!(std::env::vars().count(), 0);
    for probe in both() {
        assert_eq!(answer(&probe, "/env").await, "");
    }
    for probe in both_with(|options| options.env = vec![("OWN".to_owned(), "1".to_owned())]) {
        assert_eq!(answer(&probe, "/env").await, "OWN=1\n");
    }
}
