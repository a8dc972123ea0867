//! Signing in on another device: a code to type there, while this process asks whether it was
//! (RFC 8628). For machines without a browser.

use std::time::Duration;

use tokio::time::Instant;

use super::http::printable;
use super::id_token::Occasion;
use super::{Issuer, OidcError, Tokens};

/// Between two questions where the issuer says nothing (RFC 8628, 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// What is added when the issuer finds that too often (RFC 8628, 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// No issuer asks for longer pauses in earnest.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Nor for none: a person takes seconds, and an issuer is nobody to hammer at.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A sign-in under way.
pub struct Device {
    code: String,
    interval: Duration,
    deadline: Instant,
    patience: Duration,
    /// What a person opens, and types there.
    pub url: String,
    pub user_code: String,
    /// With the code in it.
    pub complete_url: Option<String>,
}

impl Issuer {
    pub async fn begin_device(&self, patience: Duration) -> Result<Device, OidcError> {
        let endpoint = self.discovery.device.as_ref();
        let endpoint = endpoint.ok_or(OidcError::NotOffered("sign-in on another device"))?;
        let scope = self.scope();
        let answer = self.post(endpoint, &[("scope", &scope)]).await?;
        let text = |name: &str| {
            let missing = || OidcError::Answer {
                url: endpoint.to_string(),
                why: format!("{name} is missing"),
            };
            answer[name].as_str().ok_or_else(missing)
        };
        let seconds = |name: &str| answer[name].as_u64().map(Duration::from_secs);
        let patience = seconds("expires_in").map_or(patience, |end| end.min(patience));
        Ok(Device {
            code: text("device_code")?.to_owned(),
            interval: seconds("interval")
                .unwrap_or(DEFAULT_INTERVAL)
                .clamp(MIN_INTERVAL, MAX_INTERVAL),
            deadline: Instant::now() + patience,
            patience,
            url: printable(text("verification_uri")?),
            user_code: printable(text("user_code")?),
            complete_url: answer["verification_uri_complete"].as_str().map(printable),
        })
    }
}

impl Device {
    /// Asks until somebody has signed in, or refused.
    pub async fn tokens(mut self, issuer: &Issuer) -> Result<Tokens, OidcError> {
        let code = self.code.clone();
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", code.as_str()),
        ];
        loop {
            let next = Instant::now() + self.interval;
            if next >= self.deadline {
                return Err(OidcError::TooLate(self.patience));
            }
            tokio::time::sleep_until(next).await;
            match issuer.tokens(&form, Occasion::Device).await {
                Err(OidcError::Refused { error, .. }) if error == "authorization_pending" => {}
                Err(OidcError::Refused { error, .. }) if error == "slow_down" => self.slow_down(),
                // Somebody is typing a code: a link that fails meanwhile must not cost them that.
                Err(OidcError::Unreachable { .. }) => self.slow_down(),
                result => return result,
            }
        }
    }

    fn slow_down(&mut self) {
        self.interval = (self.interval + SLOW_DOWN).min(MAX_INTERVAL);
    }
}
