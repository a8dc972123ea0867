//! What a guest says with a level, in the function's log.

use hive_functions::{HostServices, LogLevel, LogStream};

use super::{answer, given};

#[tokio::test]
async fn a_line_has_its_level_its_context_and_its_request() {
    let loaded = given(HostServices::default());
    answer(&loaded, "/log?context=db&message=connected").await;
    let said: Vec<_> = loaded.logs.records();
    let streams: Vec<_> = said.iter().map(|line| line.stream).collect();
    use LogLevel::{Critical, Debug, Error, Info, Trace, Warn};
    let levels = [Trace, Debug, Info, Warn, Error, Critical];
    assert_eq!(streams, levels.map(LogStream::Log));
    for line in said {
        assert_eq!((&*line.context, &*line.text), ("db", "connected"));
        assert_eq!(line.request_id.as_deref(), Some("request-1"));
    }
}

#[tokio::test]
async fn a_message_cannot_look_like_two() {
    let loaded = given(HostServices::default());
    answer(&loaded, "/log/bare?message=one%0Atwo&context=a%0Ab").await;
    let said: Vec<_> = loaded.logs.records();
    let said: Vec<_> = said.iter().map(|it| (&*it.context, &*it.text)).collect();
    assert_eq!(said, [("a b", "one"), ("a b", "two")]);
}
