//! `wasi:config`, and Spin's variables: settings by name, as the manifest gives them.
//!
//! Names come in, values go out. The environment is no part of it: what is not set as configuration
//! is not there.

use std::collections::BTreeMap;

use wasmtime::{
    StoreContextMut,
    component::{Accessor, ComponentType, Lift, Linker, Lower},
};

use crate::{
    guest::Guest,
    interfaces::{CONFIG_STORE, SPIN_VARIABLES, SPIN_VARIABLES_3},
};

/// A function's settings.
pub trait Config: Send + Sync {
    fn get(&self, name: &str) -> Option<&str>;

    fn all(&self) -> Vec<(String, String)>;
}

impl Config for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        Some(self.get(name)?)
    }

    fn all(&self) -> Vec<(String, String)> {
        self.clone().into_iter().collect()
    }
}

/// `wasi:config/store.error`. Never returned: all values are here.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// `variables.error`, of both generations.
#[derive(Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

type Guests<'a> = StoreContextMut<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in CONFIG_STORE {
        let mut store = linker.instance(name)?;
        store.func_wrap("get", |guest: Guests<'_>, (name,): (String,)| {
            let value = guest.data().services.config.get(&name);
            Ok((Ok::<_, Error>(value.map(str::to_owned)),))
        })?;
        store.func_wrap("get-all", |guest: Guests<'_>, (): ()| {
            Ok((Ok::<_, Error>(guest.data().services.config.all()),))
        })?;
    }
    linker.instance(SPIN_VARIABLES)?.func_wrap(
        "get",
        |guest: Guests<'_>, (name,): (String,)| {
            Ok((variable(&*guest.data().services.config, &name),))
        },
    )?;
    linker.instance(SPIN_VARIABLES_3)?.func_wrap_concurrent(
        "get",
        |guests: &Accessor<Guest>, (name,): (String,)| {
            let value =
                guests.with(|mut guest| variable(&*guest.data_mut().services.config, &name));
            Box::pin(async { Ok((value,)) })
        },
    )
}

fn variable(config: &dyn Config, name: &str) -> Result<String, VariableError> {
    config.get(name).map(str::to_owned).ok_or_else(|| {
        VariableError::Undefined(format!("{name:?} is not set: add it to spec.config"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_says_where_to_set_it() {
        let config: BTreeMap<_, _> = [("a".to_owned(), "1".to_owned())].into();
        assert_eq!(variable(&config, "a"), Ok("1".to_owned()));
        let Err(VariableError::Undefined(why)) = variable(&config, "b") else {
            panic!("b is set");
        };
        assert!(
            why.contains("\"b\"") && why.contains("spec.config"),
            "{why}"
        );
    }
}
