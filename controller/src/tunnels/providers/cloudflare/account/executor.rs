//! Does what the plan says of one tunnel, several of which may be under way at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use super::super::super::Token;
use super::super::api::{Api, ApiError};
use super::super::plan::{Seen, Step, Wanted, plan};
use super::limits::Limits;
use super::write::{keep_token, set_finalizer};
use super::{AccountError, Subject};
use crate::state::Key;
use crate::store::Replica;

/// A tunnel that was just created is looked at once more, and what is left is done then.
pub(super) const MOST_LOOKS: usize = 3;

/// Parts of a host's name that are tried as its zone.
const MOST_ZONES: usize = 6;

pub(super) struct Executor {
    api: Api,
    /// By host: of what was found.
    zones: Mutex<BTreeMap<String, String>>,
    limits: Limits,
}

impl Executor {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            zones: Mutex::default(),
            limits: Limits::default(),
        }
    }

    /// Brings one tunnel to what it is to be.
    pub(super) async fn settle(
        &self,
        replica: &Replica,
        key: &Key,
        subject: &Subject,
    ) -> Result<(), AccountError> {
        let token = subject.token.as_ref();
        let token = token.map_err(|trouble| AccountError::Trouble(trouble.clone()))?;
        self.limits.check(&subject.account, token)?;
        let done = self.bring_about(replica, key, subject, token).await;
        if let Err(AccountError::Api(error)) = &done {
            self.limits.note(&subject.account, token, error);
        }
        done
    }

    async fn bring_about(
        &self,
        replica: &Replica,
        key: &Key,
        subject: &Subject,
        token: &Token,
    ) -> Result<(), AccountError> {
        let Subject {
            account, wanted, ..
        } = subject;
        if subject.deleted {
            self.bring(token, account, &wanted.name, None).await?;
            return set_finalizer(replica, key, &subject.uid, false).await;
        }
        // Before anything is made.
        set_finalizer(replica, key, &subject.uid, true).await?;
        let made = self
            .bring(token, account, &wanted.name, Some(wanted))
            .await?;
        let tunnel = made.ok_or(AccountError::Unfinished)?;
        let run_with = self.api.tunnel_token(token, account, &tunnel).await?;
        keep_token(replica, key, subject, &run_with).await
    }

    /// Looks and does what the plan says until nothing is left; the tunnel's id.
    async fn bring(
        &self,
        token: &Token,
        account: &str,
        name: &str,
        wanted: Option<&Wanted>,
    ) -> Result<Option<String>, AccountError> {
        for _ in 0..MOST_LOOKS {
            let seen = self.look(token, account, name, wanted).await?;
            let steps = plan(wanted, &seen).map_err(AccountError::Trouble)?;
            if steps.is_empty() {
                return Ok(seen.tunnel);
            }
            for step in &steps {
                tracing::info!(name, ?step, "changing a tunnel at Cloudflare");
                self.perform(token, account, step).await?;
            }
        }
        Err(AccountError::Unfinished)
    }

    async fn look(
        &self,
        token: &Token,
        account: &str,
        name: &str,
        wanted: Option<&Wanted>,
    ) -> Result<Seen, ApiError> {
        let mut seen = Seen::default();
        let Some(tunnel) = self.api.find_tunnel(token, account, name).await? else {
            return Ok(seen);
        };
        seen.ingress = self.api.ingress(token, account, &tunnel.id).await?;
        seen.tunnel = Some(tunnel.id);
        let configured = seen.ingress.iter().map(|rule| rule.hostname.clone());
        let mut hosts: BTreeSet<String> = configured.filter(|host| !host.is_empty()).collect();
        hosts.extend(wanted.into_iter().flat_map(|wanted| wanted.hosts.clone()));
        for host in hosts {
            let zone = self.zone(token, account, &host).await?;
            if let Some(zone) = &zone {
                let records = self.api.records(token, zone, &host).await?;
                seen.records.insert(host.clone(), records);
            }
            seen.zones.insert(host, zone);
        }
        Ok(seen)
    }

    /// The zone with the longest name that a host is in.
    async fn zone(
        &self,
        token: &Token,
        account: &str,
        host: &str,
    ) -> Result<Option<String>, ApiError> {
        let known = self.zones().get(host).cloned();
        if known.is_some() {
            return Ok(known);
        }
        for name in zones_of(host) {
            if let Some(found) = self.api.find_zone(token, account, name).await? {
                self.zones().insert(host.to_owned(), found.clone());
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn perform(&self, token: &Token, account: &str, step: &Step) -> Result<(), ApiError> {
        let api = &self.api;
        let done = match step {
            Step::CreateTunnel { name } => api.create_tunnel(token, account, name).await.map(drop),
            Step::Configure { tunnel, ingress } => {
                api.configure(token, account, tunnel, ingress).await
            }
            Step::CreateRecord { zone, record } => api.create_record(token, zone, record).await,
            Step::ChangeRecord { zone, id, record } => {
                api.change_record(token, zone, id, record).await
            }
            Step::DeleteRecord { zone, id } => api.delete_record(token, zone, id).await,
            Step::DeleteTunnel { tunnel } => api.delete_tunnel(token, account, tunnel).await,
        };
        if done.is_err() {
            // A zone may be another one by now.
            self.zones().clear();
        }
        done
    }

    fn zones(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.zones.lock().expect("no holder of the lock panics")
    }
}

/// `a.b.example.org`, `b.example.org`, `example.org`.
fn zones_of(host: &str) -> impl Iterator<Item = &str> {
    let names = std::iter::successors(Some(host), |name| Some(name.split_once('.')?.1));
    let names: Vec<&str> = names.filter(|name| name.contains('.')).collect();
    // The short ones are those that may be.
    let skipped = names.len().saturating_sub(MOST_ZONES);
    names.into_iter().skip(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_in_the_zones_of_its_parts() {
        let zones = |host| zones_of(host).collect::<Vec<_>>();
        assert_eq!(
            zones("a.b.example.org"),
            ["a.b.example.org", "b.example.org", "example.org"]
        );
        assert_eq!(zones("org"), [""; 0]);
        let long = "x.".repeat(50) + "example.org";
        assert_eq!(zones(&long).len(), MOST_ZONES);
        assert_eq!(zones(&long).last(), Some(&"example.org"));
    }
}
