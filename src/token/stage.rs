use std::{
    convert::Infallible,
    future::{Future, Ready},
    pin::Pin,
    sync::Arc,
};

use http::{Request, Response, request::Parts};
use tower_service::Service;

use super::{Claims, Token, TokenPolicy, TokenSource, Verified, VerifyToken, source::Credential};
use crate::{
    connection::{Issued, within},
    guard::{Policy, Refused},
    handshake::Handshake,
    observe,
    rejection::{Rejection, RejectionKind, RespondRejection},
};

/// How a [`Guard`](crate::Guard) looks for a token: not at all, or as a [`TokenPolicy`] says.
#[expect(unnameable_types, reason = "sealed: a guard looks for a token or it does not")]
pub trait TokenStage {
    /// What is kept of the credential until all other checks have passed.
    type Token;

    /// Where the token may be; empty if none is looked for.
    fn sources(&self) -> &[TokenSource];

    /// The one credential; `None` if none is looked for.
    fn find(&self, handshake: &Handshake<'_>) -> Result<Option<Self::Token>, Rejection>;

    /// Takes the credential out of the request.
    fn strip(&self, request: &mut Parts) -> Result<(), Rejection>;
}

/// How a [`Guard`](crate::Guard) goes on to its inner service `S` with a token, when it is verified.
#[expect(unnameable_types, reason = "sealed: a guard looks for a token or it does not")]
pub trait Verify<S: Service<Request<B>>, B, C, R>: TokenStage + Sized {
    /// Resolves to the inner service's future, or to the refusal.
    type Verification: Future<Output = Result<Going<S::Future>, S::Response>>;

    /// Verifies `token` and calls `inner`.
    fn verify(
        policy: &Arc<Policy<C, Self, R>>,
        inner: &mut S,
        token: Self::Token,
        request: Request<B>,
    ) -> Self::Verification;
}

/// A handshake that is let in.
#[derive(Debug)]
#[expect(unnameable_types, reason = "sealed: a guard looks for a token or it does not")]
pub struct Going<F> {
    /// Of the inner service.
    pub(crate) future: F,
    pub(crate) issued: Option<Issued>,
    /// A refusal that is only reported.
    pub(crate) reported: Option<Rejection>,
}

/// No token is looked for: the default of [`Guard`](crate::Guard) and [`GuardLayer`](crate::GuardLayer).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NoToken;

impl TokenStage for NoToken {
    type Token = Infallible;

    fn sources(&self) -> &[TokenSource] {
        &[]
    }

    fn find(&self, _: &Handshake<'_>) -> Result<Option<Infallible>, Rejection> {
        Ok(None)
    }

    fn strip(&self, _: &mut Parts) -> Result<(), Rejection> {
        Ok(())
    }
}

impl<S: Service<Request<B>>, B, C, R> Verify<S, B, C, R> for NoToken {
    type Verification = Ready<Result<Going<S::Future>, S::Response>>;

    fn verify(_: &Arc<Policy<C, Self, R>>, _: &mut S, token: Infallible, _: Request<B>) -> Self::Verification {
        match token {}
    }
}

impl<V: VerifyToken> TokenStage for TokenPolicy<V> {
    type Token = Token;

    fn sources(&self) -> &[TokenSource] {
        &self.sources
    }

    fn find(&self, handshake: &Handshake<'_>) -> Result<Option<Token>, Rejection> {
        let mut only: Option<(usize, Credential<'_>)> = None;
        let mut ambiguous = false;
        for (index, source) in self.sources.iter().enumerate() {
            let mut found = |credential| ambiguous |= only.replace((index, credential)).is_some();
            source.find(handshake.uri(), handshake.headers(), handshake.subprotocols(), &mut found);
        }
        match only {
            None => Err(RejectionKind::TokenMissing.into()),
            Some(_) if ambiguous => Err(RejectionKind::TokenAmbiguous.into()),
            Some((index, credential)) => match credential.decode() {
                Some(token) => Ok(Some(Token::found(token, &self.sources, index))),
                None => Err(RejectionKind::TokenInvalid.into()),
            },
        }
    }

    fn strip(&self, request: &mut Parts) -> Result<(), Rejection> {
        if self.keep_credential {
            return Ok(());
        }
        // Fails closed: a credential that cannot be taken out goes no further.
        let invalid = |error| Rejection::new(RejectionKind::TokenInvalid).with_source(Box::new(error));
        for source in &*self.sources {
            source.strip_headers(&mut request.headers);
            source.strip_uri(&mut request.uri).map_err(invalid)?;
            #[cfg(feature = "axum")]
            if let Some(original) = request.extensions.get_mut::<axum::extract::OriginalUri>() {
                source.strip_uri(&mut original.0).map_err(invalid)?;
            }
        }
        Ok(())
    }
}

impl<S, B, C, V, R, ResBody> Verify<S, B, C, R> for TokenPolicy<V>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    C: Send + Sync + 'static,
    V: VerifyToken,
    R: RespondRejection<ResBody> + Send + Sync + 'static,
{
    type Verification = Pin<Box<dyn Future<Output = Result<Going<S::Future>, S::Response>> + Send>>;

    fn verify(
        policy: &Arc<Policy<C, Self, R>>,
        inner: &mut S,
        token: Token,
        request: Request<B>,
    ) -> Self::Verification {
        let policy = Arc::clone(policy);
        // The clone may not be ready, the original is: https://docs.rs/tower-service/0.3/tower_service/trait.Service.html
        let clone = inner.clone();
        let mut inner = std::mem::replace(inner, clone);
        Box::pin(async move {
            let rules = &policy.rules;
            let (mut parts, body) = request.into_parts();
            let ended =
                || Rejection::new(RejectionKind::TokenInvalid).with_source("its claims have expired or are revoked");
            let verified = within(rules.check_timeout(), policy.token.verifier.verify(token, &parts)).await;
            let verified = match verified {
                Some(Ok(verified)) if verified.validity.has_ended() => Err(ended()),
                Some(verified) => verified,
                None => Err(RejectionKind::VerifierTimeout.into()),
            };
            let mut reported = None;
            let entered = rules.judge(verified, &mut reported).map_err(Refused::at_last).and_then(|verified| {
                if let Some(Verified { claims, validity }) = verified {
                    parts.extensions.insert(Claims(claims));
                    // A token check outside may have set limits, too.
                    let validity = validity.and(parts.extensions.get());
                    if validity.is_limited() {
                        parts.extensions.insert(validity);
                    }
                }
                rules.enter(&mut parts, &mut reported)
            });
            match entered {
                Ok(issued) => {
                    if let Some(rejection) = &reported {
                        observe::report(&mut parts, rejection.clone());
                    }
                    let future = inner.call(Request::from_parts(parts, body));
                    Ok(Going { future, issued, reported })
                }
                Err(refused) => Err(rules.refuse(refused, &parts, &policy.responder)),
            }
        })
    }
}
