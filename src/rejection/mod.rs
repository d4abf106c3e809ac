//! Rejected handshakes: the reason, and the response.
//!
//! Every layer of this crate rejects with one type, [`Rejection`]. Its [`RejectionKind`] has a
//! stable `code` for problem+json bodies, logs and metrics, and a section in the guide to
//! [rejections](crate::guide::rejections). One [`RejectionResponse`] makes the
//! response. Whatever it returns, the layers enforce the protocol: the status is 4xx or 5xx (except
//! with [`AcceptThenClose`](crate::AcceptThenClose)), the required headers are present, and
//! `Sec-WebSocket-Accept` is absent.
//!
//! The layers insert the [`Rejection`] into the extensions of the response, so that an outer layer
//! for logs or metrics can read it. Its `Display` is for the operator and names cause and fix. The
//! bodies made here are for untrusted clients and name only the cause.
//!
//! # Example
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_ws_guard::{
//!     Rejection, VersionCheckLayer, response_fn,
//!     test_util::{assert_rejected, handshake},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(VersionCheckLayer::new().reject_with(response_fn(|rejection, _, prepared| {
//!         prepared.map(|()| format!("rejected: {}", rejection.kind().code()))
//!     })))
//!     .service(service_fn(async |_: Request<()>| {
//!         Ok::<_, std::convert::Infallible>(Response::new("accepted".to_owned()))
//!     }));
//!
//! let accepted = service.clone().oneshot(handshake("/ws").build(())).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::OK);
//!
//! let old = handshake("/ws").header("sec-websocket-version", "8").build(());
//! let rejected = service.oneshot(old).await.unwrap();
//! assert_rejected(&rejected, "version-unsupported");
//! assert_eq!(rejected.status(), StatusCode::UPGRADE_REQUIRED);
//! assert_eq!(rejected.headers()["sec-websocket-version"], "13");
//! assert_eq!(rejected.body(), "rejected: version-unsupported");
//! let rejection = rejected.extensions().get::<Rejection>().unwrap();
//! assert!(rejection.to_string().contains("`8`"));
//! # }
//! ```

mod challenge;
#[cfg(feature = "axum")]
mod fault;
mod kind;
mod response;

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, RETRY_AFTER, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

#[cfg(feature = "axum")]
use self::fault::Misuse;
#[cfg(feature = "axum")]
pub(crate) use self::fault::{Asked, Fault};
#[cfg(feature = "axum")]
pub(crate) use self::response::reject;
pub(crate) use self::{
    challenge::Challenges,
    response::{reject_dropped, reject_late},
};
pub use self::{
    kind::RejectionKind,
    response::{EmptyBody, MapBody, PlainText, ProblemJson, RejectionResponse, response_fn},
};
use crate::http::field::{Escaped, OneLine};

/// A rejected handshake: its [`kind`](Self::kind), and details for the operator.
///
/// `Display` names the cause, the offending value (escaped and cut) and the fix. It is for logs,
/// not for responses.
#[derive(Clone)]
pub struct Rejection {
    kind: RejectionKind,
    value: Option<HeaderValue>,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// Boxed, because few rejections have any.
    details: Option<Box<Details>>,
}

/// What a rejection of one's own can add.
#[derive(Clone, Default)]
struct Details {
    title: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    fix: Option<Cow<'static, str>>,
    value: Option<Box<[u8]>>,
    headers: HeaderMap,
}

impl Rejection {
    /// A rejection of the given kind.
    #[must_use]
    pub const fn new(kind: RejectionKind) -> Self {
        Self { kind, value: None, source: None, details: None }
    }

    /// A rejection by a check of your own.
    ///
    /// `code` should be kebab-case and come from a small set, because it is a label in logs and
    /// metrics. A `status` that is neither 4xx nor 5xx is sent as 500.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::StatusCode;
    /// use tower_ws_guard::Rejection;
    ///
    /// let rejection = Rejection::custom("too-many-handshakes", StatusCode::TOO_MANY_REQUESTS)
    ///     .with_title("there are too many attempts to connect")
    ///     .with_detail("wait a minute")
    ///     .with_value("192.0.2.1")
    ///     .with_fix("raise the quota of this client")
    ///     .with_retry_after(Duration::from_secs(60));
    /// assert_eq!(
    ///     rejection.to_string(),
    ///     "too-many-handshakes: there are too many attempts to connect: `192.0.2.1`; \
    ///      raise the quota of this client"
    /// );
    /// ```
    #[must_use]
    pub const fn custom(code: &'static str, status: StatusCode) -> Self {
        Self::new(RejectionKind::Custom { code, status })
    }

    /// Sets the cause in plain words, in place of the [kind's](RejectionKind::title). Untrusted
    /// clients see it.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.details().title = Some(title.into());
        self
    }

    /// Sets the `detail` of [`ProblemJson`]: what is special about this case. Untrusted clients see
    /// it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.details().detail = Some(detail.into());
        self
    }

    /// Sets the fix for the operator, in place of the [kind's](RejectionKind::fix). It is never in
    /// a response.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<Cow<'static, str>>) -> Self {
        self.details().fix = Some(fix.into());
        self
    }

    /// Sets the offending value for the operator, who sees it escaped and cut. It is never in a
    /// response, and must not hold a credential.
    #[must_use]
    pub fn with_value(mut self, value: impl AsRef<[u8]>) -> Self {
        self.details().value = Some(value.as_ref().into());
        self
    }

    /// Adds a header to the response.
    ///
    /// Headers about the connection and the length of the body, and those of the handshake, are not
    /// added: the protocol decides about them. [`AcceptThenClose`](crate::AcceptThenClose) adds
    /// none.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        let is_of_protocol =
            matches!(name, CONNECTION | UPGRADE | CONTENT_LENGTH | TRANSFER_ENCODING | TRAILER)
                || name.as_str().starts_with("sec-websocket-");
        if !is_of_protocol {
            self.details().headers.append(name, value);
        }
        self
    }

    /// Sets `Retry-After`, in full seconds, rounded up.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        self.details().headers.insert(RETRY_AFTER, seconds.into());
        self
    }

    fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// [`RejectionKind::VerifierFailed`] because of `error`. Use it with `map_err` in a
    /// [`VerifyToken`](crate::VerifyToken).
    pub fn verifier_failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(RejectionKind::VerifierFailed).with_source(error)
    }

    /// Adds the error that caused the rejection. It is the [`Error::source`], and never in a
    /// response.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds the value of a header as the offending value. It must not hold a credential.
    pub(crate) fn with_header_value<'v>(
        mut self,
        value: impl Into<Option<&'v HeaderValue>>,
    ) -> Self {
        self.value = value.into().cloned();
        self
    }

    /// The reason.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The cause in plain words. It says nothing about the policy, so an untrusted client may see
    /// it.
    #[must_use]
    pub fn title(&self) -> &str {
        let title = self.details.as_ref().and_then(|details| details.title.as_deref());
        title.unwrap_or_else(|| self.kind.title())
    }

    /// What is special about this case. An untrusted client may see it.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.details.as_ref()?.detail.as_deref()
    }

    /// The fix, for the operator.
    #[must_use]
    pub fn fix(&self) -> &str {
        #[cfg(feature = "axum")]
        if let Some(misuse) = self.source.as_ref().and_then(|source| source.downcast_ref()) {
            let Misuse { fix, .. } = misuse;
            return fix;
        }
        let fix = self.details.as_ref().and_then(|details| details.fix.as_deref());
        fix.unwrap_or_else(|| self.kind.fix())
    }

    fn value(&self) -> Option<&[u8]> {
        let value = self.details.as_ref().and_then(|details| details.value.as_deref());
        value.or_else(|| self.value.as_ref().map(HeaderValue::as_bytes))
    }

    /// The headers that the response gets beside those of its kind.
    fn headers(&self) -> Option<&HeaderMap> {
        self.details.as_ref().map(|details| &details.headers)
    }
}

impl From<RejectionKind> for Rejection {
    fn from(kind: RejectionKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.code(), OneLine(self.title()))?;
        if let Some(value) = self.value() {
            write!(f, ": `{}`", Escaped(value))?;
        }
        write!(f, "; {}", OneLine(self.fix()))
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("kind", &self.kind)
            .field("value", &self.value().map(|value| Escaped(value).to_string()))
            .field("source", &self.source)
            .finish()
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The rejection that report-only mode did not make. See
/// [`dangerous_report_only`](crate::GuardLayer::dangerous_report_only).
///
/// It is in the extensions of the request for the inner services, and in those of the response for
/// outer layers. If several policies would reject, it is the first one.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a wrapper to match on, as `Reported(rejection)`")]
pub struct Reported(pub Rejection);
