//! Makes tunnels in an account at Cloudflare, and deletes them with their Tunnels. On the leader only.
//!
//! What a look finds goes into the pure [`plan`], whose steps are done one by one; each look begins anew, so a leader
//! that was lost in between leaves nothing undone. The token of a tunnel goes into a Secret, for all controllers. A
//! finalizer holds the Tunnel until nothing of it is left at Cloudflare.

mod executor;
mod limits;
mod write;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use hive_manifests::Resource;
use hive_manifests::tunnel::{API_TOKEN, Provider as Kind};
use tokio::time::Instant;

use super::super::{Part, Standings, Token, Trouble, secret};
use super::api::{Api, ApiError};
use super::plan::Wanted;
use super::{consent, origin};
use crate::deletion;
use crate::ingress::routes::{domain, routes_of};
use crate::reconcile::Outlook;
use crate::state::{Key, State};
use crate::store::{ProposeError, Replica};
use crate::tunnels::table::{Follower, Tunnel};
use executor::Executor;

/// Holds a Tunnel until what was made of it at Cloudflare is deleted.
pub const FINALIZER: &str = "hive.dev/cloudflare-tunnel";

/// In the Secret with a tunnel's token: where connectors hand requests.
pub const SERVICE: &str = "service";

/// Somebody may have changed something there by hand. An account is asked 1,200 times in five minutes at most.
const REFRESH: Duration = Duration::from_secs(600);

/// What failed is tried again: doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Tunnels that are asked about at a time: one for which no answer comes holds up few others, and a whole account asks
/// no more often than it may.
const AT_ONCE: usize = 4;

/// The leader's view of the account.
pub struct Accounts {
    executor: Executor,
    /// The swarm's name, which is in the names of its tunnels.
    cluster: String,
    /// Where connectors hand requests.
    service: String,
    standings: Standings,
    follower: Follower,
    known: BTreeMap<Key, Known>,
}

/// What was done for a tunnel.
struct Known {
    subject: Subject,
    /// The last one that there was: with a Tunnel people often delete its Secret.
    token: Option<Token>,
    due: Instant,
    failures: u32,
}

/// A tunnel that is looked at now.
struct Due {
    key: Key,
    subject: Subject,
    token: Option<Token>,
    failures: u32,
}

/// What it was made of. Another one is looked at at once.
#[derive(Clone, Debug, PartialEq)]
struct Subject {
    uid: String,
    account: String,
    /// Or why there is none.
    token: Result<Token, Trouble>,
    wanted: Wanted,
    /// It is to go.
    deleted: bool,
    /// The Secret with its token, which somebody may have deleted.
    has_secret: bool,
}

/// Why a tunnel is not as it is to be.
#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error("{}", .0.message)]
    Trouble(Trouble),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot write {key}")]
    Write {
        key: Key,
        #[source]
        source: Box<ProposeError>,
    },
    #[error("it is not there yet after {} looks", executor::MOST_LOOKS)]
    Unfinished,
}

impl AccountError {
    fn trouble(&self) -> Trouble {
        match self {
            Self::Trouble(trouble) => trouble.clone(),
            Self::Api(error) => error.trouble(),
            Self::Write { .. } | Self::Unfinished => {
                Trouble::new("CloudflareUnfinished", self.to_string())
            }
        }
    }
}

/// The Secret in which a tunnel's token is that the leader made.
pub fn secret_name(tunnel: &Key) -> String {
    format!("{}-cloudflared", tunnel.name)
}

impl Accounts {
    /// `ingress` is where that of this controller listens.
    pub fn new(api: Api, cluster: String, ingress: SocketAddr, standings: Standings) -> Self {
        // Those of a term before.
        standings.keep(Part::Account, |_| false);
        Self {
            executor: Executor::new(api),
            cluster,
            service: origin(ingress),
            standings,
            follower: Follower::default(),
            known: BTreeMap::new(),
        }
    }

    /// One look at all that is due.
    pub async fn pass(&mut self, replica: &Replica, state: &State) -> Outlook {
        let subjects = self.subjects(state);
        let is_own = |key: &Key| subjects.contains_key(key);
        self.known.retain(|key, _| is_own(key));
        self.standings.keep(Part::Account, is_own);
        let mut all = Vec::new();
        for (key, mut subject) in subjects {
            let known = self.known.get(&key);
            let before = known.filter(|known| known.subject.uid == subject.uid);
            let before = before.and_then(|known| known.token.clone());
            let token = subject.token.as_ref().ok().cloned().or(before);
            if let (true, Some(token)) = (subject.deleted, &token) {
                subject.token = Ok(token.clone());
            }
            let is_new = known.is_none_or(|known| known.subject != subject);
            if !is_new && known.is_some_and(|known| Instant::now() < known.due) {
                continue;
            }
            let failures = known.filter(|_| !is_new).map_or(0, |known| known.failures);
            all.push(Due {
                key,
                subject,
                token,
                failures,
            });
        }
        let executor = &self.executor;
        let settling = all.into_iter().map(|due| {
            let settling = async move {
                let done = executor.settle(replica, &due.key, &due.subject).await;
                (due, done)
            };
            settling.boxed()
        });
        let mut settling = pin!(stream::iter(settling).buffer_unordered(AT_ONCE));
        while let Some((due, done)) = settling.next().await {
            let Due {
                key,
                subject,
                token,
                failures,
            } = due;
            let (wait, failures) = self.tell(&key, done, failures);
            let due = Instant::now() + wait;
            let known = Known {
                subject,
                token,
                due,
                failures,
            };
            self.known.insert(key, known);
        }
        let due = self.known.values().map(|known| known.due).min();
        due.map_or(Outlook::Settled, |due| {
            Outlook::In(due.saturating_duration_since(Instant::now()))
        })
    }

    fn tell(&self, key: &Key, done: Result<(), AccountError>, failures: u32) -> (Duration, u32) {
        let Err(error) = done else {
            self.standings.well(key, Part::Account, None);
            return (REFRESH, 0);
        };
        self.standings.trouble(key, Part::Account, error.trouble());
        let wait = match &error {
            AccountError::Api(error) => error.wait(),
            _ => None,
        };
        let retry = FIRST_RETRY.saturating_mul(1 << failures.min(10));
        (wait.unwrap_or(retry.min(LONGEST_RETRY)), failures + 1)
    }

    fn subjects(&mut self, state: &State) -> BTreeMap<Key, Subject> {
        let tunnels = self.follower.tunnels(state);
        let (cluster, service) = (&self.cluster, &self.service);
        tunnels
            .iter()
            .filter_map(|(key, tunnel)| {
                Some((key.clone(), subject(cluster, service, tunnel, state)?))
            })
            .collect()
    }
}

/// `None` of a tunnel that is none of the leader's to make, or was never made.
fn subject(cluster: &str, service: &str, tunnel: &Tunnel, state: &State) -> Option<Subject> {
    if tunnel.spec.provider != Kind::Cloudflare {
        return None;
    }
    let said = tunnel.spec.cloudflare.as_ref()?;
    let account = said.account_id.clone()?;
    let key = &tunnel.key;
    let object = state.get(key)?;
    let deleted = object.is_being_deleted();
    if deleted && !deletion::finalizers(&object.to_value()).contains(&FINALIZER) {
        return None;
    }
    let http = tunnel.spec.http.clone().unwrap_or_default();
    let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
    let secret = Key::new(Resource::Secret, &*key.namespace, secret_name(key));
    // What was made is deleted, whoever may make no more.
    let permitted = match deleted {
        true => Ok(()),
        false => consent::given(state, &key.namespace),
    };
    let token = || secret::read(state, &key.namespace, &said.secret_name, API_TOKEN);
    // Another swarm, which may have the same name, does not take over what this one made, nor deletes it.
    let tag = tunnel.uid.split('-').next().unwrap_or_default();
    Some(Subject {
        uid: tunnel.uid.clone(),
        account,
        token: permitted.and_then(|()| token()),
        wanted: Wanted {
            name: format!("{cluster}.{}.{}.{tag}", key.namespace, key.name),
            hosts: routes.into_iter().map(|route| route.host).collect(),
            service: service.to_owned(),
        },
        deleted,
        has_secret: state.get(&secret).is_some(),
    })
}

#[cfg(test)]
mod tests;
