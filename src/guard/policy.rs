use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
    request::Parts,
};

use super::Check;
#[cfg(feature = "responder")]
use crate::close::AcceptThenClose;
use crate::{
    connection::{ConnectionLimit, Drain, Issued, Permit},
    handshake::{Handshake, Transport, canonicalise, set_header},
    observe,
    origin::{AllowHost, AllowOrigin},
    rejection::{EmptyBody, Rejection, RejectionKind, RespondRejection, refuse, refuse_late},
    subprotocol::{Chosen, Subprotocols, choose},
    token::{NoToken, TokenSource, TokenStage},
};

/// What a [`Guard`](super::Guard) checks, and how it refuses.
#[derive(Clone, Debug)]
#[expect(unnameable_types, reason = "what a guard holds is its own affair")]
pub struct Policy<C, V, R> {
    pub(crate) rules: Rules,
    pub(crate) checks: C,
    pub(crate) token: V,
    pub(crate) responder: R,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) hosts: Option<AllowHost>,
    pub(crate) origins: Option<AllowOrigin>,
    pub(crate) subprotocols: Option<Subprotocols>,
    pub(crate) accept_unmatched_subprotocols: bool,
    pub(crate) require_websocket: bool,
    pub(crate) keep_connection: bool,
    pub(crate) report_only: bool,
    pub(crate) check_timeout: Option<Duration>,
    pub(crate) limit: Option<ConnectionLimit>,
    pub(crate) drain: Option<Drain>,
    #[cfg(feature = "responder")]
    pub(crate) then_close: Option<AcceptThenClose>,
}

/// A refusal, and whether it was made at last, by the token check or by a limit: all other checks have passed.
pub(crate) struct Refused {
    pub(crate) rejection: Rejection,
    at_last: bool,
}

impl Refused {
    pub(crate) const fn at_last(rejection: Rejection) -> Self {
        Self { rejection, at_last: true }
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, at_last: false }
    }
}

impl Rules {
    /// Chooses one of `offered`, which is what the handshake offers without its token carriers. `markers` are those that may
    /// come with a token.
    pub(crate) fn choose_subprotocol<'a, I>(
        &self,
        handshake: &Handshake<'_>,
        offered: impl Fn() -> I,
        markers: impl Iterator<Item = &'a HeaderValue>,
    ) -> Result<Option<HeaderValue>, Rejection>
    where
        I: Iterator<Item = &'a str>,
    {
        match choose(self.subprotocols.as_ref(), handshake, offered, markers) {
            Err(_) if self.accept_unmatched_subprotocols => Ok(None),
            chosen => chosen,
        }
    }

    /// Answers a refused attempt.
    pub(crate) fn refuse<B>(
        &self,
        refused: impl Into<Refused>,
        request: &Parts,
        responder: &impl RespondRejection<B>,
    ) -> Response<B> {
        let Refused { rejection, at_last: _at_last } = refused.into();
        #[cfg(feature = "responder")]
        if let Some(then_close) = self.then_close.as_ref().filter(|_| _at_last)
            && let Some(response) = then_close.answer(&rejection, request, responder)
        {
            return response;
        }
        // What is no attempt has nothing behind it that could be mistaken.
        let close = !self.keep_connection && rejection.kind() != RejectionKind::NotWebsocket;
        refuse(rejection, request, responder, close)
    }

    /// A server that is going down looks at nothing else.
    pub(crate) fn check_drain(&self) -> Result<(), Rejection> {
        match self.drain.as_ref().is_some_and(Drain::has_started) {
            true => Err(RejectionKind::ShuttingDown.into()),
            false => Ok(()),
        }
    }

    /// How long the checks may take.
    pub(crate) fn check_timeout(&self) -> Duration {
        self.check_timeout.unwrap_or(Duration::from_secs(10))
    }

    /// The last check: takes a place for the connection, and leaves its [`Permit`] in the extensions.
    pub(crate) fn enter(&self, request: &mut Parts, report: &mut Option<Rejection>) -> Result<Option<Issued>, Refused> {
        if self.limit.is_none() && self.drain.is_none() {
            return Ok(None);
        }
        let places = self.limit.as_ref().map_or_else(|| Ok(Vec::new()), |limit| limit.enter(request));
        let places = self.judge(places, report).map_err(Refused::at_last)?.unwrap_or_default();
        let issued = Permit::issue(places, self.drain.as_ref(), &mut request.extensions, self.report_only);
        Ok(Some(issued.map_err(Rejection::from)?))
    }

    /// A policy on trial breaks no page that is at the same path.
    pub(crate) fn requires_websocket(&self) -> bool {
        self.require_websocket && !self.report_only
    }

    /// Passes on what a policy says; in report-only mode a refusal becomes a report.
    pub(crate) fn judge<T>(
        &self,
        verdict: Result<T, Rejection>,
        report: &mut Option<Rejection>,
    ) -> Result<Option<T>, Rejection> {
        match verdict {
            Ok(passed) => Ok(Some(passed)),
            Err(rejection) if self.report_only => {
                report.get_or_insert(rejection);
                Ok(None)
            }
            Err(rejection) => Err(rejection),
        }
    }
}

impl Policy<(), NoToken, EmptyBody> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, checks: (), token: NoToken, responder: EmptyBody }
    }
}

impl<C, V, R> Policy<C, V, R> {
    pub(crate) fn check<D>(self, check: D) -> Policy<(C, D), V, R> {
        let Self { rules, checks, token, responder } = self;
        Policy { rules, checks: (checks, check), token, responder }
    }

    pub(crate) fn token<W>(self, token: W) -> Policy<C, W, R> {
        let Self { rules, checks, responder, .. } = self;
        Policy { rules, checks, token, responder }
    }

    pub(crate) fn respond_with<T>(self, responder: T) -> Policy<C, V, T> {
        let Self { rules, checks, token, .. } = self;
        Policy { rules, checks, token, responder }
    }
}

impl<C: Check, V: TokenStage, R> Policy<C, V, R> {
    /// Makes all checks but those that wait for the verification of the token, and brings the request into its canonical form.
    ///
    /// There is no token if none is looked for, or if there is none and that is only reported.
    pub(crate) fn admit(&self, request: &mut Parts) -> Result<(Option<V::Token>, Finish), Refused> {
        self.rules.check_drain()?;
        let sources = self.token.sources();
        if !sources.is_empty() {
            hide_credentials(&mut request.headers);
        }

        let rules = &self.rules;
        let mut report = None;
        let mut handshake = Handshake::parse(request)?;
        if let Some(hosts) = &rules.hosts {
            rules.judge(hosts.check(&handshake), &mut report)?;
        }
        if let Some(origins) = &rules.origins {
            rules.judge(origins.check(&handshake), &mut report)?;
        }
        rules.judge(self.checks.check(&mut handshake), &mut report)?;

        let offered = || without_carriers(handshake.subprotocols(), sources);
        let markers = sources.iter().filter_map(TokenSource::marker);
        let chosen = rules.choose_subprotocol(&handshake, offered, markers);
        // One that is unsupported and only reported is left to the inner service.
        let chooses = rules.subprotocols.is_some() && chosen.is_ok();
        let chosen = rules.judge(chosen, &mut report)?.flatten();
        let token = self.token.find(&handshake);

        let offer = match chooses {
            true => Offer::Only(chosen.clone()),
            false if offered().count() == handshake.subprotocols().count() => Offer::Untouched,
            false => Offer::Only(join(offered())),
        };
        let (transport, key, canonical) = (handshake.transport(), handshake.key(), handshake.canonical());
        if let Offer::Only(offer) = offer {
            set_header(&mut request.headers, SEC_WEBSOCKET_PROTOCOL, offer);
        }
        canonicalise(&mut request.headers, canonical, key);
        self.token.strip(request)?;
        if let Some(chosen) = &chosen {
            request.extensions.insert(Chosen(chosen.clone()));
        }
        // Refused only now, so that what answers it sees no credential.
        let token = rules.judge(token, &mut report).map_err(Refused::at_last)?.flatten();
        let issued = match token {
            // It takes a place when the token is verified.
            Some(_) => None,
            None => rules.enter(request, &mut report)?,
        };
        if let Some(report) = report {
            observe::report(request, report);
        }
        let subprotocol = match chosen {
            chosen if chooses => Echo::Exactly(chosen),
            Some(marker) => Echo::Fallback(marker),
            None => Echo::Nothing,
        };
        let (close, report_only) = (!rules.keep_connection, rules.report_only);
        Ok((token, Finish { transport, close, report_only, subprotocol, issued }))
    }
}

enum Offer {
    Untouched,
    Only(Option<HeaderValue>),
}

/// `Debug` of the request, in a responder or a service behind, must not show them.
fn hide_credentials(headers: &mut HeaderMap) {
    for (name, value) in headers {
        if [AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL].contains(name) {
            value.set_sensitive(true);
        }
    }
}

fn without_carriers<'a>(
    offered: impl Iterator<Item = &'a str>,
    sources: &'a [TokenSource],
) -> impl Iterator<Item = &'a str> {
    let mut previous = None;
    offered.filter(move |offer| {
        let is_carrier = sources.iter().any(|source| source.is_carrier(previous, offer));
        previous = Some(*offer);
        !is_carrier
    })
}

fn join<'a>(subprotocols: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let joined = subprotocols.collect::<Vec<_>>().join(", ");
    // Tokens and commas are a valid value.
    HeaderValue::try_from(joined).ok().filter(|value| !value.is_empty())
}

/// What a guard does to the answer of its inner service to a handshake that it let in.
#[derive(Debug)]
pub(crate) struct Finish {
    transport: Transport,
    close: bool,
    report_only: bool,
    subprotocol: Echo,
    /// To whom the inner service must have given a home, if it completes the handshake.
    pub(super) issued: Option<Issued>,
}

#[derive(Clone, Debug)]
enum Echo {
    /// The inner service chooses.
    Nothing,
    /// The guard chose.
    Exactly(Option<HeaderValue>),
    /// The inner service chooses; if it does not, this is named, because it came with the token.
    Fallback(HeaderValue),
}

impl Finish {
    pub(crate) fn apply<B>(self, response: &mut Response<B>) {
        let is_completed = self.transport.is_completed_by(response.status());
        if let Some(issued) = self.issued {
            let unclaimed = match is_completed {
                true => !issued.is_held(),
                // axum's `WebSocketUpgrade` has not found the upgrade; other 426 name a protocol (RFC 9110 15.5.22).
                false => {
                    !issued.is_claimed()
                        && response.status() == StatusCode::UPGRADE_REQUIRED
                        && !response.headers().contains_key(UPGRADE)
                }
            };
            if is_completed && (!unclaimed || self.report_only) {
                issued.complete();
            }
            match unclaimed {
                true if self.report_only => observe::report_behind(response, RejectionKind::PermitUnclaimed),
                true => return refuse_late(RejectionKind::PermitUnclaimed, response, self.transport, self.close),
                false => {}
            }
        }
        let headers = response.headers_mut();
        match self.subprotocol {
            _ if !is_completed => close_declined(headers, self.transport, self.close),
            Echo::Nothing => {}
            Echo::Exactly(chosen) => set_header(headers, SEC_WEBSOCKET_PROTOCOL, chosen),
            Echo::Fallback(marker) => {
                headers.entry(SEC_WEBSOCKET_PROTOCOL).or_insert(marker);
            }
        }
    }
}

/// A handshake that a handler declines is refused like any other: what follows it on the connection is no second request.
pub(crate) fn close_declined(headers: &mut HeaderMap, transport: Transport, close: bool) {
    if close && transport == Transport::Http1 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
