//! A function of WASI 0.3: it is async, so it can wait without keeping anything busy, and it sends a
//! body while it still makes it.

use std::{env, time::Duration};

use wasip3::{
    clocks::monotonic_clock,
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::spawn_local,
    wit_future, wit_stream,
};

const COUNT_FROM: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

struct Hello;

wasip3::http::service::export!(Hello);

impl Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_else(|| "/".into());
        // What is printed appears in `hivectl logs`.
        println!("asked for {path}");

        let (mut body, body_reader) = wit_stream::new();
        // Dropped unused, it says that no trailers follow.
        let (_trailers, trailers_reader) = wit_future::new(|| Ok(None));
        // The future tells when the caller has all of the body: of no interest here.
        let (response, _sent) = Response::new(text_plain(), Some(body_reader), trailers_reader);

        // Goes on after the response is returned.
        spawn_local(async move {
            if path == "/countdown" {
                for number in (1..=COUNT_FROM).rev() {
                    let unsent = body.write_all(format!("{number}\n").into_bytes()).await;
                    if !unsent.is_empty() {
                        println!("the caller left at {number}");
                        return;
                    }
                    monotonic_clock::wait_for(PAUSE.as_nanos() as u64).await;
                }
            }
            let unsent = body.write_all(greeting(&path).into_bytes()).await;
            if !unsent.is_empty() {
                println!("the caller left before the greeting");
            }
        });
        Ok(response)
    }
}

fn text_plain() -> Fields {
    let kind = b"text/plain; charset=utf-8".to_vec();
    Fields::from_list(&[("content-type".into(), kind)])
        .expect("the header is well-formed and one that a response may set")
}

/// GREETING is set in function.yaml. Hive itself sets the names that start with HIVE_.
fn greeting(path: &str) -> String {
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let greeting = variable("GREETING", "Hello");
    let function = variable("HIVE_FUNCTION", "hello-p3");
    format!("{greeting} from {function}: you asked for {path}\n")
}
