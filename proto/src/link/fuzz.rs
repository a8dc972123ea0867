//! The framing of streams over yamux, damaged in every way.

#![allow(clippy::unwrap_used)]

use hive_fuzz::Target;
use tokio::io::AsyncReadExt;

use super::chunked::Chunked;

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Through readers that ask for as much or as little as they like: the same bytes, the same end.
#[test]
fn chunks_are_read_or_refused() {
    let chunk = |text: &[u8]| [&(text.len() as u16).to_be_bytes(), text].concat();
    let whole = [chunk(b"hello"), chunk(&[b'x'; 300]), chunk(b"")].concat();
    Target::new("chunks", |input: &[u8]| {
        let read = |piece: usize| {
            block_on(async {
                let mut chunked = Chunked::new(input);
                let mut read = Vec::new();
                let mut buffer = vec![0; piece];
                loop {
                    match chunked.read(&mut buffer).await {
                        Ok(0) => return Ok(read),
                        Ok(count) => read.extend_from_slice(&buffer[..count]),
                        Err(error) => return Err((read, error.to_string())),
                    }
                }
            })
        };
        let whole = read(64 * 1024);
        assert_eq!(whole, read(1 + input.len() % 7));
        whole.map(|_| ()).map_err(|(_, error)| error)
    })
    .seeds([whole])
    .words(["\0\0", "\u{0}\u{1}"])
    .at_most(8 * 1024)
    .hold();
}
