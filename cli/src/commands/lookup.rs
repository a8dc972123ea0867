//! Finding the objects that a command's arguments name, and saying what was meant when there is
//! no such object.
//!
//! Selections and selectors flow in; objects flow out, with an error for each name not found.

use clap::Args;
use hive_manifests::Resource;
use serde_json::Value;

use crate::cluster::{Cluster, RequestError};
use crate::failure::Failure;
use crate::object;
use crate::selection::{self, Selection};
use crate::session::Session;
use crate::suggest;

/// Names are suggested from at most this many objects: a list of thousands would make a typing
/// mistake slow.
const SUGGEST_FROM: &str = "500";

/// Objects by name, by label, or all of a resource: what label, annotate, wait and delete take.
#[derive(Debug, Args)]
pub struct Targets {
    /// RESOURCE NAME…, or RESOURCE/NAME…
    #[arg(value_name = "RESOURCE")]
    pub words: Vec<String>,

    /// Only objects with these labels, such as app=web,tier!=cache
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// All objects of the resource in the namespace
    #[arg(long)]
    pub all: bool,

    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// One object that a command acts on.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub object: Value,
}

impl Target {
    pub fn name(&self) -> &str {
        object::name(&self.object)
    }

    pub fn reference(&self) -> String {
        object::reference(self.resource, self.name())
    }
}

/// What was found, and what was not.
#[derive(Default)]
pub struct Found {
    pub targets: Vec<Target>,
    pub missing: Vec<Failure>,
}

impl Targets {
    /// The objects; names that don't exist are collected, other failures end it.
    pub async fn find(&self, session: &mut Session<'_>) -> Result<Found, Failure> {
        let selections = selection::parse(&self.words)?;
        let named = selections
            .iter()
            .any(|selection| !selection.names.is_empty());
        let selected = self.selector.is_some() || self.all;
        if named && selected {
            return Err(Failure::usage(
                "name objects, or select them with -l or --all, not both",
            ));
        }
        if named && self.all_namespaces {
            return Err(Failure::usage(
                "an object cannot be named across all namespaces: leave out -A or the name",
            ));
        }
        if !named && !selected {
            return Err(Failure::usage(
                "name the objects, or select them with -l SELECTOR or --all",
            ));
        }
        let cluster = session.cluster().await?;
        let mut found = Found::default();
        for selection in selections {
            let namespace = match self.all_namespaces || !selection.resource.namespaced() {
                true => None,
                false => Some(session.namespace().await?),
            };
            find_selection(
                &cluster,
                &selection,
                namespace.as_deref(),
                self.selector.as_deref(),
                &mut found,
            )
            .await?;
        }
        Ok(found)
    }
}

async fn find_selection(
    cluster: &Cluster,
    Selection { resource, names }: &Selection,
    namespace: Option<&str>,
    selector: Option<&str>,
    found: &mut Found,
) -> Result<(), Failure> {
    let target = |object: Value| Target {
        resource: *resource,
        namespace: object::namespace(&object).map(str::to_owned),
        object,
    };
    if names.is_empty() {
        let query: Vec<_> = selector
            .map(|selector| ("labelSelector", selector))
            .into_iter()
            .collect();
        let mut list = cluster.list(*resource, namespace, &query).await?;
        let items = list["items"].as_array_mut().map(std::mem::take);
        found
            .targets
            .extend(items.into_iter().flatten().map(target));
        return Ok(());
    }
    for name in names {
        match cluster.get(*resource, namespace, name).await {
            Ok(object) => found.targets.push(target(object)),
            Err(error) if error.is_not_found() => {
                found
                    .missing
                    .push(not_found(cluster, *resource, namespace, name, error).await);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gets one object; if it does not exist, the error names the nearest one that does.
pub async fn get(
    cluster: &Cluster,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Value, Failure> {
    match cluster.get(resource, namespace, name).await {
        Ok(object) => Ok(object),
        Err(error) => Err(not_found(cluster, resource, namespace, name, error).await),
    }
}

/// The failure for a request about one object: a 404 gets the name that was probably meant.
pub async fn not_found(
    cluster: &Cluster,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
    error: RequestError,
) -> Failure {
    let is_not_found = error.is_not_found();
    let failure = Failure::from(error);
    if !is_not_found {
        return failure;
    }
    // `edit tunnel`: what would be edited is missing.
    if let Ok(kind) = selection::resource(name)
        && kind != resource
    {
        return failure.hint(format_args!(
            "{name:?} is a kind: say which one, as in {}/NAME",
            kind.singular()
        ));
    }
    // The hint is a courtesy: what goes wrong while making it is not worth a word.
    let Ok(list) = cluster
        .list(resource, namespace, &[("limit", SUGGEST_FROM)])
        .await
    else {
        return failure;
    };
    let names = list["items"].as_array().into_iter().flatten();
    match suggest::nearest(name, names.map(object::name)) {
        Some(near) => failure.hint(format_args!("did you mean {near:?}?")),
        None => failure,
    }
}

/// `there are nodes pi-1, pi-2`, for who named one that there is not. As far as the server tells.
pub async fn there_are(
    cluster: &Cluster,
    resource: Resource,
    namespace: Option<&str>,
) -> Option<String> {
    /// More are no help in a message.
    const SHOWN: usize = 10;
    let query = [("limit", SUGGEST_FROM)];
    let list = cluster.list(resource, namespace, &query).await.ok()?;
    let names: Vec<&str> = list["items"].as_array()?.iter().map(object::name).collect();
    let plural = resource.plural();
    Some(match names.as_slice() {
        [] => format!("there are no {plural}"),
        [only] => format!("there is only {only:?}"),
        names if names.len() <= SHOWN => format!("there are {plural} {}", names.join(", ")),
        names => format!(
            "there are {plural} {}, ...: `hivectl get {plural}` lists all",
            names[..SHOWN].join(", ")
        ),
    })
}

/// The namespace for requests about a resource: none where it has none.
pub async fn namespace_for(
    resource: Resource,
    session: &mut Session<'_>,
) -> Result<Option<String>, Failure> {
    match resource.namespaced() {
        true => Ok(Some(session.namespace().await?)),
        false => Ok(None),
    }
}

/// All that went wrong, or success if nothing did.
pub fn finish(failures: Vec<Failure>) -> Result<(), Failure> {
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::several(failures)),
    }
}
