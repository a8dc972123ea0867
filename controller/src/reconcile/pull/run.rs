//! Performs pulls beside each other, and writes what came of them into the functions' statuses.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_functions::InspectLimits;
use hive_manifests::function::{DOCKER_CONFIG_KEY, PulledArtifact};
use hive_manifests::{Function, Resource};
use hive_registry::{Credentials, Image, Login, Lookup, Reference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{Concern, Job, Plan, plan};
use super::{BACK_OFF, CONDITION, FAILED, INVALID_COMPONENT, INVALID_NAME, PULLING, UNAUTHORIZED};
use crate::artifacts::{Artifacts, InspectArtifactError, PullError, Registries};
use crate::gateway::bounds::cut;
use crate::objects::{self, EditError};
use crate::reconcile::events::{self, MAX_MESSAGE_BYTES, Notice};
use crate::reconcile::{Followed, Outlook};
use crate::state::{Key, State};
use crate::store::Replica;

/// At once: each holds a connection and a file, and a slow registry must not hold up the others.
const AT_ONCE: usize = 4;

/// Of one namespace: it must not hold up the others'.
const AT_ONCE_OF_ONE: usize = 2;

/// The largest component over a slow line; longer, a registry only pretends to send.
const LONGEST_PULL: Duration = Duration::from_secs(15 * 60);

/// As the kubelet waits: after the first failure, doubled after each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A registry that says when to come back is not waited for longer.
const LONGEST_WISH: Duration = Duration::from_secs(3600);

pub struct Pulls {
    puller: Puller,
    functions: Followed<Concern>,
    under_way: JoinSet<(Job, Option<Failure>)>,
    names: BTreeSet<Job>,
    failures: HashMap<Job, Failed>,
}

#[derive(Clone)]
struct Puller {
    replica: Replica,
    artifacts: Artifacts,
    registries: Registries,
}

/// Why there is no component.
struct Failure {
    reason: &'static str,
    message: String,
    /// What the registry asks for.
    pause: Option<Duration>,
}

impl Failure {
    /// As it is told when it is not the first. What the registry or the spec is to blame for keeps its name.
    fn after(mut self, before: u32) -> Self {
        if before > 0 && self.reason == FAILED {
            self.reason = BACK_OFF;
            self.message += &format!("; tried {} times, and again in a while", before + 1);
        }
        self
    }
}

struct Failed {
    times: u32,
    due: Instant,
}

impl Failed {
    fn again(before: Option<&Self>, wish: Option<Duration>, now: Instant) -> Self {
        let times = before.map_or(0, |failed| failed.times) + 1;
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(times.min(16) - 1);
        let pause = pause.min(LONGEST_PAUSE);
        let wish = wish.unwrap_or_default().min(LONGEST_WISH);
        Self {
            times,
            due: now + pause.max(wish),
        }
    }
}

impl Pulls {
    pub fn new(replica: Replica, artifacts: Artifacts, registries: Registries) -> Self {
        Self {
            puller: Puller {
                replica,
                artifacts,
                registries,
            },
            functions: Followed::new(Resource::Function, Concern::of),
            under_way: JoinSet::new(),
            names: BTreeSet::new(),
            failures: HashMap::new(),
        }
    }

    /// One look: notes what ended, and begins what is due.
    pub async fn pass(&mut self, state: &State) -> Outlook {
        self.functions.follow(state);
        let Plan { jobs, settled } = plan(self.functions.iter(), state);
        for key in &settled {
            self.puller.forget(key).await;
        }
        let now = Instant::now();
        while let Some(ended) = self.under_way.try_join_next() {
            let Ok((job, failure)) = ended else {
                // Which one panicked is not known; none of them may stay as if it went on.
                self.under_way.abort_all();
                self.names.clear();
                continue;
            };
            self.names.remove(&job);
            match failure {
                None => drop(self.failures.remove(&job)),
                Some(failure) => {
                    let failed = Failed::again(self.failures.get(&job), failure.pause, now);
                    self.failures.insert(job, failed);
                }
            }
        }
        self.failures.retain(|job, _| jobs.contains_key(job));
        for (job, functions) in &jobs {
            let failed = self.failures.get(job);
            let is_due = failed.is_none_or(|failed| failed.due <= now);
            if !is_due || self.names.contains(job) || !self.has_room(&job.namespace) {
                continue;
            }
            let (puller, job, functions) = (self.puller.clone(), job.clone(), functions.clone());
            let before = failed.map_or(0, |failed| failed.times);
            self.names.insert(job.clone());
            self.under_way.spawn(async move {
                let failure = puller.perform(&job, &functions, before).await;
                (job, failure)
            });
        }
        Outlook::settled_if(jobs.is_empty() && self.under_way.is_empty())
    }

    fn has_room(&self, namespace: &str) -> bool {
        let of_it = self.names.iter().filter(|job| job.namespace == namespace);
        self.names.len() < AT_ONCE && of_it.count() < AT_ONCE_OF_ONE
    }
}

impl Puller {
    /// `before` is how often it has failed.
    async fn perform(&self, job: &Job, functions: &[Key], before: u32) -> Option<Failure> {
        if before == 0 {
            let message = format!("pulling {}", job.requested);
            for key in functions {
                self.write(job, key, "False", PULLING, &message, None).await;
            }
        }
        let started = Instant::now();
        match self.pull(job).await {
            Ok(image) => {
                let pulled = PulledArtifact {
                    requested: job.requested.clone(),
                    pull_at: job.pull_at.map(Time),
                    reference: image.pinned.to_string(),
                    sha256: image.component.digest.hex(),
                    size: image.component.size,
                    pulled_at: objects::timestamp(SystemTime::now()),
                };
                tracing::info!(image = pulled.reference, size = pulled.size, elapsed = ?started.elapsed(), "pulled");
                let mut unfit = None;
                for key in functions {
                    if let Err(failure) = self.settle(job, key, &pulled).await {
                        unfit = Some(failure);
                    }
                }
                unfit
            }
            Err(failure) => {
                let failure = failure.after(before);
                tracing::warn!(
                    namespace = job.namespace,
                    image = job.requested,
                    error = failure.message,
                    "cannot pull"
                );
                for key in functions {
                    self.refuse(job, key, &failure).await;
                }
                Some(failure)
            }
        }
    }

    async fn pull(&self, job: &Job) -> Result<Image, Failure> {
        let reference: Reference = job.requested.parse().map_err(|error| Failure {
            reason: INVALID_NAME,
            message: format!("{:?}: {error}", job.requested),
            pause: None,
        })?;
        let (login, lacking) = self.login(job, &reference)?;
        let is_known = login.is_some();
        let pull = async {
            let (image, blob) = self.registries.find(reference, login).await?;
            let body = self.registries.fetch(&image, blob).await?;
            let digest = image.component.digest.hex();
            let taken = self.artifacts.upload(&digest, body).await;
            taken.map_err(PullError::Upload)?;
            Ok::<_, PullError>(image)
        };
        let pulled = tokio::time::timeout(LONGEST_PULL, pull).await;
        let pulled = pulled.map_err(|_| Failure {
            reason: FAILED,
            message: format!("{}: not there after {LONGEST_PULL:?}", job.requested),
            pause: None,
        })?;
        pulled.map_err(|error| {
            let mut message = format!("{}: {}", job.requested, error.sentence());
            if error.is_unauthorized() {
                message += match (is_known, lacking.is_empty()) {
                    (true, _) => "; it was asked with credentials of imagePullSecrets",
                    (false, true) => "; it was asked without: none of imagePullSecrets is for it",
                    (false, false) => "; it was asked without, as imagePullSecrets are missing: ",
                };
                if !is_known {
                    message += &lacking.join(", ");
                }
            }
            Failure {
                reason: match error.is_unauthorized() {
                    true => UNAUTHORIZED,
                    false => FAILED,
                },
                message,
                pause: error.retry_after(),
            }
        })
    }

    /// Who the namespace is to the registry, and which of its secrets are not there.
    fn login(
        &self,
        job: &Job,
        reference: &Reference,
    ) -> Result<(Option<Login>, Vec<String>), Failure> {
        let state = self.replica.state();
        let mut lacking = Vec::new();
        for (name, _) in &job.secrets {
            let key = Key::new(Resource::Secret, job.namespace.clone(), name.clone());
            let Some(secret) = state.get(&key) else {
                lacking.push(name.clone());
                continue;
            };
            let unreadable = |why: String| Failure {
                reason: FAILED,
                message: format!("secret {name}: {why}"),
                pause: None,
            };
            let data = secret.to_value()["data"][DOCKER_CONFIG_KEY]
                .as_str()
                .map(|text| BASE64.decode(text));
            let Some(Ok(config)) = data else {
                return Err(unreadable(format!(
                    "it has no {DOCKER_CONFIG_KEY}: make it with `hivectl create secret docker-registry`"
                )));
            };
            let credentials = Credentials::parse(&config)
                .map_err(|error| unreadable(format!("{DOCKER_CONFIG_KEY}: {error}")))?;
            match credentials.find(reference) {
                Lookup::Login(login) => return Ok((Some(login), lacking)),
                Lookup::Helper(helper) => {
                    return Err(unreadable(format!(
                        "the credentials are with the program {helper} of another machine; put name and password in"
                    )));
                }
                Lookup::None => {}
            }
        }
        Ok((None, lacking))
    }

    /// Gives a function its component, if it can run it.
    async fn settle(&self, job: &Job, key: &Key, pulled: &PulledArtifact) -> Result<(), Failure> {
        let function: Option<Function> = self
            .replica
            .state()
            .get(key)
            .and_then(|object| object.parse().ok());
        let Some(function) = function else {
            return Ok(());
        };
        let limits = InspectLimits {
            max_memory: function.spec.resources.memory.0,
        };
        if let Err(error) = self.artifacts.inspect(&pulled.sha256, limits).await {
            let reason = match error {
                InspectArtifactError::Component(_) => INVALID_COMPONENT,
                _ => FAILED,
            };
            // With all that it is because of.
            let why = format!("{:#}", anyhow::Error::new(error));
            let failure = Failure {
                reason,
                message: format!("{}: {why}", pulled.reference),
                pause: None,
            };
            self.refuse(job, key, &failure).await;
            return Err(failure);
        }
        let message = format!("pulled {}", pulled.reference);
        if self
            .write(job, key, "True", "Pulled", &message, Some(pulled))
            .await
        {
            self.tell(key, false, "Pulled", message).await;
        }
        Ok(())
    }

    async fn refuse(&self, job: &Job, key: &Key, failure: &Failure) {
        let mut message = failure.message.clone();
        cut(&mut message, MAX_MESSAGE_BYTES);
        self.write(job, key, "False", failure.reason, &message, None)
            .await;
        self.tell(key, true, failure.reason, message).await;
    }

    async fn tell(&self, key: &Key, warning: bool, reason: &str, message: String) {
        let notice = Notice {
            warning,
            reason: reason.to_owned(),
            message,
            source: "puller".to_owned(),
            count: 1,
        };
        events::record(&self.replica, key, notice).await;
    }

    /// A function that names its component itself has nothing of an image in its status.
    async fn forget(&self, key: &Key) {
        let written = objects::edit(&self.replica, key, |body| {
            if !body["spec"]["artifact"]["sha256"].is_string() {
                return false;
            }
            let Some(status) = body["status"].as_object_mut() else {
                return false;
            };
            let pulled = status.remove("artifact").is_some();
            let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
            let told = conditions.is_some_and(|conditions| {
                let before = conditions.len();
                conditions.retain(|condition| condition["type"] != CONDITION);
                conditions.len() != before
            });
            pulled || told
        })
        .await;
        if let Err(error) = written {
            tracing::warn!(function = %key, %error, "cannot forget an image");
        }
    }

    /// True when it is written; not if the function names another image by now.
    async fn write(
        &self,
        job: &Job,
        key: &Key,
        status: &str,
        reason: &str,
        message: &str,
        pulled: Option<&PulledArtifact>,
    ) -> bool {
        let mut is_written = false;
        let written = objects::edit(&self.replica, key, |body| {
            is_written = job.is_of(&body["spec"]["artifact"]);
            if !is_written {
                return false;
            }
            let now = SystemTime::now();
            let mut changed = objects::set_condition(
                &mut body["status"],
                CONDITION,
                status,
                reason,
                message,
                now,
            );
            if let Some(pulled) = pulled {
                body["status"]["artifact"] = json!(pulled);
                changed = true;
            }
            changed
        })
        .await;
        match written {
            Ok(()) => is_written,
            Err(EditError::NotFound(_)) => false,
            Err(error) => {
                tracing::warn!(function = %key, error = &error as &dyn std::error::Error, "cannot write what became of a pull");
                false
            }
        }
    }
}
