//! What a command is about, from its arguments: `fn`, `nodes,secrets`, `fn hello world`, `fn/hello`, `all`.
//!
//! Words flow in; resources and names flow out. Every way kubectl spells a resource is understood:
//! plural, singular, short name, kind, with or without the group.

use hive_manifests::{GROUP, Resource};

use crate::failure::Failure;
use crate::suggest;

/// One resource, and the names asked for: none means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub resource: Resource,
    pub names: Vec<String>,
}

/// The categories that stand for several resources.
const ALL: &str = "all";

/// The resources that one word names.
pub fn resources(word: &str) -> Result<Vec<Resource>, Failure> {
    if word == ALL {
        return Ok(Resource::ALL
            .into_iter()
            .filter(|resource| resource.categories().contains(&ALL))
            .collect());
    }
    resource(word).map(|resource| vec![resource])
}

/// The resource that one word names.
pub fn resource(word: &str) -> Result<Resource, Failure> {
    let lower = word.to_ascii_lowercase();
    let (bare, group) = match lower.split_once('.') {
        // `functions.v1.hive.dev` names the version too.
        Some((bare, group)) => (bare, Some(group.strip_prefix("v1.").unwrap_or(group))),
        None => (lower.as_str(), None),
    };
    Resource::ALL
        .into_iter()
        .find(|resource| {
            group.is_none_or(|group| group == resource.group())
                && (resource.plural() == bare
                    || resource.singular() == bare
                    || resource.kind().eq_ignore_ascii_case(bare)
                    || resource.short_names().contains(&bare))
        })
        .ok_or_else(|| unknown(word))
}

fn unknown(word: &str) -> Failure {
    let known = Resource::ALL
        .iter()
        .flat_map(|resource| [resource.plural(), resource.singular()])
        .chain([ALL]);
    match suggest::nearest(word.trim_end_matches(&format!(".{GROUP}")), known) {
        Some(near) => Failure::usage(format!(
            "the server doesn't have a resource type {word:?}; did you mean {near:?}?"
        )),
        None => Failure::usage(format!(
            "the server doesn't have a resource type {word:?}; `hivectl api-resources` lists those it has"
        )),
    }
}

/// Parses the positional arguments of a command that takes resources.
pub fn parse(words: &[String]) -> Result<Vec<Selection>, Failure> {
    let Some((first, names)) = words.split_first() else {
        return Err(Failure::usage(
            "say which resource, such as `functions` or `function/hello`; `hivectl api-resources` lists them",
        ));
    };
    if words.iter().any(|word| word.contains('/')) {
        return parse_references(words);
    }
    let mut selections: Vec<Selection> = Vec::new();
    for word in first.split(',') {
        for resource in resources(word)? {
            if selections.iter().all(|known| known.resource != resource) {
                selections.push(Selection {
                    resource,
                    names: names.to_vec(),
                });
            }
        }
    }
    Ok(selections)
}

/// `fn/a node/b`: every word names one object. Neighbours of one resource share a selection.
fn parse_references(words: &[String]) -> Result<Vec<Selection>, Failure> {
    let mut selections: Vec<Selection> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            return Err(Failure::usage(format!(
                "there is no need to name a resource separately when passing references of the form 'resource/name' (here {word:?})"
            )));
        };
        if name.is_empty() || name.contains('/') {
            return Err(Failure::usage(format!(
                "{word:?}: a reference has the form resource/name, such as function/hello"
            )));
        }
        let resource = resource(kind)?;
        match selections.last_mut() {
            Some(last) if last.resource == resource => last.names.push(name.to_owned()),
            _ => selections.push(Selection {
                resource,
                names: vec![name.to_owned()],
            }),
        }
    }
    Ok(selections)
}

/// One object of a resource that the command implies: `hello`, `fn/hello`, `function hello`.
pub fn single(words: &[String], implied: Resource) -> Result<(Resource, String), Failure> {
    let words = match words {
        [name] if !name.contains('/') => return Ok((implied, name.clone())),
        words => words,
    };
    match parse(words)?.as_slice() {
        [Selection { resource, names }] if names.len() == 1 => Ok((*resource, names[0].clone())),
        _ => Err(Failure::usage(format!(
            "name exactly one object, such as {}/hello",
            implied.singular()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn shown(text: &str) -> Vec<(Resource, Vec<String>)> {
        parse(&words(text))
            .unwrap()
            .into_iter()
            .map(|selection| (selection.resource, selection.names))
            .collect()
    }

    #[test]
    fn every_spelling_is_understood() {
        for word in [
            "functions",
            "function",
            "fn",
            "Function",
            "functions.hive.dev",
            "functions.v1.hive.dev",
        ] {
            assert_eq!(resource(word).unwrap(), Resource::Function, "{word}");
        }
        assert_eq!(
            shown("fn,no a b"),
            [
                (Resource::Function, vec!["a".into(), "b".into()]),
                (Resource::Node, vec!["a".into(), "b".into()])
            ]
        );
        assert_eq!(
            shown("fn/a fn/b cm/c"),
            [
                (Resource::Function, vec!["a".into(), "b".into()]),
                (Resource::ConfigMap, vec!["c".into()])
            ]
        );
        let all = [(Resource::Function, vec![]), (Resource::Tunnel, vec![])];
        assert_eq!(shown("all"), all);
        assert_eq!(
            single(&words("hello"), Resource::Function).unwrap(),
            (Resource::Function, "hello".into())
        );
    }

    #[test]
    fn unknown_words_get_a_hint() {
        let message = |text: &str| parse(&words(text)).unwrap_err().to_string();
        assert_eq!(
            message("functoin"),
            "the server doesn't have a resource type \"functoin\"; did you mean \"function\"?"
        );
        assert!(message("deployments").contains("api-resources"));
        assert!(message("fn/a b").contains("resource/name"));
        assert!(single(&words("fn a b"), Resource::Function).is_err());
    }
}
