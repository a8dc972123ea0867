//! A function that uses what the host offers by WASI 0.3: the path names it, the query says with what.
//!
//! Requests of the tests come in; README.md lists the paths. What the host refuses is told, never
//! hidden: that is what the tests are about.

mod answer;
mod busy;
mod egress;
mod files;
mod handles;
mod network;
#[path = "../../probe/src/query.rs"]
mod query;
mod spin;
mod together;

use wasip3::{
    cli::{environment::get_environment, stdin},
    exports::http::handler::Guest,
    http::types::{ErrorCode, Request, Response},
};

use crate::{
    answer::Answer,
    query::{BadParameter, Query},
};

mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "services",
        generate_all,
    });
}

struct Services;

wasip3::http::service::export!(Services);

impl Guest for Services {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let answer = answer(&target).await;
        Ok(answer
            .unwrap_or_else(|bad| format!("{bad}\n").into())
            .start())
    }
}

async fn answer(target: &str) -> Result<Answer, BadParameter> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = Query::parse(query);
    let text = match path {
        "/" => "hello\n".to_owned(),
        "/env" => environment(),
        "/stdin" => outcome(stdin().await),
        "/directories" => format!("given {:?}\n", files::directories()),
        "/at" => files::step(&query).await,
        "/steps" => files::steps(&query).await,

        "/tcp" => outcome(network::connect(query.address("to")?).await),
        "/listen" => outcome(network::listen(query.address("at")?)),
        "/udp" => outcome(network::send(query.address("to")?).await),
        "/resolve" => outcome(network::resolve(query.required("name")?).await),
        "/egress" => sent(egress::get(&egress::Asked::of(&query)?).await),
        "/follow" => sent(egress::follow(egress::Asked::of(&query)?).await),
        "/many" => egress::many(&egress::Asked::of(&query)?, query.number("count", 2)?).await,

        "/grow" => format!("grew by {} pages\n", busy::grow()),
        "/spin" => busy::spin(),
        "/slow" => busy::sleep(query.number("ms", 100)?).await,
        "/poll0" => busy::poll(query.milliseconds("ms")?).await,
        "/handles" => {
            let kind = query.text("kind").unwrap_or("fields".to_owned());
            outcome(handles::hold(&kind, query.number("count", 1)?).await)
        }
        "/headers" => outcome(handles::headers(query.number("kib", 1)?)),
        "/argument" => outcome(handles::argument(query.number("kib", 1)?)),
        "/random" => handles::random(query.number("bytes", 16)?),

        "/after" => return Ok(Answer::After),
        "/stream" => {
            return Ok(Answer::Stream {
                chunks: query.number("chunks", 3)?,
                pause: query.milliseconds("ms")?.unwrap_or_default(),
            });
        }
        "/large" => {
            return Ok(Answer::Large {
                kib: query.number("kib", 1024)?,
                declared: query.text("declared"),
            });
        }

        "/variable" => spin::variable(&query).await?,
        path => match path.strip_prefix("/kv/spin3/") {
            Some(what) => spin::done(what, &query).await?,
            None => return Err(BadParameter(format!("nothing is at {path}"))),
        },
    };
    Ok(text.into())
}

fn outcome(outcome: Result<String, String>) -> String {
    match outcome {
        Ok(done) => format!("{done}\n"),
        Err(error) => format!("refused {error}\n"),
    }
}

fn sent(outcome: Result<String, String>) -> String {
    outcome.unwrap_or_else(|error| format!("error {error}\n"))
}

fn environment() -> String {
    let lines = get_environment().into_iter();
    let mut lines: Vec<_> = lines
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    lines.sort();
    lines.concat()
}

async fn stdin() -> Result<String, String> {
    let (bytes, ended) = stdin::read_via_stream();
    let bytes = bytes.collect().await;
    ended.await.map_err(|error| format!("{error:?}"))?;
    Ok(format!("read {} bytes", bytes.len()))
}
