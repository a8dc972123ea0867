//! Buckets, by Spin's own `key-value`.

use crate::{
    Outcome,
    bindings::fermyon::spin::key_value::{Error, Store},
    keyvalue::{done, shown, value},
    query::{BadParameter, Query},
};

pub fn done_by_spin(what: &str, query: &Query) -> Result<Outcome, BadParameter> {
    let label = query.text("bucket").unwrap_or("default".to_owned());
    let store = match Store::open(&label) {
        Ok(store) => store,
        Err(error) => return Ok(Err(told(error))),
    };
    let key = || query.required("key");
    let outcome = match what {
        "get" => store.get(&key()?).map(shown),
        "set" => store.set(&key()?, &value(query)?).map(done),
        "delete" => store.delete(&key()?).map(done),
        "exists" => store.exists(&key()?).map(|is| is.to_string()),
        "list" => store.get_keys().map(|keys| format!("{} keys", keys.len())),
        what => return Err(BadParameter(format!("{what} is nothing to do"))),
    };
    Ok(outcome.map_err(told))
}

fn told(error: Error) -> String {
    format!("{error:?}")
}
