//! Get, list, create, update, patch and delete of every kind, by one path.

mod apply;
mod collection;
mod delete;
mod scale;
mod write;

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};

use super::errors::ApiError;
use super::media::Form;
use super::path::{ObjectPath, Subresource};
use super::respond::{self, Shape};
use super::{Api, Call};
use crate::state::Key;

pub(super) async fn serve(
    context: &Api,
    path: ObjectPath,
    call: Call,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(key) = path.key() else {
        return match call.method {
            Method::GET | Method::HEAD => collection::list(context, &path, &call).await,
            Method::POST => write::create(context, &path, &call, body).await,
            Method::DELETE => delete::collection(context, &path, &call, body).await,
            _ => Err(ApiError::MethodNotAllowed),
        };
    };
    match (&path.subresource, &call.method) {
        (Some(Subresource::Scale), _) => scale::serve(context, &key, &call, body).await,
        (_, &Method::GET | &Method::HEAD) => get(context, &key, &call).await,
        (_, &Method::PUT) => write::update(context, &path, &key, &call, body).await,
        (_, &Method::PATCH) => write::patch(context, &path, &key, &call, body).await,
        (None, &Method::DELETE) => delete::one(context, &key, &call, body).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

async fn get(context: &Api, key: &Key, call: &Call) -> Result<Response, ApiError> {
    let shape = call.shape()?;
    let state = context.state_at_least(call.query.resource_version).await?;
    let object = state.get(key).ok_or_else(|| ApiError::not_found(key))?;
    Ok(respond::object(StatusCode::OK, shape, object))
}

impl Call {
    pub(super) fn shape(&self) -> Result<Shape, ApiError> {
        Ok(Shape {
            form: Form::accepted(&self.headers)?,
            include: self.query.include_object,
        })
    }
}
