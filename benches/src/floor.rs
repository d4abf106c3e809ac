//! Hand-written bounds in safe code: what a handshake costs without layers, policies and reasons.
//!
//! They check the method, the versions, `Connection`, `Upgrade`, one exact origin and the shape of
//! the key, and nothing else: no `Host`, no repeated or malformed fields, no body.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::body::Body;
use futures_util::future::Either;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use tower::Service;
use tower_ws_guard::accept_key;

use crate::input;

/// Responds to handshakes from the origin of the input, and drops the connection.
pub fn respond<B>(mut request: Request<B>) -> Ready<Result<Response<()>, Infallible>> {
    let response = match check(&request) {
        Ok(key) => switch(&key),
        Err(status) => status_only(status),
    };
    drop(hyper::upgrade::on(&mut request));
    ready(Ok(response))
}

/// The key, or why there is none.
pub fn check<B>(request: &Request<B>) -> Result<[u8; 24], StatusCode> {
    let (mut connection, mut upgrade, mut version, mut origin) = (false, false, false, false);
    let mut key = None;
    // One pass is cheaper than five look-ups.
    for (name, value) in request.headers() {
        match *name {
            CONNECTION => connection |= has_token(value, b"upgrade"),
            UPGRADE => upgrade |= has_token(value, b"websocket"),
            SEC_WEBSOCKET_VERSION => version = value == "13",
            SEC_WEBSOCKET_KEY => key = <[u8; 24]>::try_from(value.as_bytes()).ok(),
            ORIGIN => origin = value == input::ORIGIN,
            _ => {}
        }
    }
    if !origin {
        return Err(StatusCode::FORBIDDEN);
    }
    let is_http = *request.method() == Method::GET && request.version() == Version::HTTP_11;
    let is_base64 = |key: &[u8; 24]| {
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        key[..22].iter().all(is_digit) && key[22..] == *b"=="
    };
    match key {
        Some(key) if is_http && connection && upgrade && version && is_base64(&key) => Ok(key),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

pub fn switch<B: Default>(key: &[u8; 24]) -> Response<B> {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_bytes(&accept_key(key)).expect("base64 is a valid value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let mut response = status_only(StatusCode::SWITCHING_PROTOCOLS);
    *response.headers_mut() = headers;
    response
}

pub fn status_only<B: Default>(status: StatusCode) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = status;
    response
}

fn has_token(list: &HeaderValue, token: &[u8]) -> bool {
    list.as_bytes()
        .split(|byte| *byte == b',')
        .any(|it| it.trim_ascii().eq_ignore_ascii_case(token))
}

/// For [`Around`]: responds, and spawns a task for the connection.
pub(crate) fn complete(request: &mut Request<Body>) -> Response<Body> {
    match check(request) {
        Ok(key) => {
            let upgrade = hyper::upgrade::on(request);
            tokio::spawn(async { drop(upgrade.await) });
            switch(&key)
        }
        Err(status) => status_only(status),
    }
}

/// Completes handshakes. Other requests reach the inner service.
#[derive(Clone)]
pub(crate) struct Around<S> {
    pub(crate) inner: S,
    pub(crate) complete: fn(&mut Request<Body>) -> Response<Body>,
}

impl<S> Service<Request<Body>> for Around<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match request.headers().contains_key(SEC_WEBSOCKET_KEY) {
            true => Either::Left(ready(Ok((self.complete)(&mut request)))),
            false => Either::Right(self.inner.call(request)),
        }
    }
}
