use std::{fmt, future::Future, hash::Hash, marker::PhantomData, sync::Arc, time::Duration};

use http::request::Parts;
use tower_layer::Layer;

use super::{
    AcceptThenClose, Authorize, Check, Guard,
    completes::{Forward, Respond},
    policy::{Completion, GuardConfig, Policy},
};
#[cfg(feature = "token")]
use crate::token::TokenPolicy;
use crate::{
    config::{ConfigError, nonzero},
    connection::{ConnectionLimit, Drain, Sessions},
    extension::PermessageDeflate,
    host::AllowHost,
    origin::AllowOrigin,
    rejection::EmptyBody,
    subprotocol::Subprotocols,
    upgrade::{Upgrade, Upgraded},
};

/// Applies [`Guard`]: all checks in the right order, as one service.
///
/// `R` makes the response to rejected handshakes. `C` is who completes the handshake: the inner
/// service ([`Forward`], the default) or this layer ([`Respond`]).
///
/// See the [module docs](crate::guard) for the order of the checks, and the [guides](crate::guide)
/// for what to do with it. A policy that is set twice
/// adds, or is an error; where a later call replaces an earlier one, the docs of the method say so.
///
/// ```
/// use tower_ws_guard::{
///     AllowHost, AllowOrigin, ConnectionLimit, GuardLayer, ProblemJson, StaticTokens, TokenPolicy,
/// };
///
/// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
/// let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?)
///     .allow_host(AllowHost::list(["chat.example.com"])?)
///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])?))?
///     .limit(ConnectionLimit::total(10_000)?)
///     .reject_with(ProblemJson::new());
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct GuardLayer<R = EmptyBody, C = Forward> {
    policy: Arc<Policy<R>>,
    completes: PhantomData<fn() -> C>,
}

impl GuardLayer {
    /// Accepts well-formed handshakes from the origins that `origins` allows, and forwards them to
    /// the inner service, which completes them.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::list(["https://app.example.com"])?);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(origins: AllowOrigin) -> Self {
        Self::from_config(GuardConfig { origins: Some(origins), ..GuardConfig::default() })
    }

    /// A layer with fewer steps, for the separate layers.
    pub(crate) fn from_config(config: GuardConfig) -> Self {
        let policy = Policy { config, reject_with: Arc::new(EmptyBody) };
        Self { policy: Arc::new(policy), completes: PhantomData }
    }
}

impl<R> GuardLayer<R> {
    /// Completes handshakes that the inner service accepts through a
    /// [`PendingUpgrade`](crate::PendingUpgrade). See [`upgrade`](crate::upgrade).
    ///
    /// ```
    /// use axum::{Router, routing::any};
    /// use tokio::io::AsyncWriteExt;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, PendingUpgrade};
    ///
    /// async fn handler(pending: PendingUpgrade) {
    ///     pending.on_upgrade(async |mut socket| drop(socket.write_all(b"frames").await));
    /// }
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).respond();
    /// let app: Router = Router::new().route("/ws", any(handler).layer(guard));
    /// # let _ = app;
    /// ```
    pub fn respond(self) -> GuardLayer<R, Respond> {
        self.set_completion(Completion::Pending)
    }

    /// Completes every accepted handshake, and spawns `callback` with the connection. See
    /// [`upgrade`](crate::upgrade).
    ///
    /// The service must be called inside of a Tokio runtime. If the callback needs something of the
    /// request, use [`on_upgraded_with`](Self::on_upgraded_with).
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .on_upgraded(async |mut socket| drop(socket.write_all(b"frames").await));
    /// # let _ = guard;
    /// ```
    pub fn on_upgraded<F, Fut>(self, callback: F) -> GuardLayer<R, Respond>
    where
        F: Fn(Upgraded) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_upgraded_with(|_| (), move |socket, ()| callback(socket))
    }

    /// As [`on_upgraded`](Self::on_upgraded), with a value that `from_head` takes from the head of
    /// the accepted request: its path, a header, the [`Claims`](crate::Claims) in its extensions.
    /// The head is dropped before the response is sent.
    ///
    /// Copy what you need of the URI and the headers. A `Uri` or a `HeaderValue` shares hyper's
    /// buffer, and would keep all 8 KiB of it for as long as the connection is open.
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use tower_ws_guard::{AllowOrigin, Claims, GuardLayer, StaticTokens, TokenPolicy};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])?))?
    ///     .on_upgraded_with(
    ///         |head| (head.extensions.get().cloned(), head.uri.path().to_owned()),
    ///         async |mut socket, (claims, room): (Option<Claims<&str>>, String)| {
    ///             let Some(Claims(user)) = claims else { return };
    ///             drop(socket.write_all(format!("{user} in {room}").as_bytes()).await);
    ///         },
    ///     );
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_upgraded_with<H, T, F, Fut>(self, from_head: H, callback: F) -> GuardLayer<R, Respond>
    where
        H: Fn(&Parts) -> T + Send + Sync + 'static,
        T: Send + 'static,
        F: Fn(Upgraded, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let callback = Arc::new(callback);
        let spawn = move |upgrade: Upgrade, head: &Parts| {
            let (callback, value) = (Arc::clone(&callback), from_head(head));
            upgrade.spawn(move |socket| callback(socket, value));
        };
        self.set_completion(Completion::Callback(Arc::new(spawn)))
    }

    fn set_completion(mut self, completion: Completion) -> GuardLayer<R, Respond> {
        let config = self.config();
        config.completion = completion;
        // The inner service cannot select one, so an empty list rejects every offer.
        config.subprotocols.get_or_insert_default();
        GuardLayer { policy: self.policy, completes: PhantomData }
    }
}

impl<R, C> GuardLayer<R, C> {
    /// Accepts handshakes to these hosts only. Without a call every host is accepted. A second call
    /// adds hosts.
    ///
    /// ```
    /// use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .allow_host(AllowHost::list(["localhost:3000", "127.0.0.1:3000"])?);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_host(mut self, hosts: AllowHost) -> Self {
        let there = &mut self.config().hosts;
        *there = Some(match there.take() {
            Some(others) => others.or(hosts),
            None => hosts,
        });
        self
    }

    /// Adds a [`Check`] of your own. It runs after Host and Origin, and before the token. Checks
    /// run in the order in which they are added.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, Rejection, check_fn};
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).check(check_fn(|handshake| {
    ///     if handshake.uri().path().starts_with("/rooms/") {
    ///         return Ok(());
    ///     }
    ///     Err(Rejection::custom("no-room", StatusCode::NOT_FOUND))
    /// }));
    /// # let _ = guard;
    /// ```
    pub fn check(mut self, check: impl Check + Send + Sync + 'static) -> Self {
        self.config().checks.push(Arc::new(check));
        self
    }

    /// Selects the subprotocol. Without a call the inner service selects it; with
    /// [`respond`](Self::respond) every offer is rejected. A later call replaces an earlier one.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, Subprotocols};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .subprotocols(Subprotocols::list(["v2.chat", "v1.chat"])?);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subprotocols(mut self, subprotocols: Subprotocols) -> Self {
        self.config().subprotocols = Some(subprotocols);
        self
    }

    /// Accepts clients that offer only unsupported subprotocols, and selects none.
    ///
    /// Chromium then fails the connection by itself, and tells its script nothing. Use it for
    /// clients that are not browsers.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, Subprotocols};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::default().allow_missing())
    ///     .subprotocols(Subprotocols::list(["mqtt"])?)
    ///     .accept_unmatched_subprotocols();
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept_unmatched_subprotocols(mut self) -> Self {
        self.config().accept_unmatched_subprotocols = true;
        self
    }

    /// Agrees to the compression of messages, as far as the codec can. Without a call the layer
    /// agrees to nothing. A later call replaces an earlier one.
    ///
    /// With [`respond`](Self::respond) and [`on_upgraded`](Self::on_upgraded) the response names
    /// what was agreed, and [`Upgraded::extensions`] has it for the codec. Otherwise the handler
    /// sees an offer that it can agree to, and responds. See [`extension`](crate::extension) for
    /// the codecs, and for what they must bound.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, PermessageDeflate};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .extensions(PermessageDeflate::new().server_window_bits(9..=15)?);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn extensions(mut self, extensions: PermessageDeflate) -> Self {
        self.config().extensions = Some(extensions);
        self
    }

    /// Accepts handshakes with a valid token only, and provides its [`Claims`](crate::Claims).
    ///
    /// # Errors
    ///
    /// The layer already has a token policy. Combine policies with [`TokenPolicy::or`].
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, StaticTokens, TokenPolicy};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let policy = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])?);
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone())?;
    /// assert!(guard.token(policy).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "token")]
    pub fn token<T>(mut self, policy: TokenPolicy<T>) -> Result<Self, ConfigError>
    where
        T: Clone + Send + Sync + 'static,
    {
        let token = &mut self.config().token;
        if token.is_some() {
            return Err(ConfigError::new(
                "",
                "the layer already has a token policy; combine the two with `TokenPolicy::or`",
            ));
        }
        *token = Some(policy.into_check());
        Ok(self)
    }

    /// Adds an asynchronous check of the head of the request: a look-up in a database, a policy
    /// engine, a rate in Redis. It runs after the token, whose [`Claims`](crate::Claims) are in the
    /// extensions, and before the limit. Checks run in the order in which they are added.
    ///
    /// It has what is left of the [`check_timeout`](Self::check_timeout). If it cannot tell, return
    /// [`Rejection::verifier_failed`](crate::Rejection::verifier_failed).
    /// [`AcceptThenClose`] shows only the kinds of its table to a script, and no code of your own.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use http::{StatusCode, request::Parts};
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, Rejection};
    ///
    /// # struct Database;
    /// # impl Database {
    /// #     async fn is_open(&self, _: &str) -> Result<bool, std::io::Error> { Ok(true) }
    /// # }
    /// let database = Arc::new(Database);
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).authorize(move |head: &Parts| {
    ///     let (database, room) = (database.clone(), head.uri.path().to_owned());
    ///     async move {
    ///         if database.is_open(&room).await.map_err(Rejection::verifier_failed)? {
    ///             return Ok(());
    ///         }
    ///         Err(Rejection::custom("room-closed", StatusCode::FORBIDDEN))
    ///     }
    /// });
    /// # let _ = guard;
    /// ```
    pub fn authorize<A>(mut self, authorize: A) -> Self
    where
        A: for<'a> Authorize<'a> + Send + Sync + 'static,
    {
        self.config().authorizations.push(Arc::new(authorize));
        self
    }

    /// Sets the time for the verification of the token and the [authorization](Self::authorize)
    /// together: 10 seconds by default. After it the handshake is rejected with
    /// [`VerifierTimeout`](crate::RejectionKind::VerifierTimeout), and the future that waits is
    /// dropped. A later call replaces an earlier one.
    ///
    /// A verifier that waits needs a Tokio runtime with timers, and panics without one. A verifier
    /// that is ready at once does not.
    ///
    /// # Errors
    ///
    /// The time is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard =
    ///     GuardLayer::new(AllowOrigin::same_origin()).check_timeout(Duration::from_secs(3))?;
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        self.config().check_timeout = nonzero(timeout)?;
        Ok(self)
    }

    /// Rejects handshakes without a slot, with
    /// [`OverCapacity`](crate::RejectionKind::OverCapacity). A second call adds a limit; both apply.
    ///
    /// It is the last check of the layer before the [sessions](Self::sessions). In a stack give it to
    /// the innermost layer that checks. Handlers then must [hold a permit](crate::connection).
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, ConnectionLimit, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard =
    ///     GuardLayer::new(AllowOrigin::same_origin()).limit(ConnectionLimit::total(10_000)?);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit(mut self, limit: ConnectionLimit) -> Self {
        self.config().limits.push(limit);
        self
    }

    /// Counts each connection as a session of its key, and rejects handshakes of a key that has too
    /// many, with [`TooManyConnections`](crate::RejectionKind::TooManyConnections). A second call
    /// adds sessions, such as those of an address beside those of a user.
    ///
    /// Sessions are acquired after a slot under the [limit](Self::limit). In a stack give them to
    /// the layer that verifies the token. Handlers then must [hold a permit](crate::connection).
    ///
    /// With sessions, all checks of a handshake have a minute at most, however long the
    /// [`check_timeout`](Self::check_timeout) is: [`Sessions::end`] is remembered for a minute.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, Sessions, StaticTokens, TokenPolicy, WhenFull};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let sessions = Sessions::per_claims(5, |user: &&'static str| user.to_string())?
    ///     .when_full(WhenFull::EvictOldest);
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice")])?))?
    ///     .sessions(&sessions);
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sessions<K>(mut self, sessions: &Sessions<K>) -> Self
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
    {
        self.config().sessions.push(Arc::new(sessions.clone()));
        self
    }

    /// Tells each connection to end with [`Ended::Drained`](crate::Ended::Drained) at this age, so
    /// that clients move to new servers and see new policies. The age is random between 90 % and
    /// 100 % of it, so that connections which began together do not end together. A later call
    /// replaces an earlier one.
    ///
    /// Handlers then must [hold a permit](crate::connection).
    ///
    /// # Errors
    ///
    /// The age is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .max_age(Duration::from_secs(12 * 3600))?;
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_age(mut self, age: Duration) -> Result<Self, ConfigError> {
        self.config().max_age = Some(nonzero(age)?);
        Ok(self)
    }

    /// Rejects handshakes with [`ShuttingDown`](crate::RejectionKind::ShuttingDown) after `drain`
    /// has started, and counts the connections in it. A second call adds a drain.
    ///
    /// It is the first check of the layer. In a stack give it to the outermost layer. Handlers then
    /// must [hold a permit](crate::connection).
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, Drain, GuardLayer};
    ///
    /// let drain = Drain::new();
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).drain(&drain);
    /// # let _ = guard;
    /// ```
    pub fn drain(mut self, drain: &Drain) -> Self {
        self.config().drains.push(drain.clone());
        self
    }

    /// Sets the response to rejected handshakes: [`EmptyBody`] (the default),
    /// [`PlainText`](crate::PlainText), [`ProblemJson`](crate::ProblemJson) or a closure. A later
    /// call replaces an earlier one. See [`RejectionResponse`](crate::RejectionResponse).
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, ProblemJson};
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).reject_with(ProblemJson::new());
    /// # let _ = guard;
    /// ```
    pub fn reject_with<T>(self, response: T) -> GuardLayer<T, C> {
        let policy = Policy { config: self.policy.config.clone(), reject_with: Arc::new(response) };
        GuardLayer { policy: Arc::new(policy), completes: PhantomData }
    }

    /// Shows the reason of a rejection to a browser's script, if the token check or a limit
    /// rejected. A later call replaces an earlier one. See [`AcceptThenClose`].
    ///
    /// ```
    /// use tower_ws_guard::{AcceptThenClose, AllowOrigin, GuardLayer};
    ///
    /// let guard =
    ///     GuardLayer::new(AllowOrigin::same_origin()).accept_then_close(AcceptThenClose::new());
    /// # let _ = guard;
    /// ```
    pub fn accept_then_close(mut self, accept_then_close: AcceptThenClose) -> Self {
        self.config().accept_then_close = Some(accept_then_close);
        self
    }

    /// Rejects requests that are not upgrade requests with 426
    /// [`NotWebsocket`](crate::RejectionKind::NotWebsocket). Without a call the inner service gets
    /// them.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).require_websocket();
    /// # let _ = guard;
    /// ```
    pub fn require_websocket(mut self) -> Self {
        self.config().require_websocket = true;
        self
    }

    /// Report-only mode: accepts handshakes that a policy would reject, and reports them. Malformed
    /// handshakes, and all handshakes during a drain, are still rejected.
    ///
    /// Nothing is protected then. Use it to [try out a
    /// policy](crate::guide::operating#report-only-mode) on live traffic. The rejection is in
    /// the extensions of the request as [`Reported`](crate::Reported), and in logs and metrics with
    /// the features `tracing` and `metrics`. A handshake without a valid token has no
    /// [`Claims`](crate::Claims), so handlers must take `Option<Claims<T>>`. In a stack set it on
    /// every layer.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).dangerous_report_only();
    /// # let _ = guard;
    /// ```
    pub fn dangerous_report_only(mut self) -> Self {
        self.config().report_only = true;
        self
    }

    /// Keeps the HTTP/1.1 connection open after a rejection.
    ///
    /// A proxy that takes a rejected upgrade for an accepted one can then be tricked into
    /// forwarding requests that it never saw. Use it only without a proxy in front.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// let guard = GuardLayer::new(AllowOrigin::same_origin()).dangerous_keep_connection();
    /// # let _ = guard;
    /// ```
    pub fn dangerous_keep_connection(mut self) -> Self {
        self.config().keep_connection = true;
        self
    }

    pub(super) fn policy(&self) -> &Policy<R> {
        &self.policy
    }

    pub(crate) fn config(&mut self) -> &mut GuardConfig {
        &mut Arc::make_mut(&mut self.policy).config
    }
}

impl<R> GuardLayer<R, Respond> {
    /// Sets the time that a client has to read the response: 10 seconds by default. After it the
    /// slot of the connection is free, and your code gets no connection; hyper's part of it ends
    /// when the client leaves. A later call replaces an earlier one.
    ///
    /// # Errors
    ///
    /// The time is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::same_origin())
    ///     .respond()
    ///     .upgrade_timeout(Duration::from_secs(3))?;
    /// # let _ = guard;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        self.config().upgrade_timeout = nonzero(timeout)?;
        Ok(self)
    }
}

impl<S, R, C> Layer<S> for GuardLayer<R, C> {
    type Service = Guard<S, R, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard::new(inner, Arc::clone(&self.policy))
    }
}

// Not derived, because `R` and `C` need not be `Clone` or `Debug`.
impl<R, C> Clone for GuardLayer<R, C> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy), completes: PhantomData }
    }
}

impl<R, C> fmt::Debug for GuardLayer<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer").field("config", &self.policy.config).finish_non_exhaustive()
    }
}
