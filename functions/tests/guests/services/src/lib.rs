//! A function that uses what the host offers besides WASI: the path names an interface and what is
//! done with it, the query says with what.
//!
//! Requests of the tests come in; README.md lists the paths. What the host refuses is told, never
//! hidden: that is what the tests are about.

mod config;
mod keyvalue;
mod logging;
#[path = "../../probe/src/query.rs"]
#[allow(dead_code, reason = "the probe uses more of it")]
mod query;
#[path = "../../probe/src/reply.rs"]
#[allow(dead_code, reason = "the probe uses more of it")]
mod reply;
mod spin;

use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{IncomingRequest, ResponseOutparam},
};

use crate::{
    query::{BadParameter, Query},
    reply::Reply,
};

mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "services",
        generate_all,
    });
}

struct Services;

wasip2::http::proxy::export!(Services);

impl Guest for Services {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let reply = Reply::to(out);
        let answered = match done(&target) {
            Ok(outcome) => reply.outcome(outcome),
            Err(bad) => reply.text(400, &format!("{bad}\n")),
        };
        if let Err(error) = answered {
            eprintln!("the answer to {target} did not arrive: {error}");
        }
    }
}

/// What came of it: an answer, or why the host refused.
type Outcome = Result<String, String>;

fn done(target: &str) -> Result<Outcome, BadParameter> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = Query::parse(query);
    Ok(match path {
        "" | "/" => Ok("hello".to_owned()),
        "/config" => config::get(&query.required("name")?),
        "/config/draft" => config::get_draft(&query.required("name")?),
        "/configs" => config::all(),
        "/configs/draft" => config::all_draft(),
        "/variable" => config::variable(&query.required("name")?),
        "/log" => logging::say(&query)?,
        "/log/bare" => logging::say_bare(&query)?,
        "/kv/draft2/swap" => keyvalue::swap(&query)?,
        path => match path
            .strip_prefix("/kv/")
            .and_then(|rest| rest.split_once('/'))
        {
            Some(("draft", what)) => keyvalue::by_first(what, &query)?,
            Some(("draft2", what)) => keyvalue::by_second(what, &query)?,
            Some(("spin", what)) => spin::done_by_spin(what, &query)?,
            _ => return Err(BadParameter(format!("nothing is at {path}"))),
        },
    })
}
