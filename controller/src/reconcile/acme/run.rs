//! Opens orders, goes on with those that are open, and keeps what comes of them; some beside each other.

mod work;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hive_manifests::tunnel::{FailedOrder, Tunnel};
use hive_manifests::{Resource, TunnelSpec};
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use self::work::Work;
use super::certificate::Held;
use super::leave::Leave;
use super::orders;
use super::plan::{Step, Subject, plan};
use super::settings::Settings;
use super::turns::{Open, Turns};
use super::{account, status};
use crate::ingress::routes::{self, domain, routes_of};
use crate::reconcile::{Followed, Outlook};
use crate::state::{Key, Object, State};
use crate::store::Replica;
use crate::tunnels::table;

/// Orders under way: most of the time each waits for the authority.
const AT_ONCE: usize = 4;

/// What a leader does about certificates in its term.
pub struct Certificates {
    routes: routes::Follower,
    table: table::Follower,
    tunnels: Followed<Wanting>,
    /// The uids of tunnels whose orders are under way.
    busy: HashSet<String>,
    turns: Turns,
    under_way: JoinSet<()>,
    /// Of those whose orders ended.
    tell: mpsc::Sender<String>,
    told: mpsc::Receiver<String>,
    wake: Arc<Notify>,
}

/// A tunnel that wants a certificate, or had one.
#[derive(Clone)]
struct Wanting {
    uid: String,
    generation: i64,
    spec: TunnelSpec,
    failed: Option<FailedOrder>,
}

fn wanting(object: &Object) -> Option<Wanting> {
    let tunnel: Tunnel = object.parse().ok()?;
    let known = tunnel.status.and_then(|status| status.certificate);
    if object.is_being_deleted() || !(tunnel.spec.wants_acme() || known.is_some()) {
        return None;
    }
    Some(Wanting {
        uid: object.uid().to_owned(),
        generation: tunnel.metadata.generation.unwrap_or_default(),
        spec: tunnel.spec,
        failed: known.and_then(|known| known.failed),
    })
}

impl Certificates {
    /// `wake` is notified when an order ends.
    pub fn new(state: &State, wake: Arc<Notify>) -> Self {
        let (tell, told) = mpsc::channel(AT_ONCE);
        Self {
            routes: routes::Follower::of(state),
            table: table::Follower::default(),
            tunnels: Followed::new(Resource::Tunnel, wanting),
            busy: HashSet::new(),
            turns: Turns::default(),
            under_way: JoinSet::new(),
            tell,
            told,
            wake,
        }
    }

    /// One look: says what is so, and begins what is due.
    pub async fn pass(&mut self, replica: &Replica) -> Outlook {
        self.take_ended();
        // What they wrote is in it: nothing that has just failed is begun again.
        let state = &replica.state();
        self.routes.follow(state);
        self.tunnels.follow(state);
        let table = self.table.follow(state, &self.routes);
        let settings = Settings::of(state);
        let leave = settings.as_ref().map(|it| account::leave(state, it));
        let mut leave = leave.unwrap_or_default();
        let mut open = orders::read(state);
        let mut places = Open::default();
        for order in open.values() {
            places.add(&order.namespace);
        }
        let now = Timestamp::now();
        let paused = leave.pause(now);
        let (mut is_settled, mut due) = (true, None);
        let mut tunnels: Vec<(Key, Wanting)> = self
            .tunnels
            .iter()
            .map(|(key, wanting)| (key.clone(), wanting.clone()))
            .collect();
        // Of each namespace those first that did not fail, then those that wait longest: names that lead nowhere keep no
        // others from a place.
        tunnels.sort_by_key(|(_, wanting)| wanting.failed.as_ref().map(|it| it.next_time.0));
        let mut waiting = Vec::new();
        let mut busy: HashMap<String, usize> = HashMap::new();
        for (key, wanting) in tunnels {
            let order = open.remove(&wanting.uid);
            if self.busy.contains(&wanting.uid) {
                // It is about to open one.
                if order.is_none() {
                    places.add(&key.namespace);
                }
                *busy.entry(key.namespace).or_default() += 1;
                continue;
            }
            let uid = wanting.uid.clone();
            let secret = wanting.spec.certificate_secret(&key.name);
            let Some(secret) = secret.filter(|_| wanting.spec.wants_acme()) else {
                is_settled &= status::tell(replica, &key, &uid, None).await;
                is_settled &= order.is_none() || close(replica, &uid).await;
                continue;
            };
            let mut subject = self.subject(state, &key, &wanting, secret);
            if let Some(refused) = table.refused.get(&key) {
                subject.taken = Some(refused.to_string());
            }
            let planned = plan(&subject, &settings, order.as_ref(), paused, now);
            is_settled &= status::tell(replica, &key, &uid, Some(&planned)).await;
            due = due.into_iter().chain(planned.due).min();
            let order = match planned.step {
                None => continue,
                Some(Step::Close) => {
                    is_settled &= close(replica, &uid).await;
                    continue;
                }
                Some(Step::Open) => None,
                Some(Step::Resume) => order,
            };
            let Ok(settings) = &settings else { continue };
            waiting.push(Work {
                replica: replica.clone(),
                settings: settings.clone(),
                tunnel: key,
                wanting,
                names: subject.names,
                secret: subject.secret,
                order,
            });
        }
        let waiting = self
            .turns
            .order(&busy, waiting, |work| &work.tunnel.namespace);
        for work in waiting {
            let later = self.begin(work, &mut places, &mut leave, now);
            due = due.into_iter().chain(later).min();
        }
        // Their tunnels are gone.
        for uid in open.keys().filter(|uid| !self.busy.contains(*uid)) {
            is_settled &= close(replica, uid).await;
        }
        match is_settled {
            true => Outlook::at(due, now),
            false => Outlook::Again,
        }
    }

    fn take_ended(&mut self) {
        while let Ok(uid) = self.told.try_recv() {
            self.busy.remove(&uid);
        }
        while let Some(ended) = self.under_way.try_join_next() {
            // Those that are aborted for it end later: they take nobody along.
            if ended.is_err_and(|error| error.is_panic()) {
                // Which one panicked is not known; none of them may stay as if it went on.
                self.under_way.abort_all();
                self.busy.clear();
            }
        }
    }

    fn subject(&self, state: &State, key: &Key, wanting: &Wanting, secret: String) -> Subject {
        let http = wanting.spec.http.clone().unwrap_or_default();
        let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
        let names: BTreeSet<String> = routes.into_iter().map(|route| route.host).collect();
        // Whoever has the key of a host's certificate can pass for all of it.
        let held = |host: &String| self.routes.held_elsewhere(host, &key.namespace);
        let taken = names.iter().find_map(held).map(|lost| lost.to_string());
        Subject {
            generation: wanting.generation,
            held: Held::of(state, &key.namespace, &secret, &wanting.uid),
            names,
            secret,
            taken,
            failed: wanting.failed.clone(),
        }
    }

    /// Begins, or says when there is leave to. Where there is no place, an order that ends or is closed brings a look.
    /// `places` and `leave` are what is left of them for those that begin now; each writes down what it takes.
    fn begin(
        &mut self,
        work: Work,
        places: &mut Open,
        leave: &mut Leave,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if self.busy.len() >= AT_ONCE {
            return None;
        }
        if work.order.is_none() {
            let namespace = &work.tunnel.namespace;
            if !places.has_room(namespace) {
                return None;
            }
            if let Err(later) = leave.take(now) {
                return Some(later);
            }
            places.add(namespace);
        }
        self.turns.had(&work.tunnel.namespace);
        let uid = work.wanting.uid.clone();
        self.busy.insert(uid.clone());
        let (tell, wake) = (self.tell.clone(), self.wake.clone());
        self.under_way.spawn(async move {
            work.run().await;
            // Nobody listens after the term.
            let _ = tell.send(uid).await;
            wake.notify_one();
        });
        None
    }
}

async fn close(replica: &Replica, uid: &str) -> bool {
    let closed = orders::close(replica, uid).await;
    if let Err(error) = &closed {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, "cannot close an order");
    }
    closed.is_ok()
}
