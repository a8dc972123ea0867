//! The swarm's account at the authority: one Secret, made before the authority hears of it, so that nobody
//! registers twice. It has what the authority lets the account do, too: the next leader reads it there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use instant_acme::{Account, Key as AccountKey};
use jiff::Timestamp;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::authority::Authority;
use super::leave::{Leave, Wish};
use super::settings::Settings;
use super::words::OrderError;
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::objects::{self, EditError};
use crate::state::{Key, State};
use crate::store::Replica;

const NAME: &str = "acme-account";
const TYPE: &str = "hive.dev/acme-account";

/// Which authority it is for.
const DIRECTORY: &str = "directory";
/// PKCS#8.
const PRIVATE_KEY: &str = "key";
/// What the authority calls it, once it is registered.
const ID: &str = "id";
/// Where it was told to write to.
const EMAIL: &str = "email";
/// Both of [`Leave`], as times.
const PAUSED: &str = "pausedUntil";
const FULL: &str = "ordersFullAt";

/// As the Secret has it. Nothing prints it.
struct Known {
    key: Vec<u8>,
    id: Option<String>,
    email: Option<String>,
}

fn secret() -> Key {
    Key::new(Resource::Secret, SYSTEM_NAMESPACE, NAME)
}

/// The account, registered where it is not yet.
pub async fn open(
    replica: &Replica,
    settings: &Settings,
    authority: Authority,
) -> Result<Account, OrderError> {
    let known = known(replica, settings).await?;
    let builder = Account::builder_with_http(Box::new(authority));
    let directory = settings.directory.clone();
    if let Some(id) = known.id.filter(|_| known.email == settings.email) {
        let key = PrivatePkcs8KeyDer::from(known.key);
        return Ok(builder.from_parts(id, key, directory).await?);
    }
    let pair = PrivatePkcs8KeyDer::from(known.key);
    let key = AccountKey::from_pkcs8_der(pair.clone_key())?;
    // Whoever registers with a key that has an account gets that one.
    let (account, _) = builder
        .create_from_key((key, PrivateKeyDer::Pkcs8(pair)), directory)
        .await?;
    let mailto = settings.email.iter().map(|email| format!("mailto:{email}"));
    let mailto: Vec<String> = mailto.collect();
    let contacts: Vec<&str> = mailto.iter().map(String::as_str).collect();
    if known.email != settings.email {
        account.update_contacts(&contacts).await?;
    }
    objects::edit(replica, &secret(), |body| {
        if !is_for(body, settings) {
            return false;
        }
        set(body, ID, Some(account.id()));
        set(body, EMAIL, settings.email.as_deref());
        true
    })
    .await?;
    tracing::info!(account = account.id(), "registered at the authority");
    Ok(account)
}

/// The key for an authority, made where there is none: it takes the place of another authority's.
async fn known(replica: &Replica, settings: &Settings) -> Result<Known, OrderError> {
    let body = objects::fresh(&secret(), json!({}), json!({ "type": TYPE, "data": {} }));
    objects::ensure(replica, secret(), body).await?;
    let (_, fresh) = AccountKey::generate_pkcs8()?;
    let mut known = None;
    objects::edit(replica, &secret(), |body| {
        let key = get(body, PRIVATE_KEY).filter(|_| is_for(body, settings));
        let is_new = key.is_none();
        if is_new {
            body["data"] = json!({
                DIRECTORY: BASE64.encode(&settings.directory),
                PRIVATE_KEY: BASE64.encode(fresh.secret_pkcs8_der()),
            });
        }
        let text = |body: &Value, field: &str| String::from_utf8(get(body, field)?).ok();
        known = Some(Known {
            key: key.unwrap_or_else(|| fresh.secret_pkcs8_der().to_vec()),
            id: text(body, ID),
            email: text(body, EMAIL),
        });
        is_new
    })
    .await?;
    known.ok_or(OrderError::Note(EditError::NotFound(secret())))
}

/// The authority does not know the account any more: it is registered anew when it is needed.
pub async fn forget(replica: &Replica) -> Result<(), EditError> {
    objects::edit(replica, &secret(), |body| {
        let data = body["data"].as_object_mut();
        data.is_some_and(|data| {
            data.remove(EMAIL);
            data.remove(ID).is_some()
        })
    })
    .await
}

/// What the account may ask of the authority, as far as somebody wrote it down.
pub fn leave(state: &State, settings: &Settings) -> Leave {
    let secret = state.get(&secret()).map(|it| it.to_value());
    let own = secret.as_deref().filter(|it| is_for(it, settings));
    own.map(leave_of).unwrap_or_default()
}

/// Takes leave for a new order, before the authority is asked for it; false if there is none now.
pub async fn take_leave(replica: &Replica, settings: &Settings) -> Result<bool, OrderError> {
    known(replica, settings).await?;
    let take = |leave: &mut Leave| leave.take(Timestamp::now()).is_ok();
    Ok(change_leave(replica, settings, take).await?)
}

/// The authority wants to be left alone: by all tunnels as far as it is about all of them, and whoever leads.
pub async fn heed(replica: &Replica, settings: &Settings, wish: Wish) -> Result<(), EditError> {
    let heed = |leave: &mut Leave| leave.heed(wish, Timestamp::now());
    change_leave(replica, settings, heed).await.map(drop)
}

/// `change` says whether it changed anything, and so does this.
async fn change_leave(
    replica: &Replica,
    settings: &Settings,
    change: impl Fn(&mut Leave) -> bool + Send + Sync,
) -> Result<bool, EditError> {
    let mut is_changed = false;
    objects::edit(replica, &secret(), |body| {
        let mut leave = leave_of(body);
        is_changed = is_for(body, settings) && change(&mut leave);
        if is_changed {
            for (field, at) in [(PAUSED, leave.paused), (FULL, leave.full)] {
                let text = at.map(|at| at.to_string());
                set(body, field, text.as_deref());
            }
        }
        is_changed
    })
    .await?;
    Ok(is_changed)
}

fn leave_of(secret: &Value) -> Leave {
    let time = |field: &str| -> Option<Timestamp> {
        let text = String::from_utf8(get(secret, field)?).ok()?;
        text.parse().ok()
    };
    Leave {
        paused: time(PAUSED),
        full: time(FULL),
    }
}

/// Whether a Secret has the account of that authority.
fn is_for(secret: &Value, settings: &Settings) -> bool {
    get(secret, DIRECTORY).as_deref() == Some(settings.directory.as_bytes())
}

fn get(secret: &Value, field: &str) -> Option<Vec<u8>> {
    BASE64.decode(secret["data"][field].as_str()?).ok()
}

fn set(secret: &mut Value, field: &str, value: Option<&str>) {
    match value {
        Some(value) => secret["data"][field] = json!(BASE64.encode(value)),
        None => {
            if let Some(data) = secret["data"].as_object_mut() {
                data.remove(field);
            }
        }
    }
}
