//! The smallest useful function: it greets whoever asks, and says who it is.

use std::{
    env,
    io::{self, Write},
};

use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_else(|| "/".into());
        // What is printed appears in `hivectl logs`.
        println!("asked for {path}");
        if let Err(error) = answer(response, &greeting(&path)) {
            eprintln!("the answer did not arrive: {error}");
        }
    }
}

/// GREETING is set in function.yaml. Hive itself sets the names that start with HIVE_.
fn greeting(path: &str) -> String {
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let greeting = variable("GREETING", "Hello");
    let function = variable("HIVE_FUNCTION", "hello");
    let namespace = variable("HIVE_NAMESPACE", "default");
    format!("{greeting} from {function} in {namespace}: you asked for {path}\n")
}

fn answer(out: ResponseOutparam, text: &str) -> io::Result<()> {
    let headers = Fields::new();
    headers
        .set("content-type", &[b"text/plain; charset=utf-8".to_vec()])
        .expect("the header is well-formed and one that a response may set");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("a new response still has its body");
    ResponseOutparam::set(out, Ok(response));

    let mut stream = body.write().expect("a new body still has its stream");
    stream.write_all(text.as_bytes())?;
    // Named in full: the stream has a method of WASI with this name, which does not wait.
    Write::flush(&mut stream)?;
    // The stream belongs to the body, which cannot be finished before it.
    drop(stream);
    OutgoingBody::finish(body, None).map_err(io::Error::other)
}
