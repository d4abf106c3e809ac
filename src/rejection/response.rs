use std::{borrow::Cow, fmt, mem, sync::LazyLock};

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};

use super::{
    Challenges, Rejection, RejectionKind,
    kind::{ExtraHeader, is_error},
};
use crate::{http::Transport, random::random_below};

/// Makes the response to a rejected handshake.
///
/// [`EmptyBody`] (the default), [`PlainText`] and [`ProblemJson`] implement it, and so do functions
/// and closures; wrap a closure in [`response_fn`].
///
/// `prepared` has the status and all required headers. Usually you add a body: `prepared.map(|()|
/// body)`. The layer corrects a response that breaks the protocol: it replaces a status that is not
/// 4xx or 5xx by the prepared one, restores the headers that the protocol requires (it keeps a
/// `Retry-After` and a `WWW-Authenticate` of yours), and removes `Sec-WebSocket-Accept`.
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

impl PlainText {
    /// Makes bodies of any type. See [`ProblemJson::map_body`].
    pub const fn map_body<F>(self, body: F) -> MapBody<Self, F> {
        MapBody { response: self, body }
    }
}

#[diagnostic::do_not_recommend]
impl<B: From<String>> RejectionResponse<B> for PlainText {
    fn response(&self, rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        let body = format!("{} ({})\n", rejection.title(), rejection.kind.code());
        with_body(prepared, "text/plain; charset=utf-8", body)
    }
}

/// A response with an RFC 9457 problem: `type`, `title`, `status`, the member `code`
/// ([`RejectionKind::code`]), and `detail` if the rejection [has one](Rejection::with_detail).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ProblemJson {
    type_base: Option<Cow<'static, str>>,
}

impl ProblemJson {
    /// The `type` is [`RejectionKind::url`], or `about:blank` for a code of your own.
    pub const fn new() -> Self {
        Self { type_base: None }
    }

    /// Sets what stands before the code in `type`: with `https://errors.example.com/ws#` it is
    /// `https://errors.example.com/ws#origin-missing`, for codes of your own, too. A later call
    /// replaces an earlier one.
    pub fn type_base(self, base: impl Into<Cow<'static, str>>) -> Self {
        Self { type_base: Some(base.into()) }
    }

    /// Makes bodies of any type: `body` makes one from the text. Without it the type of the body
    /// must be `From<String>`.
    ///
    /// ```
    /// use http_body_util::{BodyExt, Full, combinators::BoxBody};
    /// use hyper::body::Bytes;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, ProblemJson};
    ///
    /// type Body = BoxBody<Bytes, std::io::Error>;
    ///
    /// fn body(text: String) -> Body {
    ///     Full::from(text).map_err(|never| match never {}).boxed()
    /// }
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .reject_with(ProblemJson::new().map_body(body));
    /// # let _ = guard;
    /// ```
    pub const fn map_body<F>(self, body: F) -> MapBody<Self, F> {
        MapBody { response: self, body }
    }

    fn type_of(&self, kind: RejectionKind) -> Cow<'static, str> {
        match (&self.type_base, kind.url()) {
            (Some(base), _) => format!("{base}{}", kind.code()).into(),
            (None, Some(url)) => url.into(),
            (None, None) => "about:blank".into(),
        }
    }
}

#[diagnostic::do_not_recommend]
impl<B: From<String>> RejectionResponse<B> for ProblemJson {
    fn response(&self, rejection: &Rejection, _: &Parts, prepared: Response<()>) -> Response<B> {
        let kind = rejection.kind;
        let mut body = format!(
            r#"{{"type":"{}","title":"{}","status":{},"code":"{}""#,
            Json(&self.type_of(kind)),
            Json(rejection.title()),
            prepared.status().as_u16(),
            Json(kind.code()),
        );
        if let Some(detail) = rejection.detail() {
            body.push_str(&format!(r#","detail":"{}""#, Json(detail)));
        }
        body.push('}');
        with_body(prepared, "application/problem+json", body)
    }
}

/// Text inside of a JSON string (RFC 8259 7).
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)) {
            let (plain, escaped) = rest.split_at(at);
            write!(f, "{plain}\\u{:04x}", escaped.as_bytes()[0])?;
            rest = &escaped[1..];
        }
        f.write_str(rest)
    }
}

/// [`PlainText`] or [`ProblemJson`] with bodies of any type. See [`ProblemJson::map_body`].
#[derive(Clone, Copy, Debug)]
pub struct MapBody<R, F> {
    response: R,
    body: F,
}

#[diagnostic::do_not_recommend]
impl<R, F, B> RejectionResponse<B> for MapBody<R, F>
where
    R: RejectionResponse<String>,
    F: Fn(String) -> B,
{
    fn response(
        &self,
        rejection: &Rejection,
        request: &Parts,
        prepared: Response<()>,
    ) -> Response<B> {
        self.response.response(rejection, request, prepared).map(&self.body)
    }
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
/// another request. `challenges` are those of a 401.
#[cfg(feature = "axum")]
pub(crate) fn reject<B>(
    rejection: Rejection,
    request: &Parts,
    response: &impl RejectionResponse<B>,
    close: bool,
    challenges: Option<&Challenges>,
) -> Response<B> {
    let mut response = respond(&rejection, request, response, close, challenges);
    response.extensions_mut().insert(rejection);
    response
}

/// [`reject`] for a request that is dropped then. axum's extractors do not drop it: other extractors
/// may follow.
pub(crate) fn reject_dropped<B>(
    rejection: Rejection,
    request: &mut Parts,
    response: &impl RejectionResponse<B>,
    close: bool,
    challenges: Option<&Challenges>,
) -> Response<B> {
    let mut response = respond(&rejection, request, response, close, challenges);
    let extensions = response.extensions_mut();
    if extensions.is_empty() {
        // To reuse the map of the request saves two allocations.
        mem::swap(extensions, &mut request.extensions);
        extensions.clear();
    }
    extensions.insert(rejection);
    response
}

fn respond<B>(
    rejection: &Rejection,
    request: &Parts,
    response: &impl RejectionResponse<B>,
    close: bool,
    challenges: Option<&Challenges>,
) -> Response<B> {
    let kind = rejection.kind;
    let transport = Transport::new(request.version);
    let required = Required::new(kind, transport, close, challenges);
    let mut prepared = Response::new(());
    let status = kind.status_over(transport);
    *prepared.status_mut() = status;
    if let Some(headers) = rejection.headers() {
        prepared.headers_mut().clone_from(headers);
    }
    required.write(prepared.headers_mut());

    let mut response = response.response(rejection, request, prepared);
    if !is_error(response.status()) {
        *response.status_mut() = status;
    }
    let status = response.status();
    let headers = response.headers_mut();
    required.restore(headers, status);
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    if transport == Transport::ExtendedConnect {
        headers.remove(UPGRADE);
        headers.remove(CONNECTION);
    }
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
    reject_dropped(rejection, &mut request, response, close, None)
}

/// The challenge where no token policy has set one.
static BEARER: LazyLock<Challenges> = LazyLock::new(|| Challenges::new(false, true));

/// The headers that the protocol requires of a rejection.
struct Required<'a> {
    status: StatusCode,
    extra: ExtraHeader,
    is_http1: bool,
    /// RFC 9110 15.5.22: a 426 must send `Upgrade`, and 7.8: with it `Connection: upgrade`.
    has_upgrade: bool,
    close: bool,
    challenges: Option<&'a Challenges>,
}

impl<'a> Required<'a> {
    fn new(
        kind: RejectionKind,
        transport: Transport,
        close: bool,
        challenges: Option<&'a Challenges>,
    ) -> Self {
        let is_http1 = transport == Transport::Http1;
        let status = kind.status();
        let has_upgrade = is_http1 && status == StatusCode::UPGRADE_REQUIRED;
        Self { status, extra: kind.row().extra, is_http1, has_upgrade, close, challenges }
    }

    /// Calls `require` with each header whose value is fixed.
    #[inline]
    fn each(&self, mut require: impl FnMut(HeaderName, HeaderValue)) {
        require(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
        match (self.has_upgrade, self.close) {
            (true, true) => {
                require(CONNECTION, const { HeaderValue::from_static("Upgrade, close") });
            }
            (true, false) => require(CONNECTION, const { HeaderValue::from_static("Upgrade") }),
            (false, true) if self.is_http1 => {
                require(CONNECTION, const { HeaderValue::from_static("close") });
            }
            _ => {}
        }
        if self.has_upgrade {
            require(UPGRADE, const { HeaderValue::from_static("websocket") });
        }
        if self.extra == ExtraHeader::Version {
            require(SEC_WEBSOCKET_VERSION, const { HeaderValue::from_static("13") });
        }
        // RFC 9110 15.5.6: a 405 must send `Allow`.
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            let method = if self.is_http1 { "GET" } else { "CONNECT" };
            require(ALLOW, HeaderValue::from_static(method));
        }
    }

    /// Writes the headers into a response that the user has not seen.
    fn write(&self, headers: &mut HeaderMap) {
        self.each(|name, value| {
            headers.insert(name, value);
        });
        self.add_others(headers, self.status);
    }

    /// Restores the headers that the user has removed or changed.
    fn restore(&self, headers: &mut HeaderMap, status: StatusCode) {
        self.each(|name, value| {
            // There are few, and usually they are there.
            let mut lines = headers.iter().filter(|(there, _)| **there == name);
            let is_right = lines.next().is_some_and(|(_, line)| *line == value);
            if !is_right || lines.next().is_some() {
                headers.insert(name, value);
            }
        });
        self.add_others(headers, status);
    }

    /// Adds a delay and a challenge. Those of the user's own stay.
    fn add_others(&self, headers: &mut HeaderMap, status: StatusCode) {
        if self.extra == ExtraHeader::RetryAfter && !headers.contains_key(RETRY_AFTER) {
            // Random, so that clients do not return at once.
            headers.insert(RETRY_AFTER, (5 + random_below(11)).into());
        }
        if headers.contains_key(WWW_AUTHENTICATE) {
            return;
        }
        // RFC 6750 3.1: the challenge names what is wrong with the token.
        let error = self.extra.bearer_error();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 15.5.2: a 401 must send a challenge.
            for challenge in self.challenges.unwrap_or_else(|| &BEARER).values(error) {
                headers.append(WWW_AUTHENTICATE, challenge.clone());
            }
        } else if let (Some(challenges), Some(_), true) =
            (self.challenges, error, status == self.status)
        {
            // RFC 6750 3: so must each response to a token that does not enable access. A user may
            // hide that there is such a thing behind another status.
            for challenge in challenges.errors(error) {
                headers.append(WWW_AUTHENTICATE, challenge.clone());
            }
        }
    }
}
