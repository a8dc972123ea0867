//! One order, opened or gone on with, until it ends: in a certificate, or in why there is none.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use futures::future::join_all;
use hive_manifests::tunnel::FailedOrder;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rcgen::KeyPair;

use super::{Wanting, close};
use crate::reconcile::acme::authority::Authority;
use crate::reconcile::acme::certificate::{self, Held};
use crate::reconcile::acme::leave::Wish;
use crate::reconcile::acme::order::{Ordering, preference};
use crate::reconcile::acme::orders::{self, Order};
use crate::reconcile::acme::plan::Trouble;
use crate::reconcile::acme::settings::Settings;
use crate::reconcile::acme::words::OrderError;
use crate::reconcile::acme::{account, status};
use crate::reconcile::events::{self, Notice};
use crate::reconcile::tunnels::{Why, leads_here};
use crate::state::Key;
use crate::store::Replica;

/// After a failure that could not be written down.
const UNNOTED: Duration = Duration::from_secs(60);

/// What a task needs.
pub(super) struct Work {
    pub(super) replica: Replica,
    pub(super) settings: Settings,
    pub(super) tunnel: Key,
    pub(super) wanting: Wanting,
    pub(super) names: BTreeSet<String>,
    pub(super) secret: String,
    /// The order that is open; `None` where one is to be opened.
    pub(super) order: Option<Order>,
}

impl Work {
    pub(super) async fn run(self) {
        let (authority, pause) = Authority::new(&self.settings);
        match self.obtain(authority).await {
            Ok(true) => {
                let names = Vec::from_iter(self.names.iter().map(String::as_str)).join(", ");
                let message = format!(
                    "{} issued a certificate for {names}",
                    self.settings.authority()
                );
                tracing::info!(tunnel = %self.tunnel, names, "certificate issued");
                self.tell(false, Why::new("CertificateIssued", message))
                    .await;
            }
            Ok(false) => {}
            Err(error) => self.fail(&error, pause.wish()).await,
        }
    }

    /// False if the order is another leader's, or there is no leave for one: the next look knows.
    async fn obtain(&self, authority: Authority) -> Result<bool, OrderError> {
        let uid = &self.wanting.uid;
        let order = match &self.order {
            Some(order) => order.clone(),
            None => {
                self.names_lead_here().await?;
                if !account::take_leave(&self.replica, &self.settings).await? {
                    return Ok(false);
                }
                let order = self.fresh_order()?;
                if !orders::open(&self.replica, uid, &order).await? {
                    return Ok(false);
                }
                order
            }
        };
        let failures = self.wanting.failed.as_ref().map_or(0, |it| it.count);
        let mut ordering = Ordering {
            replica: &self.replica,
            settings: &self.settings,
            uid,
            order,
            preference: preference(failures),
        };
        let chain = ordering.obtain(authority).await?;
        let (replica, order, roots) = (&self.replica, &ordering.order, &self.settings.roots);
        if !certificate::store(replica, &self.secret, uid, order, &chain, roots).await? {
            return Err(OrderError::Secret);
        }
        orders::close(replica, uid).await?;
        // With a clock that is ahead it would be ordered again at once, until the authority has enough.
        let namespace = &self.tunnel.namespace;
        match Held::of(&replica.state(), namespace, &self.secret, uid) {
            Held::Own(held) if held.renewal() <= Timestamp::now() => Err(OrderError::Outlived),
            _ => Ok(true),
        }
    }

    /// All are tried at once; of several that do not, the first by name is told.
    async fn names_lead_here(&self) -> Result<(), OrderError> {
        let state = self.replica.state();
        let tried = join_all(self.names.iter().map(|name| leads_here(name, &state))).await;
        let found: Result<(), Why> = tried.into_iter().collect();
        found.map_err(OrderError::Name)
    }

    fn fresh_order(&self) -> Result<Order, rcgen::Error> {
        Ok(Order {
            namespace: self.tunnel.namespace.clone(),
            tunnel: self.tunnel.name.clone(),
            names: self.names.iter().cloned().collect(),
            directory: self.settings.directory.clone(),
            began: Timestamp::now(),
            key: KeyPair::generate()?.serialize_pem(),
            url: None,
            answers: Vec::new(),
        })
    }

    async fn fail(&self, error: &OrderError, wish: Option<Wish>) {
        let pause = wish.map(|wish| wish.until);
        let (trouble, why) = (error.trouble(), error.why(&self.settings, pause));
        let now = Timestamp::now();
        let before = self.wanting.failed.as_ref();
        let before = before.filter(|it| it.directory == self.settings.directory);
        let count = before.map_or(0, |it| it.count).saturating_add(1);
        let jitter = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
        let waited = before.and_then(|it| {
            let waited = it.next_time.0.duration_since(it.time.0);
            Duration::try_from(waited).ok()
        });
        let next = trouble.next(waited, pause, jitter, now);
        let failed = FailedOrder {
            time: Time(status::whole_seconds(now)),
            generation: self.wanting.generation,
            directory: self.settings.directory.clone(),
            count,
            next_time: Time(status::whole_seconds(next)),
            reason: why.reason.clone(),
            message: why.message.clone(),
        };
        let is_news = before.is_none_or(|it| it.reason != why.reason || it.message != why.message);
        tracing::info!(
            tunnel = %self.tunnel,
            reason = why.reason,
            why = why.message,
            "no certificate"
        );
        // Before anybody looks at what failed, and begins another.
        if let Some(wish) = wish
            && let Err(error) = account::heed(&self.replica, &self.settings, wish).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "cannot note that the authority wants to be left alone"
            );
        }
        let uid = &self.wanting.uid;
        let noted = status::note_failure(&self.replica, &self.tunnel, uid, &failed).await;
        if let Err(error) = noted {
            tracing::warn!(
                tunnel = %self.tunnel,
                error = &error as &dyn std::error::Error,
                "cannot write status"
            );
            // Nobody knows of it, so nobody would wait.
            tokio::time::sleep(UNNOTED).await;
        }
        // Of what was never placed there is nothing to go on with.
        let known = orders::read(&self.replica.state());
        let is_placed = known.get(uid).is_some_and(|order| order.url.is_some());
        if trouble == Trouble::Final || !is_placed {
            close(&self.replica, uid).await;
        }
        if error.forgets_account()
            && let Err(error) = account::forget(&self.replica).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot forget the account");
        }
        if is_news {
            self.tell(true, why).await;
        }
    }

    async fn tell(&self, warning: bool, why: Why) {
        let notice = Notice {
            warning,
            reason: why.reason,
            message: why.message,
            source: "acme".to_owned(),
            count: 1,
        };
        events::record(&self.replica, &self.tunnel, notice).await;
    }
}
