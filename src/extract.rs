//! Extractors for axum: [`Claims<T>`](crate::Claims), [`Validity`], with feature `axum-ws` [`GuardedUpgrade`], and with feature
//! `responder` [`PendingUpgrade`](crate::PendingUpgrade).
//!
//! `Claims` and `PendingUpgrade` may be wrapped in `Option`.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, routing::any};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_ws_guard::{Claims, StaticTokens, TokenCheckLayer, TokenPolicy};
//!
//! async fn handler(Claims(user): Claims<&'static str>) -> &'static str {
//!     user
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let layer = TokenCheckLayer::new(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])));
//! let app = Router::new().route("/ws", any(handler).layer(layer));
//!
//! let handshake = |token: &str| {
//!     Request::get("/ws")
//!         .header("host", "server.example.com")
//!         .header("upgrade", "websocket")
//!         .header("connection", "upgrade")
//!         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
//!         .header("sec-websocket-version", "13")
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(Body::empty())
//!         .unwrap()
//! };
//! let accepted = app.clone().oneshot(handshake("s3cr3t")).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::OK);
//! let refused = app.oneshot(handshake("guess")).await.unwrap();
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! # }
//! ```

use std::{any::type_name, convert::Infallible, error::Error, fmt};

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{
    handshake::is_attempt_without_body,
    rejection::{PlainText, RejectionKind, refuse},
    token::{Claims, Validity},
};

/// The answer to a request that is no handshake is 426. To one that is, without a token check on the route whose verifier returns
/// `T`, it is 500.
impl<T, S> FromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match parts.extensions.get::<Self>() {
            Some(claims) => Ok(claims.clone()),
            None if !is_attempt_without_body(parts) => Err(not_websocket(parts)),
            None => Err(ClaimsMissing(type_name::<T>()).into_response()),
        }
    }
}

impl<T, S> OptionalFromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

fn not_websocket(request: &Parts) -> Response {
    refuse(RejectionKind::NotWebsocket.into(), request, &PlainText, false)
}

/// For claims that hold for good, and without a token check, it is `Validity::default()`.
impl<S: Send + Sync> FromRequestParts<S> for Validity {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// There are no [`Claims`] of the wanted type: the route has no token check whose verifier returns it. It is in the extensions of
/// the response.
#[derive(Clone, Copy, Debug)]
pub struct ClaimsMissing(&'static str);

impl fmt::Display for ClaimsMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no `Claims<{0}>`: put the route behind a token check whose verifier returns `{0}`", self.0)
    }
}

impl Error for ClaimsMissing {}

impl IntoResponse for ClaimsMissing {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(feature = "axum-ws")]
pub use self::upgrade::{GuardedUpgrade, PermitMissing};

#[cfg(feature = "axum-ws")]
mod upgrade {
    use std::{
        future::Future,
        sync::{Arc, Mutex, PoisonError},
    };

    use axum::extract::ws::{DefaultOnFailedUpgrade, OnFailedUpgrade, WebSocket, WebSocketUpgrade};

    use super::*;
    use crate::connection::{Permit, UPGRADE_TIMEOUT};

    /// axum's [`WebSocketUpgrade`] behind a guard: it holds the [`Permit`] of the connection as long as the callback runs.
    ///
    /// The callback is also given `E`, any extractor of axum or a tuple of them: `GuardedUpgrade<Claims<User>>`,
    /// `GuardedUpgrade<(Claims<User>, Permit)>`. `Permit` is one here: it tells when the server [drains](Permit::draining), and what the
    /// callback spawns must hold a clone of it.
    ///
    /// A request that is no handshake is answered with 426. A client that has not read the answer 10 seconds after `on_upgrade`, which is to be
    /// called last, loses its place. Without a limit and a drain, and without a guard, this is axum's extractor and nothing more: its
    /// callback may run even if the handler then answers with another status.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{Router, body::Body, extract::ws::Message, response::Response, routing::any};
    /// use http::{Request, StatusCode};
    /// use tower::ServiceExt;
    /// use tower_ws_guard::{
    ///     AllowOrigin, Claims, ConnectionLimit, GuardLayer, StaticTokens, TokenPolicy, extract::GuardedUpgrade, test_util::upgradable,
    /// };
    ///
    /// async fn handler(upgrade: GuardedUpgrade<Claims<&'static str>>) -> Response {
    ///     upgrade.map(|upgrade| upgrade.max_message_size(64 * 1024)).on_upgrade(async |mut socket, Claims(user)| {
    ///         while let Some(Ok(message)) = socket.recv().await {
    ///             let _ = socket.send(Message::text(format!("{user}: {message:?}"))).await;
    ///         }
    ///     })
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])))
    ///     .limit(ConnectionLimit::total(1)?);
    /// let app: Router = Router::new().route("/ws", any(handler).layer(guard));
    ///
    /// let handshake = || {
    ///     Request::get("/ws")
    ///         .header("host", "chat.example.com")
    ///         .header("upgrade", "websocket")
    ///         .header("connection", "upgrade")
    ///         .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    ///         .header("sec-websocket-version", "13")
    ///         .header("origin", "https://chat.example.com")
    ///         .header("authorization", "Bearer s3cr3t")
    ///         .body(Body::empty())
    ///         .unwrap()
    /// };
    /// let (request, client) = upgradable(handshake()).await;
    /// let accepted = app.clone().oneshot(request).await.unwrap();
    /// assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
    /// // As long as the first connection is open.
    /// let (request, _) = upgradable(handshake()).await;
    /// let refused = app.oneshot(request).await.unwrap();
    /// assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the handshake is declined unless `on_upgrade` is called"]
    pub struct GuardedUpgrade<E = (), F = DefaultOnFailedUpgrade> {
        upgrade: WebSocketUpgrade<F>,
        permit: Option<Permit>,
        extracted: E,
    }

    impl<E, F> GuardedUpgrade<E, F> {
        /// Configures axum's part, such as the size of messages.
        pub fn map<G>(self, map: impl FnOnce(WebSocketUpgrade<F>) -> WebSocketUpgrade<G>) -> GuardedUpgrade<E, G> {
            let Self { upgrade, permit, extracted } = self;
            GuardedUpgrade { upgrade: map(upgrade), permit, extracted }
        }
    }

    impl<E: Send + 'static, F: OnFailedUpgrade> GuardedUpgrade<E, F> {
        /// Completes the handshake, and spawns `callback` with the connection once that is there.
        pub fn on_upgrade<C, Fut>(self, callback: C) -> Response
        where
            C: FnOnce(WebSocket, E) -> Fut + Send + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            let Self { upgrade, permit, extracted } = self;
            let Some(permit) = permit else {
                return upgrade.on_upgrade(async move |socket| callback(socket, extracted).await);
            };
            // Taken by the callback, or when it is too late.
            let waiting = Arc::new(Mutex::new(Some((permit, extracted))));
            let take = |waiting: &Mutex<Option<_>>| waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            let late = Arc::downgrade(&waiting);
            let late = tokio::spawn(async move {
                tokio::time::sleep(UPGRADE_TIMEOUT).await;
                late.upgrade().map(|waiting| take(&waiting));
            });
            upgrade.on_upgrade(async move |socket| {
                late.abort();
                match take(&waiting) {
                    // hyper hands a connection over whatever the answer was.
                    Some((permit, extracted)) if !permit.is_declined() => callback(socket, extracted).await,
                    _ => {}
                }
            })
        }
    }

    impl<S, E> FromRequestParts<S> for GuardedUpgrade<E>
    where
        S: Send + Sync,
        E: FromRequestParts<S>,
    {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
            if !is_attempt_without_body(parts) {
                return Err(not_websocket(parts));
            }
            let permit = Permit::claim(&mut parts.extensions);
            let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
            let upgrade = upgrade.map_err(IntoResponse::into_response)?;
            parts.extensions.insert(Claimed(permit.clone()));
            let extracted = E::from_request_parts(parts, state).await;
            parts.extensions.remove::<Claimed>();
            Ok(Self { upgrade, permit, extracted: extracted.map_err(IntoResponse::into_response)? })
        }
    }

    /// For the extractors inside.
    #[derive(Clone)]
    struct Claimed(Option<Permit>);

    /// Inside of [`GuardedUpgrade`], behind a layer with a limit or a drain; elsewhere the answer is 500.
    impl<S: Send + Sync> FromRequestParts<S> for Permit {
        type Rejection = PermitMissing;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PermitMissing> {
            let claimed = parts.extensions.get().and_then(|Claimed(permit)| permit.clone());
            claimed.ok_or(PermitMissing(()))
        }
    }

    /// `None` outside of [`GuardedUpgrade`], too.
    impl<S: Send + Sync> OptionalFromRequestParts<S> for Permit {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get().and_then(|Claimed(permit)| permit.clone()))
        }
    }

    /// There is no [`Permit`]: the route has no layer with a limit or a drain, or the extractor is not inside of a [`GuardedUpgrade`]. It
    /// is in the extensions of the response.
    #[derive(Clone, Copy, Debug)]
    pub struct PermitMissing(());

    impl fmt::Display for PermitMissing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(
                "no `Permit`: extract it as `GuardedUpgrade<Permit>`, behind a guard with a limit or a drain; behind a responder \
                 `Upgraded` has it",
            )
        }
    }

    impl Error for PermitMissing {}

    impl IntoResponse for PermitMissing {
        fn into_response(self) -> Response {
            let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
            response.extensions_mut().insert(self);
            response
        }
    }

    impl<E, F> fmt::Debug for GuardedUpgrade<E, F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("GuardedUpgrade").field("permit", &self.permit).finish_non_exhaustive()
        }
    }
}

#[cfg(feature = "responder")]
mod responder {
    use super::*;
    use crate::responder::PendingUpgrade;

    /// The answer to a request that is no handshake is 426. To one that is, without a `ResponderLayer` on the route, it is 500.
    impl<S: Send + Sync> FromRequestParts<S> for PendingUpgrade {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
            match parts.extensions.get::<Self>() {
                Some(pending) => Ok(pending.clone()),
                None if !is_attempt_without_body(parts) => Err(not_websocket(parts)),
                None => Err(refuse(RejectionKind::NotUpgradable.into(), parts, &PlainText, true)),
            }
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for PendingUpgrade {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}
