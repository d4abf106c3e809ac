/// The accessors of a tower service that wraps another one as `inner`.
macro_rules! inner_accessors {
    () => {
        /// Gets a reference to the inner service.
        #[must_use]
        pub fn get_ref(&self) -> &S {
            &self.inner
        }

        /// Gets a mutable reference to the inner service.
        #[must_use]
        pub fn get_mut(&mut self) -> &mut S {
            &mut self.inner
        }

        /// Gives back the inner service.
        #[must_use]
        pub fn into_inner(self) -> S {
            self.inner
        }
    };
}

/// What every layer with a `policy` can be told.
macro_rules! layer_options {
    ($Layer:ident $(<$($param:ident),*>)?) => {
        fn rules(&mut self) -> &mut crate::guard::Rules {
            &mut std::sync::Arc::make_mut(&mut self.policy).rules
        }

        /// Answers refused handshakes with `responder`: [`EmptyBody`](crate::EmptyBody), the default,
        /// [`PlainText`](crate::PlainText), [`ProblemJson`](crate::ProblemJson), or a closure. See
        /// [`RespondRejection`](crate::RespondRejection).
        pub fn respond_with<T>(self, responder: T) -> $Layer<$($($param,)*)? T> {
            $Layer { policy: std::sync::Arc::new(std::sync::Arc::unwrap_or_clone(self.policy).respond_with(responder)) }
        }

        /// Answers a request that is no handshake attempt with 426
        /// [`NotWebsocket`](crate::RejectionKind::NotWebsocket), instead of passing it to the inner service.
        pub fn require_websocket(mut self) -> Self {
            self.rules().require_websocket = true;
            self
        }

        /// Refuses nothing but what is no valid handshake, and who comes when the server drains: what a policy would refuse is let in, and
        /// reported.
        ///
        /// Nothing is protected then: it is to try a policy out on live traffic. The [`Rejection`](crate::Rejection) that would have been
        /// the answer is in the extensions of the request, and in logs and metrics with the features `tracing` and `metrics`. A
        /// handshake without a valid token comes without [`Claims`](crate::Claims), so handlers take `Option<Claims<T>>`. Tell each
        /// layer of a stack.
        pub fn dangerous_report_only(mut self) -> Self {
            self.rules().report_only = true;
            self
        }

        /// Refuses handshakes for which there is no place, with [`OverCapacity`](crate::RejectionKind::OverCapacity) or
        /// [`TooManyConnections`](crate::RejectionKind::TooManyConnections). It is the last check of the layer. Give it to the innermost
        /// layer of a stack, so that it is the last of all. Handlers then have to [hold a permit](crate::connection).
        pub fn limit(mut self, limit: crate::ConnectionLimit) -> Self {
            self.rules().limit = Some(limit);
            self
        }

        /// Refuses handshakes with [`ShuttingDown`](crate::RejectionKind::ShuttingDown) once `drain` has started, and counts the
        /// connections in it. Give it to the outermost layer of a stack, so that nothing else is checked then. Handlers then have to
        /// [hold a permit](crate::connection).
        pub fn drain(mut self, drain: &crate::Drain) -> Self {
            self.rules().drain = Some(drain.clone());
            self
        }

        /// Keeps the HTTP/1.1 connection open when a handshake is refused.
        ///
        /// A proxy that takes a refused upgrade for an accepted one can then be tricked into forwarding requests that it never
        /// saw. Use it only where no proxy is in front.
        pub fn dangerous_keep_connection(mut self) -> Self {
            self.rules().keep_connection = true;
            self
        }
    };
}

macro_rules! unmatched_option {
    () => {
        /// Lets in clients none of whose subprotocols is supported, and names none in the answer.
        ///
        /// Chromium then fails the connection on its own, and tells its script nothing. For fleets without browsers.
        pub fn accept_unmatched_subprotocols(mut self) -> Self {
            self.rules().accept_unmatched_subprotocols = true;
            self
        }
    };
}

macro_rules! close_option {
    () => {
        /// Lets a browser's script see why it was refused, if it was by the token check or a limit. See
        /// [`AcceptThenClose`](crate::AcceptThenClose). The origin must be checked here or outside.
        #[cfg(feature = "responder")]
        pub fn accept_then_close(mut self, then_close: crate::AcceptThenClose) -> Self {
            self.rules().then_close = Some(then_close);
            self
        }
    };
}

macro_rules! timeout_option {
    () => {
        /// How long the checks may take, a token's verifier above all: 10 seconds by default. Then the handshake is refused with
        /// [`VerifierTimeout`](crate::RejectionKind::VerifierTimeout), and the verifier's future is dropped.
        ///
        /// A verifier that waits needs a Tokio runtime with timers therefore, and panics without. One that is ready at once does not.
        ///
        /// # Errors
        ///
        /// It is zero.
        pub fn check_timeout(mut self, timeout: std::time::Duration) -> Result<Self, crate::ConfigError> {
            self.rules().check_timeout = Some(crate::config::nonzero(timeout)?);
            Ok(self)
        }
    };
}
