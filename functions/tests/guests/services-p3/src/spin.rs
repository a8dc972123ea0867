//! Buckets and settings, by Spin's own interfaces of its third version.

use crate::{
    bindings::spin::{
        key_value::key_value::{Error, Store},
        variables::variables,
    },
    query::{BadParameter, Query},
};

pub async fn variable(query: &Query) -> Result<String, BadParameter> {
    let name = query.required("name")?;
    Ok(match variables::get(name).await {
        Ok(value) => format!("{value}\n"),
        Err(error) => format!("refused {error:?}\n"),
    })
}

pub async fn done(what: &str, query: &Query) -> Result<String, BadParameter> {
    let label = query.text("bucket").unwrap_or("default".to_owned());
    let store = match Store::open(label).await {
        Ok(store) => store,
        Err(error) => return Ok(format!("refused {error:?}\n")),
    };
    let key = || query.required("key");
    let outcome = match what {
        "get" => store.get(key()?).await.map(shown),
        "set" => {
            let value = query.required("value")?.into_bytes();
            store.set(key()?, value).await.map(|()| "done".to_owned())
        }
        "delete" => store.delete(key()?).await.map(|()| "done".to_owned()),
        "exists" => store.exists(key()?).await.map(|is| is.to_string()),
        "list" => listed(&store).await,
        what => return Err(BadParameter(format!("{what} is nothing to do"))),
    };
    Ok(match outcome {
        Ok(text) => format!("{text}\n"),
        Err(error) => format!("refused {error:?}\n"),
    })
}

async fn listed(store: &Store) -> Result<String, Error> {
    let (keys, outcome) = store.get_keys().await;
    let keys = keys.collect().await;
    outcome.await?;
    Ok(format!("{} keys", keys.len()))
}

fn shown(value: Option<Vec<u8>>) -> String {
    value.map_or("nothing".to_owned(), |value| {
        String::from_utf8_lossy(&value).into_owned()
    })
}
