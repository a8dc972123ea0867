//! The API: Kubernetes-shaped HTTP over the replicated state.
//!
//! A request's path is parsed into one [`path::Target`], its token into a user, and both into a
//! decision before anything else is read. Reads come from this replica's state, writes go through
//! [`Replica::propose`] as compare-and-swap. Nothing here keeps state of its own.

mod accept;
mod admission;
mod artifacts;
mod audited;
mod auth;
mod backup;
mod certificates;
mod controllers;
mod discovery;
mod encoding;
mod errors;
mod foreign;
#[cfg(test)]
mod fuzz;
mod guard;
mod health;
mod limits;
mod logs;
mod media;
mod metadata;
mod metering;
mod metrics;
mod openapi;
mod patch;
mod path;
mod protobuf;
mod proxy;
mod query;
mod reads;
mod resources;
mod respond;
mod reviews;
mod selectors;
mod service_accounts;
mod table;
mod telemetry;
mod waiting;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use hive_identity::{CertificateAuthority, ClientAuthority};
use http::{HeaderMap, Method};
use tokio_util::sync::CancellationToken;

use crate::access::index::SharedIndex;
use crate::access::oidc::Oidc;
use crate::access::service_accounts::Issuer;
use crate::artifacts::Artifacts;
use crate::audit::Audit;
use crate::controllers::Controllers;
use crate::gateway::Nodes;
use crate::ingress::Forwarder;
use crate::store::Replica;
use crate::tunnels::Tunnels;
use audited::Audited;
use auth::User;
use controllers::Following;
use encoding::Encoding;
use errors::ApiError;
use health::{LeaderCheck, Page};
use limits::{Level, Permits};
use path::Target;
use query::Query;
use telemetry::{Requests, Series};
use watch::Topics;

/// What the API answers from.
#[derive(Clone)]
pub struct ApiContext {
    pub replica: Replica,
    pub artifacts: Artifacts,
    pub nodes: Nodes,
    pub controllers: Controllers,
    /// What this controller carries of them.
    pub tunnels: Tunnels,
    /// For backups.
    pub authority: Arc<CertificateAuthority>,
    /// Issues certificates to people, and knows them.
    pub clients: Arc<ClientAuthority>,
    pub forwarder: Forwarder,
    pub audit: Audit,
    pub issuer: Arc<Issuer>,
    /// Where people sign in, if anywhere.
    pub oidc: Option<Arc<Oidc>>,
    /// Ends watches and followed logs, which would otherwise hold a clean stop up.
    pub stop: CancellationToken,
}

/// The context of a request, and the count of those under way.
struct Api {
    replica: Replica,
    artifacts: Artifacts,
    nodes: Nodes,
    controllers: Controllers,
    following: Following,
    tunnels: Tunnels,
    authority: Arc<CertificateAuthority>,
    clients: Arc<ClientAuthority>,
    forwarder: Forwarder,
    audit: Audit,
    stop: CancellationToken,
    permits: Permits,
    access: SharedIndex,
    topics: Topics,
    issuer: Arc<Issuer>,
    leader: LeaderCheck,
    requests: Requests,
    oidc: Option<Arc<Oidc>>,
}

/// A request whose sender is known and may do what it asks for.
struct Call {
    method: Method,
    query: Query,
    headers: HeaderMap,
    user: User,
}

pub fn router(context: ApiContext) -> Router {
    let ApiContext {
        replica,
        artifacts,
        nodes,
        controllers,
        tunnels,
        authority,
        clients,
        forwarder,
        audit,
        issuer,
        oidc,
        stop,
    } = context;
    let api = Api {
        topics: Topics::follow(replica.clone(), stop.clone()),
        replica,
        artifacts,
        nodes,
        controllers,
        following: Following::default(),
        tunnels,
        authority,
        clients,
        forwarder,
        audit,
        stop,
        permits: Permits::default(),
        leader: LeaderCheck::default(),
        requests: Requests::default(),
        access: SharedIndex::default(),
        issuer,
        oidc,
    };
    Router::new().fallback(serve).with_state(Arc::new(api))
}

async fn serve(Extract(context): Extract<Arc<Api>>, request: Request) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let target = Target::parse(&path);
    let series = Series::of(&method, target.as_ref());
    let encoding = Encoding::asked(&request, target.as_ref());
    let mut audited = Audited::begin(&request);
    let mut level = None;
    let answer = answer(&context, target, request, &mut audited, &mut level);
    let mut response = waiting::one(answer)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    context.requests.count(series, &response, started.elapsed());
    audited.answered(&context.audit, &mut response).await;
    if let Some(level) = level {
        level.tell(response.headers_mut());
    }
    let response = encoding.encode(response).await;
    tracing::debug!(
        %method,
        path,
        status = response.status().as_u16(),
        milliseconds = started.elapsed().as_millis() as u64,
        "answered"
    );
    response
}

/// `level` becomes that of the user, as soon as he is known.
async fn answer(
    context: &Api,
    target: Option<Target>,
    request: Request,
    audited: &mut Audited,
    level: &mut Option<Level>,
) -> Result<Response, ApiError> {
    limits::check_head(request.uri(), request.headers())?;
    if let Some(target) = &target
        && auth::is_public(target)
    {
        let query = request.uri().query();
        return match target {
            Target::Live(check) => {
                health::serve(context, Page::Live, check.as_deref(), query).await
            }
            Target::Ready(check) => {
                health::serve(context, Page::Ready, check.as_deref(), query).await
            }
            _ => discovery::version(),
        };
    }
    let user = auth::authenticate(context, request.extensions(), request.headers()).await?;
    *level = Some(Level::of(&user.info));
    let target = target.ok_or_else(|| auth::no_such_path(&user))?;
    // A proxied request's query is the function's affair.
    let query = match &target {
        Target::Objects(path) if path.is_proxy() => Query::default(),
        _ => Query::parse(request.uri().query())?,
    };
    // Nothing to allow or to refuse: who is known is told that there is nothing.
    if let Target::Foreign(kind, is_named) = target {
        if user.is_anonymous() {
            return Err(auth::no_such_path(&user));
        }
        let call = Call {
            method: request.method().clone(),
            query,
            headers: request.headers().clone(),
            user,
        };
        return foreign::serve(context, kind, is_named, &call);
    }
    let asked = auth::attributes(&target, request.method(), request.uri().path(), &query)?;
    audited.asks(&context.audit, &user, &asked);
    let decision = auth::authorize(context, &user, &asked).await;
    audited.decided(&decision, || auth::reason(context, &user, &asked));
    decision?;
    context
        .audit
        .admit()
        .map_err(|error| ApiError::Unavailable(error.to_string()))?;
    // Before a body is read: who waits for a turn holds next to nothing.
    let _seat = match &target {
        Target::Objects(path) if path.is_proxy() || path.is_log() || query.watch => None,
        Target::Controllers(None) if query.watch => None,
        Target::Objects(_)
        | Target::Review(..)
        | Target::NodeMetrics(_)
        | Target::FunctionMetrics { .. }
        | Target::Metered(_)
        | Target::Controllers(_) => Some(context.permits.request(&user.info).await?),
        _ => None,
    };
    let (parts, mut body) = request.into_parts();
    if audited.wants_body() {
        let sent = limits::object_body(&parts.headers, body).await?;
        audited.sent(&parts.headers, &sent);
        body = sent.into();
    }
    let call = Call {
        method: parts.method.clone(),
        query,
        headers: parts.headers.clone(),
        user,
    };
    match target {
        Target::Artifact(digest) => artifacts::serve(context, &digest, call, body).await,
        Target::Objects(path) if path.is_proxy() => {
            proxy::serve(context, path, Request::from_parts(parts, body)).await
        }
        Target::Objects(path) if path.is_token() => {
            let key = path.key().ok_or(ApiError::NoSuchPath)?;
            service_accounts::token(context, &key, call, body).await
        }
        Target::Objects(path) if path.is_log() => logs::serve(context, path, call).await,
        Target::Objects(path) if call.query.watch && path.subresource.is_none() => {
            watch::serve(context, path, call).await
        }
        Target::Backup => backup::serve(context, &call).await,
        Target::Controllers(id) => controllers::serve(context, id, call).await,
        Target::Objects(path) => resources::serve(context, path, call, body).await,
        Target::Review(review, namespace) => {
            reviews::serve(context, review, namespace, call, body).await
        }
        Target::NodeMetrics(name) => metrics::nodes(context, name, &call).await,
        Target::FunctionMetrics { namespace, name } => {
            metrics::functions(context, namespace, name, &call).await
        }
        Target::Metered(asked) => metering::serve(context, asked, &call).await,
        Target::IssuerConfiguration => service_accounts::configuration(context, &call.method),
        Target::IssuerKeys => service_accounts::keys(context, &call.method),
        Target::OpenApiIndex => openapi::index(),
        Target::OpenApi(group_version) => openapi::document(&group_version, &call.headers),
        Target::OpenApiV2 => openapi::everything(&call.headers),
        Target::Metrics => Ok(telemetry::serve(context)),
        Target::FunctionTelemetry => Ok(telemetry::functions::serve(context)),
        Target::Live(_) | Target::Ready(_) | Target::Version | Target::Foreign(..) => {
            Err(ApiError::NoSuchPath)
        }
        Target::CoreVersions | Target::Groups | Target::Group(_) | Target::Resources(_) => {
            discovery::serve(&target, &call)
        }
    }
}
