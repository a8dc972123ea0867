//! Tries tunnels beside each other, each in its turn, and writes what is new about them.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hive_manifests::tunnel::{Protocol, TunnelSpec};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::known::{Known, SHORT, Turn};
use super::ask::ask;
use super::doors::Doors;
use super::obstacles::{had, no_certificate, no_door, no_function};
use super::plan::Subject;
use super::probe::{Observation, probe};
use super::targets::{NodeState, nobody_there, statuses};
use super::{Why, concerns};
use crate::ingress::routes;
use crate::reconcile::Outlook;
use crate::state::{Key, State};
use crate::store::Replica;
use crate::tunnels::Tunnels;
use crate::tunnels::access::rules::Problem;
use crate::tunnels::access::seal;
use crate::tunnels::certificates::Certificates;
use crate::tunnels::providers::{Part, Standing};
use crate::tunnels::table::{self, Table, Tunnel};

/// Tries under way: each holds a few connections, and one that nobody answers takes all its patience.
const AT_ONCE: usize = 16;

/// What a leader finds out about the tunnels in its term.
pub struct Proofs {
    /// This controller's id.
    own: u64,
    tunnels: Tunnels,
    doors: Doors,
    table: table::Follower,
    routes: routes::Follower,
    certificates: Certificates,
    seen: Option<Seen>,
    /// People are to sign in, and the swarm has nothing to seal their sessions with.
    lacks_secret: bool,
    known: BTreeMap<Key, Known>,
    under_way: JoinSet<()>,
    tell: mpsc::Sender<Ended>,
    told: mpsc::Receiver<Ended>,
}

/// What the subjects were made of.
#[derive(PartialEq)]
struct Seen {
    revision: u64,
    health: u64,
    problems: BTreeMap<Key, String>,
    standings: BTreeMap<(Key, Part), Standing>,
}

/// A try that ended.
struct Ended {
    key: Key,
    at: Timestamp,
    /// As it was when the try began.
    subject: Arc<Subject>,
    observation: Observation,
}

impl Proofs {
    /// `own` is the id of this controller.
    pub fn new(own: u64, tunnels: Tunnels, doors: Doors, state: &State) -> Self {
        let (tell, told) = mpsc::channel(AT_ONCE);
        Self {
            own,
            tunnels,
            doors,
            table: table::Follower::default(),
            routes: routes::Follower::of(state),
            certificates: Certificates::default(),
            seen: None,
            lacks_secret: false,
            known: BTreeMap::new(),
            under_way: JoinSet::new(),
            tell,
            told,
        }
    }

    /// One look: takes what was found, writes what is news, and begins what is due.
    pub async fn pass(&mut self, replica: &Replica, state: &State) -> Outlook {
        self.follow(state, Instant::now());
        let mut failed = false;
        if self.lacks_secret {
            match make_secret(replica).await {
                // What it is for is looked at when it is there: then nothing is wrong with that.
                true => return Outlook::In(SHORT),
                false => failed = true,
            }
        }
        self.take_ended(Instant::now());
        for (key, known) in self.known.iter_mut().filter(|(_, known)| known.is_news) {
            failed |= !known.tell(replica, key).await;
        }
        self.begin_due(Instant::now());
        match failed {
            true => Outlook::Again,
            false => self.outlook(Instant::now()),
        }
    }

    /// Every try that ends brings a look; the subjects are made anew for what matters to them only.
    fn follow(&mut self, state: &State, now: Instant) {
        let seen = Seen {
            revision: state.revision(),
            health: self.tunnels.health.changes(),
            problems: self.tunnels.listeners.problems(),
            standings: self.tunnels.standings.snapshot(),
        };
        let is_known = self.seen.as_ref().is_some_and(|before| {
            before.health == seen.health
                && before.problems == seen.problems
                && before.standings == seen.standings
                && !state.touched_since(before.revision, concerns)
        });
        if is_known {
            self.seen = Some(seen);
            return;
        }
        self.routes.follow(state);
        let table = self.table.follow(state, &self.routes);
        self.certificates.follow(state);
        let lacks_secret = |tunnel: &Arc<Tunnel>| *tunnel.access == Err(Problem::NoSealingKey);
        let any_lacks = table.tunnels.values().any(lacks_secret);
        self.lacks_secret = any_lacks && !seal::has_secret(state);
        self.known.retain(|key, known| {
            let tunnel = table.tunnels.get(key);
            tunnel.is_some_and(|tunnel| tunnel.uid == known.subject.uid)
        });
        for (key, tunnel) in &table.tunnels {
            let subject = self.subject(tunnel, &table, seen.problems.get(key), state);
            match self.known.get_mut(key) {
                Some(known) => known.follow(subject, now),
                None => drop(self.known.insert(key.clone(), Known::new(subject, now))),
            }
        }
        self.seen = Some(seen);
    }

    fn subject(
        &self,
        tunnel: &Tunnel,
        table: &Table,
        problem: Option<&String>,
        state: &State,
    ) -> Subject {
        let key = &tunnel.key;
        let certificate = self.certificates.of(key, &tunnel.spec);
        let (certificate, unread) = match certificate {
            Some(Ok(certificate)) => (Some(certificate), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let (ask, addresses) = ask(key, &tunnel.spec, certificate.as_deref(), state);
        let mut addresses = had(tunnel, table, &self.routes, addresses);
        let provider = tunnel.spec.provider;
        let standing = (!provider.is_hive()).then(|| self.tunnels.standings.of(key, provider));
        let host = standing.as_ref().and_then(|it| it.host.as_ref());
        addresses.extend(host.map(|host| at_host(host, &tunnel.spec)));
        let not_brought = standing.and_then(|it| it.trouble);
        let not_brought = not_brought.map(|it| Why::new(it.reason, it.message));
        let uncertified = || Some(no_certificate(tunnel, unread.as_ref()?, state));
        let no_door = || no_door(tunnel, &ask);
        let refused = table.refused.get(key);
        let refused = refused.map(|why| Why::new(why.reason(), why.to_string()));
        let lost = || {
            let lost = self.routes.lost(key)?;
            Some(Why::new(lost.reason(), lost.to_string()))
        };
        let unguarded = || {
            let Err(problem) = &*tunnel.access else {
                return None;
            };
            Some(Why::new(problem.reason(), problem.to_string()))
        };
        let health = self.tunnels.health.snapshot(key);
        let targets = statuses(&tunnel.spec, &health, |node| NodeState::of(state, node));
        let nobody = || no_function(tunnel, state).or_else(|| nobody_there(&targets));
        let obstacle = refused.or_else(lost).or_else(unguarded);
        let obstacle = obstacle
            .or(not_brought)
            .or_else(no_door)
            .or_else(uncertified)
            .or_else(nobody);
        Subject {
            uid: tunnel.uid.clone(),
            generation: tunnel.generation,
            addresses,
            ask,
            obstacle,
            closed: problem.map(|why| (self.own, why.clone())),
            targets,
        }
    }

    fn take_ended(&mut self, now: Instant) {
        while let Ok(ended) = self.told.try_recv() {
            if let Some(known) = self.known.get_mut(&ended.key) {
                known.take(ended, now);
            }
        }
        while let Some(ended) = self.under_way.try_join_next() {
            // Those that are aborted for a panic end later: they take nobody along.
            if !ended.is_err_and(|error| error.is_panic()) {
                continue;
            }
            // Which one panicked is not known; none of them may stay as if it went on.
            self.under_way.abort_all();
            let left = self.known.values_mut();
            for known in left.filter(|known| known.turn == Turn::UnderWay) {
                known.turn = Turn::At(now + SHORT);
            }
        }
    }

    /// Those first that were never tried, then those that wait longest.
    fn begin_due(&mut self, now: Instant) {
        let under_way = self.known.values().filter(|it| it.turn == Turn::UnderWay);
        let room = AT_ONCE.saturating_sub(under_way.count());
        let due = self
            .known
            .iter()
            .filter_map(|(key, known)| match known.turn {
                Turn::At(at) if at <= now => Some((known.tried.is_some(), at, key.clone())),
                _ => None,
            });
        let mut due: Vec<_> = due.collect();
        due.sort();
        for (_, _, key) in due.into_iter().take(room) {
            let Some(known) = self.known.get_mut(&key) else {
                continue;
            };
            let subject = known.begin(now);
            let (tell, wake) = (self.tell.clone(), self.tunnels.health.wakes());
            let doors = self.doors.clone();
            self.under_way.spawn(async move {
                let began = Instant::now();
                let mut observation = probe(&subject.ask).await;
                observation.doors = doors.of(&key, &subject, began).await;
                let ended = Ended {
                    key,
                    at: Timestamp::now(),
                    subject,
                    observation,
                };
                // Nobody listens after the term.
                let _ = tell.send(ended).await;
                wake.notify_one();
            });
        }
    }

    /// Who is due and found no place begins when another ends, which brings a look.
    fn outlook(&self, now: Instant) -> Outlook {
        let turns = self.known.values().filter_map(|known| match known.turn {
            Turn::At(at) if at > now => Some(at - now),
            _ => None,
        });
        turns.min().map_or(Outlook::Settled, Outlook::In)
    }
}

/// False if it could not be made; when it is there, the tunnels' rules are read anew.
async fn make_secret(replica: &Replica) -> bool {
    match seal::make_secret(replica).await {
        Ok(()) => true,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot make the secret of sessions");
            false
        }
    }
}

/// Where a service is that has a host of its provider.
fn at_host(host: &str, spec: &TunnelSpec) -> String {
    match (spec.protocol, spec.port) {
        (Protocol::Tcp, Some(port)) => format!("{host}:{port}"),
        _ => format!("http://{host}"),
    }
}

#[cfg(test)]
mod tests;
