//! Following objects as they change: the watch stream, and waiting until something is so.
//!
//! Watch events flow in line by line; the present state of what was asked for flows out to a
//! predicate. A stream that ends is taken up again where it stopped, on the next server if need be.
//! It keeps only the objects asked for, never a history.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hive_manifests::Resource;
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;

use crate::cluster::{Call, Cluster, Credential, RequestError, path};
use crate::object;

/// The longest event: an object of 1 MiB whose every byte is escaped, and room to spare.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
/// The server ends a watch after this; it bounds how long a connection that died without a word
/// (a laptop that slept, a carrier's NAT) goes unnoticed.
const WATCH_SECONDS: &str = "240";
/// Between a stream that broke and the next attempt.
const RESUME_PAUSE: Duration = Duration::from_millis(500);

/// Which objects to follow.
#[derive(Clone, Debug)]
pub struct Scope {
    pub resource: Resource,
    /// None: those of all namespaces.
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
}

impl Scope {
    pub fn one(resource: Resource, namespace: Option<&str>, name: &str) -> Self {
        Self {
            resource,
            namespace: namespace.map(str::to_owned),
            label_selector: None,
            field_selector: Some(format!("metadata.name={name}")),
        }
    }

    pub fn query(&self) -> Vec<(&str, &str)> {
        let mut query = Vec::new();
        if let Some(selector) = &self.label_selector {
            query.push(("labelSelector", selector.as_str()));
        }
        if let Some(selector) = &self.field_selector {
            query.push(("fieldSelector", selector.as_str()));
        }
        query
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// The events of one watch request.
pub struct Events {
    body: Body,
    buffer: BytesMut,
    credential: Credential,
}

impl Events {
    /// Watches from `resource_version` on.
    pub async fn open(
        cluster: &Cluster,
        scope: &Scope,
        resource_version: &str,
        accept: Option<&str>,
    ) -> Result<Self, RequestError> {
        let mut query = scope.query();
        query.extend([
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", WATCH_SECONDS),
        ]);
        // Without a version the server begins with all objects as if they were just added.
        if !resource_version.is_empty() {
            query.push(("resourceVersion", resource_version));
        }
        let path = path::with_query(
            &path::collection(scope.resource, scope.namespace.as_deref()),
            query,
        );
        let mut call = Call::get(&path).unbounded();
        if let Some(accept) = accept {
            call = call.accept(accept);
        }
        let response = cluster.stream(&call).await?;
        Ok(Self {
            body: response.into_body(),
            buffer: BytesMut::new(),
            credential: cluster.credential.clone(),
        })
    }

    /// The next event; None when the server ended the stream or the connection broke, which for
    /// whoever follows are the same: watch again.
    pub async fn next(&mut self) -> Result<Option<(Change, Value)>, RequestError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return parse(&line, &self.credential).map(Some);
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(malformed("an event is longer than 8 MiB"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

fn parse(line: &[u8], credential: &Credential) -> Result<(Change, Value), RequestError> {
    let mut event: Value =
        serde_json::from_slice(line).map_err(|error| malformed(&error.to_string()))?;
    let object = event["object"].take();
    let change = match event["type"].as_str() {
        Some("ADDED") => Change::Added,
        Some("MODIFIED") => Change::Modified,
        Some("DELETED") => Change::Deleted,
        Some("BOOKMARK") => Change::Bookmark,
        Some("ERROR") => {
            let status: Status =
                serde_json::from_value(object).map_err(|error| malformed(&error.to_string()))?;
            return Err(credential.refusal(status));
        }
        other => return Err(malformed(&format!("unknown event type {other:?}"))),
    };
    Ok((change, object))
}

fn malformed(message: &str) -> RequestError {
    RequestError::Answer {
        server: "the watch".into(),
        message: message.into(),
    }
}

/// Goes on watching, for as long as there is somebody to print for: a stream that ended is opened
/// again where it stopped, or from the beginning if the server no longer knows that place.
pub struct Following<'a> {
    pub cluster: &'a Cluster,
    pub scope: &'a Scope,
    pub accept: Option<&'a str>,
    pub version: String,
    events: Option<Events>,
}

impl<'a> Following<'a> {
    pub fn new(
        cluster: &'a Cluster,
        scope: &'a Scope,
        accept: Option<&'a str>,
        version: &str,
    ) -> Self {
        Self {
            cluster,
            scope,
            accept,
            version: version.to_owned(),
            events: None,
        }
    }

    pub async fn next(&mut self) -> Result<(Change, Value), RequestError> {
        loop {
            let events = match &mut self.events {
                Some(events) => events,
                None => {
                    let opened =
                        Events::open(self.cluster, self.scope, &self.version, self.accept).await?;
                    self.events.insert(opened)
                }
            };
            match events.next().await {
                Ok(Some((change, object))) => {
                    let version = newest_version(&object);
                    if !version.is_empty() {
                        self.version = version.to_owned();
                    }
                    if change != Change::Bookmark {
                        return Ok((change, object));
                    }
                }
                Ok(None) => {
                    self.events = None;
                    tokio::time::sleep(RESUME_PAUSE).await;
                }
                Err(error) if error.is_gone() => {
                    self.events = None;
                    self.version.clear();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The version of an object, or of the last row of a Table.
fn newest_version(object: &Value) -> &str {
    let own = object::resource_version(object);
    object["rows"]
        .as_array()
        .and_then(|rows| rows.last())
        .map(|row| object::resource_version(&row["object"]))
        .filter(|version| !version.is_empty())
        .unwrap_or(own)
}

/// The objects followed, by namespace and name.
pub type Objects = BTreeMap<(String, String), Value>;

fn key(object: &Value) -> (String, String) {
    (
        object::namespace(object).unwrap_or_default().to_owned(),
        object::name(object).to_owned(),
    )
}

/// Follows the objects of a scope until the predicate yields something. None when `deadline`
/// passed first.
pub async fn until<T>(
    cluster: &Cluster,
    scope: &Scope,
    deadline: Option<Instant>,
    mut predicate: impl FnMut(&Objects) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let follow = async {
        loop {
            let mut list = cluster
                .list(scope.resource, scope.namespace.as_deref(), &scope.query())
                .await?;
            let mut version = object::resource_version(&list).to_owned();
            let items = list["items"].as_array_mut().map(std::mem::take);
            let mut objects: Objects = items
                .into_iter()
                .flatten()
                .map(|object| (key(&object), object))
                .collect();
            if let Some(found) = predicate(&objects) {
                return Ok(found);
            }
            // Until the server has forgotten our place, go on from it.
            loop {
                match watch_on(cluster, scope, &mut version, &mut objects, &mut predicate).await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => tokio::time::sleep(RESUME_PAUSE).await,
                    Err(error) if error.is_gone() => break,
                    Err(error) => return Err(error),
                }
            }
        }
    };
    match deadline {
        None => follow.await.map(Some),
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), follow).await {
            Ok(found) => found.map(Some),
            Err(_) => Ok(None),
        },
    }
}

async fn watch_on<T>(
    cluster: &Cluster,
    scope: &Scope,
    version: &mut String,
    objects: &mut Objects,
    predicate: &mut impl FnMut(&Objects) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let mut events = Events::open(cluster, scope, version, None).await?;
    while let Some((change, object)) = events.next().await? {
        *version = object::resource_version(&object).to_owned();
        match change {
            Change::Added | Change::Modified => {
                objects.insert(key(&object), object);
            }
            Change::Deleted => {
                objects.remove(&key(&object));
            }
            Change::Bookmark => continue,
        }
        if let Some(found) = predicate(objects) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
