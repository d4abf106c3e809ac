//! Extractors for axum: [`Claims<T>`](crate::Claims), [`Validity`], [`PendingUpgrade`], and with
//! the feature `axum-ws` [`GuardedUpgrade`].
//!
//! [`Claims`] and [`PendingUpgrade`] may be wrapped in `Option`. The guides show how to
//! [start](crate::guide::getting_started#axum), and how to [replace axum's own
//! extractor](crate::guide::migrating#from-axums-websocketupgrade).
//!
//! An upgrade request must have passed an origin check: a [`GuardLayer`](crate::GuardLayer) or an
//! [`OriginCheckLayer`](crate::OriginCheckLayer). Otherwise the response is 500
//! [`guard-missing`](crate::RejectionKind::GuardMissing), with the fix in the log. It usually means
//! that `Router::layer` was called before the route was added.
//! [`dangerous_without_origin_check`](crate::TokenCheckLayer::dangerous_without_origin_check) turns
//! that off.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, routing::any};
//! use http::StatusCode;
//! use tower::ServiceExt;
//! use tower_ws_guard::{
//!     AllowOrigin, Claims, GuardLayer, StaticTokens, TokenPolicy,
//!     test_util::{assert_rejected, handshake},
//! };
//!
//! async fn handler(Claims(user): Claims<&'static str>) -> &'static str {
//!     user
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
//! let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
//! let guard = GuardLayer::new(AllowOrigin::same_origin()).token(TokenPolicy::bearer(tokens))?;
//! let app = Router::new().route("/ws", any(handler).layer(guard));
//!
//! let request = handshake("/ws").host("chat.example.com").origin("https://chat.example.com");
//! let valid = request.clone().token("s3cr3t").build(Body::empty());
//! assert_eq!(app.clone().oneshot(valid).await.unwrap().status(), StatusCode::OK);
//! let guess = request.token("guess").build(Body::empty());
//! assert_rejected(&app.oneshot(guess).await.unwrap(), "token-invalid");
//! # Ok(())
//! # }
//! ```

use std::any::type_name;

use ::axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{
    connection::Validity,
    context::{Claims, GuardContext, Outer},
    http::transport::is_upgrade_request_head,
    rejection::{Asked, Fault, PlainText, RejectionKind, reject},
    upgrade::PendingUpgrade,
};

/// An ordinary request gets 426. An upgrade request without a token check whose verifier returns
/// `T` gets 500.
impl<T, S> FromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        require_upgrade_request(parts)?;
        require_origin_check(parts, "Claims")?;
        let claims = parts.extensions.get::<Self>().cloned();
        claims.ok_or_else(|| fault(parts, Asked::Claims(type_name::<T>())))
    }
}

/// `None` for an ordinary request, and without a token check whose verifier returns `T`.
impl<T, S> OptionalFromRequestParts<S> for Claims<T>
where
    T: Clone + Send + Sync + 'static,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Response> {
        require_origin_check(parts, "Claims")?;
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// Without a token check, and for claims that are valid forever, it is `Validity::default()`.
impl<S: Send + Sync> FromRequestParts<S> for Validity {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        require_origin_check(parts, "Validity")?;
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// An ordinary request gets 426. An upgrade request without a layer that completes handshakes gets
/// 500.
impl<S: Send + Sync> FromRequestParts<S> for PendingUpgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        require_upgrade_request(parts)?;
        require_origin_check(parts, "PendingUpgrade")?;
        let pending = parts.extensions.get::<Self>().cloned();
        pending.ok_or_else(|| fault(parts, Asked::PendingUpgrade))
    }
}

/// `None` for an ordinary request, and without a layer that completes handshakes.
impl<S: Send + Sync> OptionalFromRequestParts<S> for PendingUpgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Response> {
        require_origin_check(parts, "PendingUpgrade")?;
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

#[expect(clippy::result_large_err, reason = "axum's rejections are responses")]
fn require_upgrade_request(request: &Parts) -> Result<(), Response> {
    if is_upgrade_request_head(request) {
        return Ok(());
    }
    Err(reject(RejectionKind::NotWebsocket.into(), request, &PlainText, false, None))
}

/// Rejects an upgrade request that no origin check has seen.
#[expect(clippy::result_large_err, reason = "axum's rejections are responses")]
fn require_origin_check(request: &Parts, extractor: &'static str) -> Result<(), Response> {
    if GuardContext::is_origin_checked(&request.extensions) || !is_upgrade_request_head(request) {
        return Ok(());
    }
    Err(fault(request, Asked::OriginCheck(extractor)))
}

/// The response to a handler that asked for what no layer provides. The nearest layer makes it in
/// the configured format and records it.
fn fault(request: &Parts, asked: Asked) -> Response {
    if Outer::new(&request.extensions).has_guard {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(Fault { asked, request: request.clone() });
        return response;
    }
    let rejection = asked.rejection(None);
    #[cfg(feature = "tracing")]
    crate::telemetry::log_unprotected(&rejection, request.uri.path());
    reject(rejection, request, &PlainText, true, None)
}

#[cfg(feature = "axum-ws")]
pub use self::upgrade::GuardedUpgrade;

#[cfg(feature = "axum-ws")]
mod upgrade {
    use std::{
        fmt,
        future::Future,
        pin::Pin,
        sync::{Arc, Mutex, Weak},
        task::{Context, Poll, ready},
    };

    use ::axum::extract::ws::{
        DefaultOnFailedUpgrade, OnFailedUpgrade, WebSocket, WebSocketUpgrade,
    };
    use http::HeaderValue;
    use pin_project_lite::pin_project;

    use super::{
        Asked, FromRequestParts, GuardContext, IntoResponse, OptionalFromRequestParts, Parts,
        PendingUpgrade, Response, fault, require_origin_check, require_upgrade_request,
    };
    use crate::{
        connection::{Permit, Validity},
        lock::lock,
        upgrade::{Handover, PendingDecision, UPGRADE_TIMEOUT},
    };

    /// axum's [`WebSocketUpgrade`] behind a guard. It holds the [`Permit`] of the connection for as
    /// long as the callback runs.
    ///
    /// The callback also gets `E`: any axum extractor or a tuple of them, such as
    /// `GuardedUpgrade<Claims<User>>` or `GuardedUpgrade<(Claims<User>, Permit)>`. `Permit` is an
    /// extractor here: it tells when the connection [must end](Permit::ended), and tasks that the
    /// callback spawns must hold a clone of it.
    ///
    /// The callback runs only if the response that leaves the outermost layer of this crate
    /// completes the handshake. See [`upgrade`](crate::upgrade#when-the-connection-is-handed-over).
    ///
    /// axum's codec has no extensions, so nothing is compressed, whatever the guard may agree to.
    ///
    /// The response to an ordinary request is 426. A client must read the response within 10
    /// seconds after the handshake was accepted, or it loses its slot. Call
    /// [`on_upgrade`](Self::on_upgrade) last.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{Router, body::Body, extract::ws::Message, response::Response, routing::any};
    /// use tower::ServiceExt;
    /// use tower_ws_guard::{
    ///     AllowOrigin, Claims, ConnectionLimit, GuardLayer, StaticTokens, TokenPolicy,
    ///     axum::GuardedUpgrade,
    ///     test_util::{assert_accepted, assert_rejected, handshake},
    /// };
    ///
    /// async fn handler(upgrade: GuardedUpgrade<Claims<&'static str>>) -> Response {
    ///     let upgrade = upgrade.map(|upgrade| upgrade.max_message_size(64 * 1024));
    ///     upgrade.on_upgrade(async |mut socket, Claims(user)| {
    ///         while let Some(Ok(message)) = socket.recv().await {
    ///             let _ = socket.send(Message::text(format!("{user}: {message:?}"))).await;
    ///         }
    ///     })
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])?))?
    ///     .limit(ConnectionLimit::total(1)?);
    /// let app: Router = Router::new().route("/ws", any(handler).layer(guard));
    ///
    /// let valid = handshake("/ws")
    ///     .host("chat.example.com")
    ///     .origin("https://chat.example.com")
    ///     .token("s3cr3t");
    /// let (request, client) = valid.clone().upgradable(Body::empty()).await;
    /// assert_accepted(&app.clone().oneshot(request).await.unwrap());
    /// // As long as the first connection is open.
    /// let (request, _) = valid.upgradable(Body::empty()).await;
    /// assert_rejected(&app.oneshot(request).await.unwrap(), "over-capacity");
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the handshake is declined unless `on_upgrade` is called"]
    pub struct GuardedUpgrade<E = (), F = DefaultOnFailedUpgrade> {
        upgrade: WebSocketUpgrade<F>,
        subprotocol: Option<HeaderValue>,
        permit: Permit,
        handover: Handover,
        /// `None` if a layer decides whether the connection is handed over.
        decision: Option<PendingDecision>,
        extracted: E,
    }

    impl<E, F> GuardedUpgrade<E, F> {
        /// The subprotocol that the guard selected, which the response will name.
        /// `WebSocket::protocol` returns the same.
        #[must_use]
        pub fn subprotocol(&self) -> Option<&str> {
            self.subprotocol.as_ref().and_then(|subprotocol| subprotocol.to_str().ok())
        }

        /// Configures axum's part, such as the size of messages.
        ///
        /// Do not call `protocols` if the guard has [`Subprotocols`](crate::Subprotocols): the
        /// response names the one that the guard selected.
        pub fn map<G>(
            self,
            map: impl FnOnce(WebSocketUpgrade<F>) -> WebSocketUpgrade<G>,
        ) -> GuardedUpgrade<E, G> {
            let Self { upgrade, subprotocol, permit, handover, decision, extracted } = self;
            let upgrade = map(upgrade);
            GuardedUpgrade { upgrade, subprotocol, permit, handover, decision, extracted }
        }
    }

    impl<E: Send + 'static, F: OnFailedUpgrade> GuardedUpgrade<E, F> {
        /// Accepts the handshake, and spawns `callback` with the connection.
        pub fn on_upgrade<C, Fut>(self, callback: C) -> Response
        where
            C: FnOnce(WebSocket, E) -> Fut + Send + 'static,
            Fut: Future<Output = ()> + Send + 'static,
        {
            let Self { upgrade, permit, handover, decision, extracted, .. } = self;
            // Either the callback or the timeout takes the value.
            let waiting = Arc::new(Mutex::new(Some((permit, extracted))));
            let expiry = tokio::spawn(expire(Arc::downgrade(&waiting), handover.clone()));
            let mut response = upgrade.on_upgrade(move |socket| {
                expiry.abort();
                Task::Waiting { handover, waiting, callback: Some((callback, socket)) }
            });
            if let Some(decision) = decision {
                decision.pass_on(&mut response);
            }
            response
        }
    }

    pin_project! {
        /// The task of a connection. An `async` block would have room for the socket twice.
        #[project = TaskProj]
        enum Task<E, C, Fut> {
            Waiting {
                handover: Handover,
                waiting: Arc<Waiting<E>>,
                callback: Option<(C, WebSocket)>,
            },
            Running {
                #[pin]
                future: Fut,
                permit: Permit,
            },
        }
    }

    impl<E, C, Fut> Future for Task<E, C, Fut>
    where
        C: FnOnce(WebSocket, E) -> Fut,
        Fut: Future<Output = ()>,
    {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            loop {
                match self.as_mut().project() {
                    TaskProj::Waiting { handover, waiting, callback } => {
                        // hyper hands over a connection behind any response.
                        if !ready!(handover.poll_completed(cx)) {
                            return Poll::Ready(());
                        }
                        let (Some((permit, extracted)), Some((callback, socket))) =
                            (take(waiting), callback.take())
                        else {
                            return Poll::Ready(());
                        };
                        let future = callback(socket, extracted);
                        self.set(Self::Running { future, permit });
                    }
                    TaskProj::Running { future, .. } => return future.poll(cx),
                }
            }
        }
    }

    type Waiting<E> = Mutex<Option<(Permit, E)>>;

    fn take<E>(waiting: &Waiting<E>) -> Option<(Permit, E)> {
        lock(waiting).take()
    }

    /// Frees the slot of a connection that is not handed over, or not in time.
    async fn expire<E>(waiting: Weak<Waiting<E>>, handover: Handover) {
        if handover.completed().await {
            tokio::time::sleep(UPGRADE_TIMEOUT).await;
        }
        if let Some(waiting) = waiting.upgrade() {
            drop(take(&waiting));
        }
    }

    impl<S, E> FromRequestParts<S> for GuardedUpgrade<E>
    where
        S: Send + Sync,
        E: FromRequestParts<S>,
    {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
            require_upgrade_request(parts)?;
            require_origin_check(parts, "GuardedUpgrade")?;
            if parts.extensions.get::<PendingUpgrade>().is_some() {
                return Err(fault(parts, Asked::GuardedUpgrade));
            }
            let context = parts.extensions.get::<GuardContext>().cloned().unwrap_or_default();
            let permit = Permit::claim(&mut parts.extensions);
            let permit = permit.unwrap_or_else(|| Permit::without_limit(Validity::default()));
            let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
            let mut upgrade = upgrade.map_err(IntoResponse::into_response)?;
            let subprotocol = context.subprotocol;
            if let Some(subprotocol) = subprotocol.as_ref().and_then(|value| value.to_str().ok()) {
                upgrade = upgrade.protocols([subprotocol.to_owned()]);
            }
            let (handover, decision) = match context.handover {
                Some(handover) => (handover, None),
                None => {
                    let handover = Handover::taken();
                    (handover.clone(), Some(PendingDecision::new(handover)))
                }
            };

            GuardContext::get_or_insert(&mut parts.extensions).permit = Some(permit.clone());
            let extracted = E::from_request_parts(parts, state).await;
            GuardContext::get_or_insert(&mut parts.extensions).permit = None;
            let extracted = extracted.map_err(IntoResponse::into_response)?;
            Ok(Self { upgrade, subprotocol, permit, handover, decision, extracted })
        }
    }

    /// Inside of [`GuardedUpgrade`]. Elsewhere the response is 500.
    impl<S: Send + Sync> FromRequestParts<S> for Permit {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
            require_origin_check(parts, "Permit")?;
            permit(parts).ok_or_else(|| fault(parts, Asked::Permit))
        }
    }

    /// `None` outside of [`GuardedUpgrade`], too.
    impl<S: Send + Sync> OptionalFromRequestParts<S> for Permit {
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Response> {
            require_origin_check(parts, "Permit")?;
            Ok(permit(parts))
        }
    }

    fn permit(request: &Parts) -> Option<Permit> {
        request.extensions.get::<GuardContext>()?.permit.clone()
    }

    impl<E, F> fmt::Debug for GuardedUpgrade<E, F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("GuardedUpgrade").field("permit", &self.permit).finish_non_exhaustive()
        }
    }
}
