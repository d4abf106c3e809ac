use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};

use super::{
    Rejection, RejectionKind,
    kind::{ExtraHeader, is_error},
};
use crate::http::Transport;

/// Makes the response to a rejected handshake.
///
/// [`EmptyBody`] (the default), [`PlainText`] and [`ProblemJson`] implement it, and so do functions
/// and closures; wrap a closure in [`response_fn`].
///
/// `prepared` has the status and all required headers. Usually you add a body:
/// `prepared.map(|()| body)`. The layer corrects a response that breaks the protocol: it replaces a
/// status that is not 4xx or 5xx by the prepared one, restores the prepared headers (it keeps a
/// `Retry-After` of yours), and removes `Sec-WebSocket-Accept`.
///
/// With [`AcceptThenClose`](crate::AcceptThenClose) the response to a rejection may complete the
/// handshake. Then `prepared` is a 101 (over HTTP/2 a 200) and stays one, and the body must be
/// empty.
///
/// `request` is the head of the rejected request. If the token was not verified, it may still hold
/// the credential: do not log its headers or its query. If the fault is in the handler's response
/// (for example `permit-unclaimed`), the request is gone, and `request` has only its method and
/// version.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make a `Response<{B}>` for a rejected handshake",
    label = "cannot make a body of type `{B}`",
    note = "the inner service's body is `{B}`: `EmptyBody`, the default, needs `{B}: Default`; \
            `PlainText` and `ProblemJson` need `{B}: From<String>`",
    note = "for any other body: `.reject_with(response_fn(|rejection, request, prepared| \
            prepared.map(|()| /* a {B} */)))`"
)]
pub trait RejectionResponse<B> {
    /// Makes the response to `request`, which was rejected because of `rejection`.
    fn response(
        &self,
        rejection: &Rejection,
        request: &Parts,
        prepared: Response<()>,
    ) -> Response<B>;
}

#[diagnostic::do_not_recommend]
impl<F, B> RejectionResponse<B> for F
where
    F: Fn(&Rejection, &Parts, Response<()>) -> Response<B>,
{
    fn response(
        &self,
        rejection: &Rejection,
        request: &Parts,
        prepared: Response<()>,
    ) -> Response<B> {
        self(rejection, request, prepared)
    }
}

/// A [`RejectionResponse`] from a closure, which then needs no type annotations.
pub fn response_fn<F, B>(response: F) -> F
where
    F: Fn(&Rejection, &Parts, Response<()>) -> Response<B>,
{
    response
}

/// A response with an empty body: `B::default()`. The default.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "written by users")]
pub struct EmptyBody;

#[diagnostic::do_not_recommend]
impl<B: Default> RejectionResponse<B> for EmptyBody {
    fn response(&self, _: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        prepared.map(|()| B::default())
    }
}

/// A response with a line of text: the title and the code.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "written by users")]
pub struct PlainText;

#[diagnostic::do_not_recommend]
impl<B: From<String>> RejectionResponse<B> for PlainText {
    fn response(&self, rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        let kind = rejection.kind;
        let body = format!("{} ({})\n", kind.title(), kind.code());
        with_body(prepared, "text/plain; charset=utf-8", body)
    }
}

/// A response with an RFC 9457 problem: `type` ([`RejectionKind::url`]), `title`, `status`, and the
/// member `code` ([`RejectionKind::code`]).
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "written by users")]
pub struct ProblemJson;

#[diagnostic::do_not_recommend]
impl<B: From<String>> RejectionResponse<B> for ProblemJson {
    fn response(&self, rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        let kind = rejection.kind;
        let body = format!(
            r#"{{"type":"{}","title":"{}","status":{},"code":"{}"}}"#,
            kind.url().as_deref().unwrap_or("about:blank"),
            kind.title(),
            prepared.status().as_u16(),
            escape_json(kind.code()),
        );
        with_body(prepared, "application/problem+json", body)
    }
}

/// Only a custom code can need this.
fn escape_json(code: &str) -> String {
    code.replace('\\', r"\\").replace('"', r#"\""#).replace(char::is_control, " ")
}

fn with_body<B: From<String>>(
    mut prepared: Response<()>,
    content_type: &'static str,
    body: String,
) -> Response<B> {
    // `AcceptThenClose`: the response to a completed handshake has no body.
    if !is_error(prepared.status()) {
        return prepared.map(|()| B::from(String::new()));
    }
    let headers = prepared.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    prepared.map(|()| B::from(body))
}

/// Makes the response to a rejected request, and enforces the protocol on it.
///
/// `close` ends an HTTP/1.x connection, so that bytes behind a rejected handshake are never read as
/// another request.
pub(crate) fn reject<B>(
    rejection: Rejection,
    request: &Parts,
    response: &impl RejectionResponse<B>,
    close: bool,
) -> Response<B> {
    let kind = rejection.kind;
    let transport = Transport::new(request.version);
    let required = Required::new(kind, transport, close);
    let mut prepared = Response::new(());
    let status = kind.status_over(transport);
    *prepared.status_mut() = status;
    required.for_each(|name, value| {
        prepared.headers_mut().insert(name, HeaderValue::from_static(value));
    });

    let mut response = response.response(&rejection, request, prepared);
    if !is_error(response.status()) {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    required.for_each(|name, value| restore(headers, name, value));
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    if transport == Transport::ExtendedConnect {
        headers.remove(UPGRADE);
        headers.remove(CONNECTION);
    }
    response.extensions_mut().insert(rejection);
    response
}

/// Rejects a handshake because of the inner service's response. The request is gone by then.
pub(crate) fn reject_late<B>(
    rejection: Rejection,
    transport: Transport,
    response: &impl RejectionResponse<B>,
    close: bool,
) -> Response<B> {
    let (mut request, ()) = http::Request::new(()).into_parts();
    if transport == Transport::ExtendedConnect {
        request.method = http::Method::CONNECT;
        request.version = http::Version::HTTP_2;
    }
    reject(rejection, &request, response, close)
}

fn restore(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    // There are few, and usually they are there.
    if headers.iter().any(|(there, other)| *there == name && other == value) {
        return;
    }
    let value = HeaderValue::from_static(value);
    match name {
        // Several challenges may stand side by side (RFC 9110 11.6.1).
        WWW_AUTHENTICATE => drop(headers.append(name, value)),
        RETRY_AFTER if headers.contains_key(RETRY_AFTER) => {}
        _ => drop(headers.insert(name, value)),
    }
}

/// The headers that the protocol requires of a rejection.
struct Required {
    status: StatusCode,
    extra: ExtraHeader,
    is_http1: bool,
    /// RFC 9110 15.5.22: a 426 must send `Upgrade`, and 7.8: with it `Connection: upgrade`.
    has_upgrade: bool,
    close: bool,
}

impl Required {
    fn new(kind: RejectionKind, transport: Transport, close: bool) -> Self {
        let is_http1 = transport == Transport::Http1;
        let status = kind.status();
        let has_upgrade = is_http1 && status == StatusCode::UPGRADE_REQUIRED;
        Self { status, extra: kind.row().extra, is_http1, has_upgrade, close }
    }

    fn for_each(&self, mut require: impl FnMut(HeaderName, &'static str)) {
        require(CACHE_CONTROL, "no-store");
        match (self.has_upgrade, self.close) {
            (true, true) => require(CONNECTION, "Upgrade, close"),
            (true, false) => require(CONNECTION, "Upgrade"),
            (false, true) if self.is_http1 => require(CONNECTION, "close"),
            _ => {}
        }
        if self.has_upgrade {
            require(UPGRADE, "websocket");
        }
        match self.extra {
            ExtraHeader::Version => require(SEC_WEBSOCKET_VERSION, "13"),
            ExtraHeader::RetryAfter => require(RETRY_AFTER, "5"),
            ExtraHeader::Nothing | ExtraHeader::InvalidToken => {}
        }
        match self.status {
            // RFC 9110 15.5.6: a 405 must send `Allow`.
            StatusCode::METHOD_NOT_ALLOWED => {
                require(ALLOW, if self.is_http1 { "GET" } else { "CONNECT" });
            }
            // RFC 9110 15.5.2: a 401 must send a challenge. RFC 6750 3: it has a parameter, and
            // `error` if there was a token.
            StatusCode::UNAUTHORIZED if self.extra == ExtraHeader::InvalidToken => {
                require(WWW_AUTHENTICATE, r#"Bearer realm="websocket", error="invalid_token""#);
            }
            StatusCode::UNAUTHORIZED => require(WWW_AUTHENTICATE, r#"Bearer realm="websocket""#),
            _ => {}
        }
    }
}
