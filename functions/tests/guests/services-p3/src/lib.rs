//! A function that uses what the host offers by WASI 0.3: the path names it, the query says with what.
//!
//! Requests of the tests come in; README.md lists the paths. What the host refuses is told, never
//! hidden: that is what the tests are about.

mod files;
#[path = "../../probe/src/query.rs"]
#[allow(dead_code, reason = "the probe uses more of it")]
mod query;
mod spin;

use wasip3::{
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::spawn_local,
    wit_future, wit_stream,
};

use crate::query::{BadParameter, Query};

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
        let text = answer(&target).await.unwrap_or_else(|bad| format!("{bad}\n"));
        let (mut body, reader) = wit_stream::new();
        // Dropped unused, it says that no trailers follow.
        let (_trailers, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
        spawn_local(async move {
            // The test may have gone away.
            _ = body.write_all(text.into_bytes()).await;
        });
        Ok(response)
    }
}

async fn answer(target: &str) -> Result<String, BadParameter> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = Query::parse(query);
    Ok(match path {
        "/steps" => files::steps(&query).await,
        "/variable" => spin::variable(&query).await?,
        path => match path.strip_prefix("/kv/spin3/") {
            Some(what) => spin::done(what, &query).await?,
            None => return Err(BadParameter(format!("nothing is at {path}"))),
        },
    })
}
