use std::fmt::{self, Display};

use http::{Request, request::Parts};

use super::{
    GuardLayer,
    normalize::Offer,
    policy::{Detected, GuardConfig, Report},
};
use crate::{
    connection::Drain,
    handshake::Handshake,
    http::field::OneLine,
    rejection::{Rejection, RejectionKind},
    token::FoundToken,
};

/// The verdict of each step of a guard on the head of one request. Made by [`GuardLayer::explain`].
///
/// `Display` writes a line for each step. It is for the operator: it names the policy, and the fix.
#[derive(Clone, Debug)]
pub struct Explanation {
    steps: Vec<Step>,
}

/// A step of an [`Explanation`].
#[derive(Clone, Debug)]
pub struct Step {
    name: &'static str,
    verdict: Verdict,
}

/// The verdict of a [`Step`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The step accepts the request, because of this rule.
    Accepted(String),
    /// The step rejects the request.
    Rejected(Rejection),
    /// Only a real handshake can tell, for this reason.
    Unknown(&'static str),
}

impl Explanation {
    /// The steps, in their order. The first one that rejects makes the response.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The rejection that a guard would make. `None` if no step rejects: then the guard accepts the
    /// request, unless a step is [unknown](Verdict::Unknown).
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        self.steps.iter().find_map(|step| match &step.verdict {
            Verdict::Rejected(rejection) => Some(rejection),
            _ => None,
        })
    }

    fn accept(&mut self, name: &'static str, because: impl Display) {
        let verdict = Verdict::Accepted(because.to_string());
        self.steps.push(Step { name, verdict });
    }

    fn unknown(&mut self, name: &'static str, because: &'static str) {
        self.steps.push(Step { name, verdict: Verdict::Unknown(because) });
    }

    fn add(&mut self, name: &'static str, result: Result<impl Display, Rejection>) {
        match result {
            Ok(because) => self.accept(name, because),
            Err(rejection) => {
                self.steps.push(Step { name, verdict: Verdict::Rejected(rejection) });
            }
        }
    }
}

impl Step {
    /// The name: `drain`, `syntax`, `host`, `origin`, `check`, `subprotocol`, `extensions`,
    /// `token`, `authorization`, `limit` or `sessions`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The verdict.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.verdict {
            Verdict::Accepted(because) => write!(f, "accepted: {because}"),
            Verdict::Rejected(rejection) => {
                write!(f, "rejected: {rejection}")?;
                let source = std::error::Error::source(rejection);
                let source = source.map(ToString::to_string);
                source.map_or(Ok(()), |source| write!(f, "; because: {}", OneLine(&source)))
            }
            Verdict::Unknown(because) => write!(f, "unknown: {because}"),
        }
    }
}

impl<R, C> GuardLayer<R, C> {
    /// Reports the verdict of each step on the head of a request, the rule that decided it, and the
    /// fix: for support and [tests](crate::guide::testing#ask-the-guard).
    ///
    /// No ticket is redeemed and no slot acquired. Steps that have to wait are
    /// [unknown](Verdict::Unknown). [Checks](crate::Check) of your own are called, on a copy of the
    /// request, if the steps before them accept it. In report-only mode it says what would be
    /// rejected.
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer, test_util::handshake};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::list(["https://*.example.com"])?);
    /// let (head, ()) =
    ///     handshake("/ws").origin("https://app.example.com").build(()).into_parts();
    /// let explanation = guard.explain(&head);
    /// assert!(explanation.rejection().is_none());
    /// assert_eq!(
    ///     explanation.to_string(),
    ///     "syntax: accepted: the handshake is well-formed\n\
    ///      origin: accepted: `https://app.example.com` is listed as `https://*.example.com`\n\
    ///      subprotocol: accepted: none is offered\n"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self, head: &Parts) -> Explanation {
        let mut explanation = Explanation { steps: Vec::new() };
        // Report-only mode rejects nothing, but this asks what would be rejected.
        let config = GuardConfig { report_only: false, ..self.policy().config.clone() };
        config.explain(head.clone(), &mut explanation);
        explanation
    }
}

impl GuardConfig {
    fn explain(&self, mut head: Parts, explanation: &mut Explanation) {
        let request = Request::from_parts(head, ());
        let detected = self.detect(&request);
        (head, ()) = request.into_parts();
        match detected {
            Detected::UpgradeRequest => {}
            Detected::NotWebsocket => {
                let rejection = Rejection::from(RejectionKind::NotWebsocket);
                return explanation.add("syntax", Err::<&str, _>(rejection));
            }
            Detected::Ordinary | Detected::EveryRequest => {
                return explanation.accept("syntax", "it is not an upgrade request, and passes");
            }
        }
        if !self.drains.is_empty() {
            let has_started = self.drains.iter().any(Drain::has_started);
            let rejection = has_started.then(|| RejectionKind::ShuttingDown.into());
            explanation.add("drain", rejection.map_or(Ok("none has started"), Err));
        }
        if let Some(token) = &self.token {
            token.hide_credentials(&mut head.headers);
        }
        let mut handshake = match self.parse(&mut head) {
            Ok(handshake) => handshake,
            Err(rejection) => return explanation.add("syntax", Err::<&str, _>(rejection)),
        };
        explanation.accept("syntax", "the handshake is well-formed");
        self.explain_policies(&mut handshake, explanation);
        let offer = self.explain_subprotocol(&handshake, explanation);
        if self.extensions.is_some() {
            let because = match handshake.agreement() {
                Some(agreement) => format!("`{}` is agreed to", agreement.agreed),
                None => "none is agreed to".to_owned(),
            };
            explanation.accept("extensions", because);
        }
        let token = self.take_credential(&handshake);
        let (key, normalized) = (handshake.key(), handshake.normalized());
        let found = token.as_ref().and_then(|token| token.as_ref().ok());
        let stripped = self.normalize(&mut head, normalized, key, offer, found);
        let token = stripped.and_then(|()| token.transpose());
        let is_verified = self.explain_token(token, &mut head, explanation);
        if !self.authorizations.is_empty() {
            explanation.unknown("authorization", "it has to wait");
        }
        for limit in &self.limits {
            let result = limit.peek().map_err(Rejection::from);
            explanation.add("limit", result.map(|()| "there is a slot"));
        }
        for sessions in &self.sessions {
            if sessions.has_to_wait() {
                explanation.unknown("sessions", "it has to wait");
            } else if is_verified {
                explanation.add("sessions", sessions.peek(&head).map(|()| "there is a slot"));
            } else {
                explanation.unknown("sessions", "their key may depend on the token");
            }
        }
    }

    /// Whether the claims that there can be are in the extensions then.
    fn explain_token(
        &self,
        token: Result<Option<FoundToken>, Rejection>,
        head: &mut Parts,
        explanation: &mut Explanation,
    ) -> bool {
        let verified = match token {
            Ok(None) => return true,
            Ok(Some(token)) => token.verify_now(head),
            Err(rejection) => Some(Err(rejection)),
        };
        match verified {
            Some(result) => {
                let is_verified = result.is_ok();
                explanation.add("token", result.map(|()| "it is valid"));
                is_verified
            }
            None => {
                explanation.unknown("token", "there is one, and its verifier has to wait");
                false
            }
        }
    }

    fn explain_policies(&self, handshake: &mut Handshake<'_>, explanation: &mut Explanation) {
        let mut rule = String::new();
        if let Some(hosts) = &self.hosts {
            let result =
                hosts.explain(&handshake.head(), &mut |because| rule = because.to_string());
            explanation.add("host", result.map(|()| &rule));
        }
        if let Some(origins) = &self.origins {
            let result =
                origins.decide(&handshake.head(), &mut |because| rule = because.to_string());
            explanation.add("origin", result.map(|()| &rule));
        }
        for check in &self.checks {
            if explanation.rejection().is_some() {
                explanation.unknown("check", "a check sees only what was accepted before");
                continue;
            }
            explanation.add("check", check.check(handshake).map(|()| "a check of your own passes"));
        }
    }

    /// Returns the offer that inner services would see.
    fn explain_subprotocol(
        &self,
        handshake: &Handshake<'_>,
        explanation: &mut Explanation,
    ) -> Offer {
        let (selected, offer) = match self.negotiate(handshake, &mut Report::default()) {
            Ok(negotiated) => negotiated,
            Err(rejection) => {
                explanation.add("subprotocol", Err::<&str, _>(rejection));
                return Offer::Unchanged;
            }
        };
        let because = match selected.value() {
            _ if handshake.offered().is_empty() => "none is offered".to_owned(),
            Some(selected) => format!("`{}` is selected", selected.to_str().unwrap_or_default()),
            None if self.subprotocols.is_some() => "none is selected".to_owned(),
            None => "the handler selects one".to_owned(),
        };
        explanation.accept("subprotocol", because);
        offer
    }
}
