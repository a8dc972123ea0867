//! The answer to a request: its head at once, its body piece by piece.

use std::time::Duration;

use wasip3::{
    http::types::{Fields, Response},
    wit_bindgen::{rt::async_support::StreamWriter, spawn_local},
    wit_future, wit_stream,
};

use crate::busy;

pub enum Answer {
    Text(String),
    /// So many pieces with a pause before each but the first.
    Stream {
        chunks: u64,
        pause: Duration,
    },
    /// So many KiB of lines of letters, whatever the head declares.
    Large {
        kib: u64,
        declared: Option<String>,
    },
    /// It says so, and then computes for ever.
    After,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Answer {
    pub fn start(self) -> Response {
        let headers = Fields::new();
        if let Self::Large {
            declared: Some(length),
            ..
        } = &self
        {
            let declared = headers.append("content-length", length.as_bytes());
            declared.expect("a length may be declared");
        }
        let (body, reader) = wit_stream::new();
        // Dropped unused, it says that no trailers follow.
        let (_trailers, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(headers, Some(reader), trailers);
        spawn_local(self.write(body));
        response
    }

    /// The test may go away at any time: nothing is made of that.
    async fn write(self, mut body: StreamWriter<u8>) {
        match self {
            Self::Text(text) => _ = body.write_all(text.into_bytes()).await,
            Self::Stream { chunks, pause } => {
                for chunk in 0..chunks {
                    if chunk > 0 && !pause.is_zero() {
                        busy::wait(pause).await;
                    }
                    _ = body
                        .write_all(format!("chunk {chunk}\n").into_bytes())
                        .await;
                }
            }
            Self::Large { kib, .. } => {
                const LINE: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz01234\n";
                for _ in 0..kib {
                    _ = body.write_all(LINE.repeat(1024 / LINE.len())).await;
                }
            }
            Self::After => {
                _ = body.write_all(b"answered\n".to_vec()).await;
                drop(body);
                busy::spin();
            }
        }
    }
}
