//! One stream of purpose Logs: a request for a function's lines, answered with those that are kept
//! and, if asked for, those that follow.

use std::time::{Duration, SystemTime};

use hive_proto::frame::{self, FrameError, MAX_FRAME_BYTES};
use hive_proto::link::Stream;
use hive_proto::v1::{LogLine, LogRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::ids::FunctionId;
use crate::logs::{Logs, is_of, unix_ms};

/// For the request to come. It is sent with the stream's first bytes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the stream until all is told, the caller goes, or `stop`.
pub async fn serve(mut stream: Stream, logs: Logs, stop: CancellationToken) {
    let told = stop.run_until_cancelled(tell(&mut stream, &logs)).await;
    if let Some(Err(error)) = told {
        tracing::debug!(%error, "log stream ended");
    }
    // The end of the stream is the end of the answer; the caller may be gone already.
    let _ = stream.shutdown().await;
}

async fn tell(stream: &mut Stream, logs: &Logs) -> Result<(), FrameError> {
    let request = tokio::time::timeout(
        REQUEST_TIMEOUT,
        frame::read::<LogRequest>(stream, MAX_FRAME_BYTES),
    );
    let Ok(Some(request)) = request.await.unwrap_or(Ok(None)) else {
        return Ok(());
    };
    let function = FunctionId::new(&request.namespace, &request.function);
    let Some(reading) = logs.read(&function, &request) else {
        return Ok(());
    };
    for line in reading.kept {
        frame::write(stream, line.as_ref()).await?;
    }
    let Some(mut following) = reading.following else {
        return Ok(());
    };
    let mut half_closed = false;
    loop {
        // The caller sends nothing more. It may end its side; when it goes, reading fails.
        let mut nothing = [0];
        let next = tokio::select! {
            next = following.recv() => next,
            read = stream.read(&mut nothing), if !half_closed => {
                half_closed = read? == 0;
                continue;
            }
        };
        match next {
            Ok(line) if is_of(&line, &request.request_id) => {
                frame::write(stream, line.as_ref()).await?;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => frame::write(stream, &missed_lines(missed)).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

fn missed_lines(count: u64) -> LogLine {
    LogLine {
        time_unix_ms: unix_ms(SystemTime::now()),
        stream: "hive".to_owned(),
        text: format!("{count} lines were missed: they came faster than they could be sent"),
        ..Default::default()
    }
}
