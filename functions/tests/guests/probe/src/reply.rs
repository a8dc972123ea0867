//! The answer to a request: all at once as text, or piece by piece as a body.

use std::io::{self, Write};

use wasip2::{
    http::types::{ErrorCode, Fields, OutgoingBody, OutgoingResponse, ResponseOutparam},
    io::streams::OutputStream,
};

/// An answer of which nothing is sent yet.
pub struct Reply(ResponseOutparam);

/// An answer whose head is sent.
pub struct Body {
    // Before the body that it belongs to: fields are dropped in this order, and WASI traps otherwise.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Reply {
    pub fn to(out: ResponseOutparam) -> Self {
        Self(out)
    }

    pub fn text(self, status: u16, text: &str) -> io::Result<()> {
        self.whole(status, "text/plain; charset=utf-8", text)
    }

    pub fn json(self, text: &str) -> io::Result<()> {
        self.whole(200, "application/json", text)
    }

    /// What came of something that the host may refuse.
    pub fn outcome(self, outcome: Result<String, String>) -> io::Result<()> {
        match outcome {
            Ok(done) => self.text(200, &(done + "\n")),
            Err(error) => self.text(200, &format!("refused {error}\n")),
        }
    }

    /// An error in the answer's place.
    pub fn error(self, text: String) {
        ResponseOutparam::set(self.0, Err(ErrorCode::InternalError(Some(text))));
    }

    fn whole(self, status: u16, kind: &str, text: &str) -> io::Result<()> {
        let kind = ("content-type".to_owned(), kind.as_bytes().to_vec());
        let mut body = self.start(status, &[kind]);
        body.write_all(text.as_bytes())?;
        body.finish()
    }

    pub fn start(self, status: u16, headers: &[(String, Vec<u8>)]) -> Body {
        let fields = Fields::from_list(headers).expect("the names of headers are well-formed");
        let response = OutgoingResponse::new(fields);
        response
            .set_status_code(status)
            .expect("the status is one of HTTP: 100 to 599");
        let body = response.body().expect("a new response still has its body");
        let stream = body.write().expect("a new body still has its stream");
        ResponseOutparam::set(self.0, Ok(response));
        Body { stream, body }
    }
}

impl Body {
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        drop(self.stream);
        OutgoingBody::finish(self.body, None).map_err(io::Error::other)
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut self.stream, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(&mut self.stream)
    }
}
