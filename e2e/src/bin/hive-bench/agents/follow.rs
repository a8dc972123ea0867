//! A watch of many objects, reduced to since when each is as it should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::control_plane::System;
use crate::control_plane::connection::{Connection, Version};
use crate::control_plane::hive::Hive;

const POLL: Duration = Duration::from_millis(20);

/// By name; `None` of one that is not as it should be.
type Known = BTreeMap<String, Option<Instant>>;

pub struct Follow(Arc<Mutex<Known>>);

impl Follow {
    /// Follows the objects below `path`, as one controller tells of them.
    pub async fn open(
        hive: &Hive,
        member: usize,
        path: &str,
        is_good: fn(&Value) -> bool,
    ) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&hive.members()[member], Version::Http2).await?;
        let call = hive.hive_calls().get(&format!("{path}?watch=true"));
        let response = connection.send(call.request).await?;
        if !response.status().is_success() {
            bail!("a watch of {path} was answered {}", response.status());
        }
        let known = Arc::new(Mutex::default());
        let follow = Self(known);
        let follows = follow.0.clone();
        let path = path.to_owned();
        tokio::spawn(async move {
            let mut body = response.into_body();
            let mut line = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                let Some(data) = frame.data_ref() else {
                    continue;
                };
                for part in data.split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(part);
                    if line.ends_with(b"\n") {
                        if let Err(error) = note(&follows, &line, is_good) {
                            eprintln!("warning: the watch of {path}: {error:#}");
                        }
                        line.clear();
                    }
                }
            }
            eprintln!("warning: the watch of {path} has ended");
        });
        Ok(follow)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many objects are good whose names begin so.
    pub async fn good(&self, prefix: &str, count: usize, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let (all, good) = {
                let known = self.known();
                let own = || known.iter().filter(|(name, _)| name.starts_with(prefix));
                let good = own().filter(|(_, since)| since.is_some()).count();
                (own().count(), good)
            };
            if good >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("of {count} wanted {all} are there, and {good} are good");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Those that are not good.
    pub fn bad(&self) -> usize {
        self.known()
            .values()
            .filter(|since| since.is_none())
            .count()
    }

    /// When the last became good.
    pub fn latest(&self, prefix: &str) -> Option<Instant> {
        let known = self.known();
        let own = known.iter().filter(|(name, _)| name.starts_with(prefix));
        own.filter_map(|(_, since)| *since).max()
    }

    /// How long after `started` each became good; sorted.
    pub fn since(&self, prefix: &str, started: Instant) -> Vec<Duration> {
        let known = self.known();
        let own = known.iter().filter(|(name, _)| name.starts_with(prefix));
        let mut all: Vec<_> = own
            .filter_map(|(_, since)| Some(since.as_ref()?.saturating_duration_since(started)))
            .collect();
        all.sort_unstable();
        all
    }
}

fn note(known: &Mutex<Known>, line: &[u8], is_good: fn(&Value) -> bool) -> anyhow::Result<()> {
    let event: Value = serde_json::from_slice(line)?;
    let object = &event["object"];
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let name = || object["metadata"]["name"].as_str().context("a name");
    match event["type"].as_str() {
        Some("ADDED" | "MODIFIED") => {
            let since = known.entry(name()?.to_owned()).or_default();
            *since = is_good(object).then(|| since.unwrap_or_else(Instant::now));
        }
        Some("DELETED") => {
            known.remove(name()?);
        }
        Some("BOOKMARK") => {}
        _ => bail!("{}", String::from_utf8_lossy(line)),
    }
    Ok(())
}
