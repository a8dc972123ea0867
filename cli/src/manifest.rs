//! Manifests from files, directories and standard input, checked before anything is sent.
//!
//! Paths flow in; documents with their resource, in the order in which they must be applied, flow
//! out. All mistakes of all files are reported together, each with file and line: nothing is sent
//! while one is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hive_manifests::validate::resource_of;
use hive_manifests::{Document, DocumentError, FieldPath, Resource, document, validate};

use crate::arguments::FileArguments;
use crate::failure::{Failure, chain};
use crate::object;
use crate::selection::Selection;
use crate::session::Session;
use crate::spin;

/// What is read of a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// How deep -R goes; a link that leads back up ends here instead of never.
const MAX_DIRECTORY_DEPTH: usize = 32;

/// One object as somebody wrote it.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub resource: Resource,
    /// None for a resource without namespaces.
    pub namespace: Option<String>,
    pub document: Document,
    /// What paths in the manifest are relative to.
    pub directory: PathBuf,
}

impl Manifest {
    pub fn name(&self) -> &str {
        object::name(&self.document.value)
    }

    pub fn reference(&self) -> String {
        object::reference(self.resource, self.name())
    }

    /// `function.yaml:7`
    pub fn place(&self, path: &FieldPath) -> String {
        let line = self.document.line_of(path).unwrap_or(self.document.line);
        format!("{}:{line}", self.document.source)
    }
}

/// Reads, checks and orders what `-f` names.
pub async fn load(
    files: &FileArguments,
    session: &mut Session<'_>,
) -> Result<Vec<Manifest>, Failure> {
    let mut manifests = read(files, session).await?;
    let mut failures = Vec::new();
    for manifest in &manifests {
        for error in validate(manifest.resource, &manifest.document.value) {
            failures.push(Failure::new(manifest.document.locate(&error)));
        }
    }
    failures.extend(duplicates(&manifests));
    if !failures.is_empty() {
        return Err(Failure::several(failures).hint("nothing was sent"));
    }
    // What others refer to comes first; within a resource the files' order stays.
    manifests.sort_by_key(|manifest| manifest.resource);
    Ok(manifests)
}

/// Objects that have no name until they are made cannot be found again.
pub fn require_names(manifests: &[Manifest]) -> Result<(), Failure> {
    let unnamed: Vec<Failure> = manifests
        .iter()
        .filter(|manifest| manifest.name().is_empty())
        .map(|manifest| {
            Failure::new(format_args!(
                "{}: metadata.name: required: an object without a name of its own cannot be applied again; \
                 `hivectl create -f` makes one",
                manifest.place(&FieldPath::of(["metadata", "generateName"])),
            ))
        })
        .collect();
    match unnamed.is_empty() {
        true => Ok(()),
        false => Err(Failure::several(unnamed).hint("nothing was sent")),
    }
}

/// The objects that manifests name, whatever else is wrong with them: for `get -f` and `delete -f`.
pub async fn named_objects(
    files: &FileArguments,
    session: &mut Session<'_>,
) -> Result<Vec<(Selection, Option<String>)>, Failure> {
    Ok(read(files, session)
        .await?
        .into_iter()
        .map(|manifest| {
            let selection = Selection {
                resource: manifest.resource,
                names: vec![manifest.name().to_owned()],
            };
            (selection, manifest.namespace)
        })
        .collect())
}

/// Reads what `-f` names and finds each document's resource and namespace.
async fn read(files: &FileArguments, session: &mut Session<'_>) -> Result<Vec<Manifest>, Failure> {
    if files.files.is_empty() {
        return Err(Failure::usage(
            "name the manifests with -f FILE; - reads standard input",
        ));
    }
    let mut failures = Vec::new();
    let mut manifests = Vec::new();
    for (source, directory, documents) in documents(files, session)? {
        let documents = match documents {
            Ok(documents) => documents,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        if documents.is_empty() {
            session
                .world
                .warn(format_args!("{source} holds no objects"))?;
        }
        for document in documents {
            match resource_of(&document.value) {
                Ok(resource) => manifests.push(Manifest {
                    resource,
                    namespace: None,
                    document,
                    directory: directory.clone(),
                }),
                Err(error) => failures.push(Failure::new(document.locate(&error))),
            }
        }
    }
    for manifest in &mut manifests {
        match namespace_of(manifest, session).await {
            Ok(namespace) => manifest.namespace = namespace,
            Err(failure) => failures.push(failure),
        }
    }
    match failures.is_empty() {
        true if manifests.is_empty() => Err(Failure::new("no objects in the manifests given")),
        true => Ok(manifests),
        false => Err(Failure::several(failures).hint("nothing was sent")),
    }
}

type FileDocuments = (String, PathBuf, Result<Vec<Document>, Failure>);

fn documents(
    files: &FileArguments,
    session: &mut Session<'_>,
) -> Result<Vec<FileDocuments>, Failure> {
    let mut read = Vec::new();
    for path in &files.files {
        if path.as_os_str() == "-" {
            let documents = document::read(&mut session.world.input, "stdin");
            let documents = documents.map_err(|error| Failure::new(chain(&error)));
            read.push(("stdin".into(), PathBuf::from("."), documents));
            continue;
        }
        for file in files_of(path, files.recursive)? {
            let source = file.display().to_string();
            let documents = match file
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                true => spin_application(&file, &source),
                false => fs::File::open(&file)
                    .map_err(|error| DocumentError::Read {
                        file: source.clone(),
                        source: error,
                    })
                    .and_then(|open| document::read(open, &source))
                    .map_err(|error| Failure::new(chain(&error))),
            };
            let directory = file.parent().map(Path::to_owned).unwrap_or_default();
            read.push((source, directory, documents));
        }
    }
    Ok(read)
}

/// An application of Spin is one function.
fn spin_application(file: &Path, source: &str) -> Result<Vec<Document>, Failure> {
    let mut text = String::new();
    // One more is as good as too many.
    fs::File::open(file)
        .and_then(|open| {
            open.take(spin::MAX_BYTES as u64 + 1)
                .read_to_string(&mut text)
        })
        .map_err(|error| Failure::new(format_args!("{source}: cannot be read: {error}")))?;
    let document = spin::read(&text, source)
        .map_err(|problems| Failure::several(problems.into_iter().map(Failure::new)))?;
    Ok(vec![document])
}

/// The file itself, or the manifests of a directory, sorted by name.
fn files_of(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    if path.to_str().is_some_and(|text| text.contains("://")) {
        return Err(Failure::new(format_args!(
            "the path {:?} is a URL: hivectl reads files; fetch it first, for instance with `curl -sSf URL | hivectl apply -f -`",
            path.display()
        )));
    }
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(format_args!("the path {:?} does not exist", path.display()))
        }
        _ => Failure::new(format_args!("{}: {error}", path.display())),
    })?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, recursive, 0, &mut files)
        .map_err(|error| Failure::new(format_args!("{}: {error}", path.display())))?;
    if files.is_empty() {
        return Err(Failure::new(format_args!(
            "the directory {:?} holds no .yaml, .yml or .json files{}",
            path.display(),
            if recursive {
                ""
            } else {
                "; -R looks inside its directories too"
            }
        )));
    }
    Ok(files)
}

fn collect(
    directory: &Path,
    recursive: bool,
    depth: usize,
    files: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if recursive && depth < MAX_DIRECTORY_DEPTH {
                collect(&path, recursive, depth + 1, files)?;
            }
        } else if path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The manifest's own namespace, else the command's; `-n` must not contradict the manifest.
async fn namespace_of(
    manifest: &Manifest,
    session: &mut Session<'_>,
) -> Result<Option<String>, Failure> {
    if !manifest.resource.namespaced() {
        return Ok(None);
    }
    let own = object::namespace(&manifest.document.value).filter(|own| !own.is_empty());
    match (own, session.globals.namespace.as_deref()) {
        (Some(own), Some(given)) if own != given => Err(Failure::new(format_args!(
            "{}: metadata.namespace: the manifest says {own:?} but -n says {given:?}; pass -n {own} or leave one out",
            manifest.place(&FieldPath::of(["metadata", "namespace"])),
        ))),
        (Some(own), _) => Ok(Some(own.to_owned())),
        (None, _) => Ok(Some(session.namespace().await?)),
    }
}

/// Every object may be declared once.
fn duplicates(manifests: &[Manifest]) -> Vec<Failure> {
    let mut seen: BTreeMap<(Resource, Option<&str>, &str), &Manifest> = BTreeMap::new();
    let mut failures = Vec::new();
    for manifest in manifests
        .iter()
        .filter(|manifest| !manifest.name().is_empty())
    {
        let key = (
            manifest.resource,
            manifest.namespace.as_deref(),
            manifest.name(),
        );
        if let Some(first) = seen.get(&key) {
            let name = FieldPath::of(["metadata", "name"]);
            failures.push(Failure::new(format_args!(
                "{}: {} is declared twice: the first time at {}",
                manifest.place(&name),
                manifest.reference(),
                first.place(&name)
            )));
        } else {
            seen.insert(key, manifest);
        }
    }
    failures
}
