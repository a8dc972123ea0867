//! The probe itself: a path that does not do what it says would prove nothing.

use hive_functions::InvokeError;

use super::{answer, probe};
use crate::guests::get_of;

#[tokio::test]
async fn it_answers_what_its_table_says() {
    let probe = probe();
    let cases = [
        ("/", "hello\n"),
        ("/count", "1\n"),
        ("/log?lines=2", "logged 2 lines\n"),
        ("/stream?chunks=2", "chunk 0\nchunk 1\n"),
        ("/slow?ms=1", "slept 1 ms\n"),
        ("/batch?fail=1", "{\"batchItemFailures\":[]}"),
        ("/busy?ms=1", "computed for 1 ms\n"),
        ("/after?ms=1", "answered\n"),
        ("/compute?turns=1", "dc1b77ae0bf34dad\n"),
        ("/memory?mib=1", "touched 1 MiB\n"),
        ("/handles?kind=fields&count=9", "held 9\n"),
        ("/handles?kind=request&count=9", "held 9\n"),
        ("/handles?kind=pollable&count=9", "held 9\n"),
        ("/handles?kind=stream&count=9", "held 9\n"),
        ("/headers?kib=9", "appended 9 KiB\n"),
        ("/argument?kib=9", "passed 9 KiB\n"),
        ("/random?bytes=99", "got 99 bytes\n"),
        (
            "/many?url=http://127.0.0.1:1/&count=2",
            "error ErrorCode::HttpRequestDenied\nerror ErrorCode::HttpRequestDenied\n",
        ),
        (
            "/follow?url=http://127.0.0.1:1/",
            "error ErrorCode::HttpRequestDenied",
        ),
    ];
    for (target, expected) in cases {
        assert_eq!(answer(&probe, target).await, expected, "{target}");
    }
    for (target, start) in [("/poll0?ms=1", "polled "), ("/grow", "grew by ")] {
        let answer = answer(&probe, target).await;
        assert!(answer.starts_with(start), "{target}: {answer}");
    }
}

#[tokio::test]
async fn it_fails_as_its_table_says() {
    for (target, reason) in [
        ("/silent", "NoResponse"),
        ("/error?text=needle", "ErrorCode"),
        ("/exit", "Trap"),
        ("/trap", "Trap"),
        ("/recurse", "Trap"),
    ] {
        let error: InvokeError = probe().function.handle(get_of(target)).await.unwrap_err();
        assert_eq!(error.reason().as_str(), reason, "{target}: {error}");
    }
}
