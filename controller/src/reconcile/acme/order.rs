//! One order at the authority, from wherever it is to the certificate. What the next leader needs to go on is
//! written before the authority hears of it.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeStatus, ChallengeType, Error, Identifier, NewOrder,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::authority::Authority;
use super::orders::{self, Answer, Order};
use super::settings::Settings;
use super::words::{OrderError, kind};
use super::{account, certificate, reach};
use crate::store::Replica;

/// For names to be looked at, and again for the certificate to be made. What takes longer is looked at again
/// later: the order stays.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .timeout(Duration::from_secs(60));

/// Which challenge is taken first: the other one after a failure, since one of two ports may be closed.
pub fn preference(failures: u32) -> [ChallengeType; 2] {
    match failures % 2 {
        0 => [ChallengeType::Http01, ChallengeType::TlsAlpn01],
        _ => [ChallengeType::TlsAlpn01, ChallengeType::Http01],
    }
}

/// An order that is open.
pub struct Ordering<'a> {
    pub replica: &'a Replica,
    pub settings: &'a Settings,
    /// Of the tunnel.
    pub uid: &'a str,
    pub order: Order,
    pub preference: [ChallengeType; 2],
}

impl Ordering<'_> {
    /// The chain of certificates, in PEM.
    pub async fn obtain(&mut self, authority: Authority) -> Result<String, OrderError> {
        let account = account::open(self.replica, self.settings, authority).await?;
        let mut placed = self.place(&account).await?;
        if placed.state().status == OrderStatus::Pending {
            self.prove(&mut placed).await?;
            let polled = placed.poll_ready(&POLL).await;
            if placed.state().status == OrderStatus::Invalid {
                return Err(unproven(&mut placed).await);
            }
            polled?;
        }
        match placed.state().status {
            OrderStatus::Invalid => return Err(unproven(&mut placed).await),
            OrderStatus::Ready => placed.finalize_csr(&request(&self.order)?).await?,
            OrderStatus::Pending | OrderStatus::Processing | OrderStatus::Valid => {}
        }
        let chain = placed.poll_certificate(&POLL).await?;
        certificate::check(&chain, &self.order).map_err(OrderError::Certificate)?;
        Ok(chain)
    }

    /// Goes on with what the leader before placed, or places it.
    async fn place(&mut self, account: &Account) -> Result<instant_acme::Order, OrderError> {
        if let Some(url) = &self.order.url {
            match account.order(url.clone()).await {
                Ok(placed) => return Ok(placed),
                Err(Error::Api(problem)) if is_gone(&problem) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let names = self.order.names.iter().cloned().map(Identifier::Dns);
        let names: Vec<Identifier> = names.collect();
        let placed = account.new_order(&NewOrder::new(&names)).await?;
        self.order.url = Some(placed.url().to_owned());
        self.order.answers.clear();
        self.note().await?;
        Ok(placed)
    }

    /// Gives the answers that the authority looks for, everywhere, and tells it to look.
    async fn prove(&mut self, placed: &mut instant_acme::Order) -> Result<(), OrderError> {
        let mut answers = Vec::new();
        let mut names = placed.authorizations();
        while let Some(name) = names.next().await {
            let mut name = name?;
            if name.status != AuthorizationStatus::Pending {
                continue;
            }
            let called = name.identifier().to_string();
            let offered = |wished: &ChallengeType| {
                let mut offers = name.challenges.iter();
                offers.any(|offer| offer.r#type == *wished)
            };
            // What the authority may be looking at by now stays the answer.
            let answered = |wished: &ChallengeType| {
                let mut offers = name.challenges.iter();
                offers.any(|offer| {
                    let mut answers = self.order.answers.iter();
                    offer.r#type == *wished && answers.any(|it| it.token == offer.token)
                })
            };
            let mut wished = self.preference.iter();
            let chosen = wished.clone().find(|it| answered(it));
            let chosen = chosen.or_else(|| wished.find(|it| offered(it)));
            let challenge = match chosen.cloned() {
                Some(kind) => name.challenge(kind),
                None => None,
            };
            let Some(challenge) = challenge else {
                return Err(OrderError::NoChallenge(called));
            };
            answers.push(Answer {
                name: called,
                token: challenge.token.clone(),
                authorization: challenge.key_authorization().as_str().to_owned(),
            });
        }
        self.order.answers = answers;
        self.note().await?;
        reach::everywhere(self.replica, &self.order.answers).await;
        let mut names = placed.authorizations();
        while let Some(name) = names.next().await {
            let mut name = name?;
            let open = name.challenges.iter().filter(|challenge| {
                let mut answers = self.order.answers.iter();
                challenge.status == ChallengeStatus::Pending
                    && answers.any(|answer| answer.token == challenge.token)
            });
            // Some authorities have one token for all challenges of a name.
            let kinds: Vec<ChallengeType> = open.map(|it| it.r#type.clone()).collect();
            let chosen = self.preference.iter().find(|kind| kinds.contains(kind));
            let Some(kind) = chosen.cloned() else {
                continue;
            };
            if let Some(mut challenge) = name.challenge(kind) {
                match challenge.set_ready().await {
                    // What the authority found is asked for with the order.
                    Ok(()) | Err(Error::Api(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn note(&self) -> Result<(), OrderError> {
        let noted = orders::note(self.replica, self.uid, &self.order).await?;
        noted.then_some(()).ok_or(OrderError::Closed)
    }
}

/// Authorities say it in several ways, also of an order that another account placed.
fn is_gone(problem: &Problem) -> bool {
    matches!(problem.status, Some(403 | 404))
        || matches!(kind(problem), "malformed" | "unauthorized")
}

/// Only the names: the rest is for the authority to say.
fn request(order: &Order) -> Result<Vec<u8>, rcgen::Error> {
    let pair = KeyPair::from_pem(&order.key)?;
    let mut params = CertificateParams::new(order.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&pair)?.der().to_vec())
}

/// Which name was not proven, and why.
async fn unproven(placed: &mut instant_acme::Order) -> OrderError {
    // The order says less than the names, of which nothing is known yet after this.
    let problem = match placed.refresh().await {
        Ok(state) => state.error.clone(),
        Err(error) => return error.into(),
    };
    let mut names = placed.authorizations();
    while let Some(Ok(name)) = names.next().await {
        if name.status == AuthorizationStatus::Valid {
            continue;
        }
        let found = name.challenges.iter().find_map(|it| it.error.clone());
        if found.is_some() || name.status == AuthorizationStatus::Invalid {
            let called = name.identifier().to_string();
            return OrderError::Unproven {
                name: called,
                problem: found,
            };
        }
    }
    match problem {
        Some(problem) => Error::Api(problem).into(),
        None => OrderError::Closed,
    }
}
