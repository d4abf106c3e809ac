use std::fmt::{self, Display};

use http::{Request, request::Parts};

use super::{
    GuardLayer,
    policy::{Detected, GuardConfig, Report},
};
use crate::{
    connection::Drain,
    handshake::Handshake,
    rejection::{Rejection, RejectionKind},
};

/// What each step of a guard says about the head of one request. Made by [`GuardLayer::explain`].
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

/// What a [`Step`] says.
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
    /// The name: `drain`, `syntax`, `host`, `origin`, `check`, `subprotocol`, `token`,
    /// `authorization` or `limit`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What the step says.
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
                source.map_or(Ok(()), |source| write!(f, "; because: {source}"))
            }
            Verdict::Unknown(because) => write!(f, "unknown: {because}"),
        }
    }
}

impl<R, C> GuardLayer<R, C> {
    /// Says what each step says about the head of a request, which rule decides, and the fix: for
    /// support and tests.
    ///
    /// Nothing is taken: no ticket is redeemed and no slot acquired. Steps that have to wait are
    /// [unknown](Verdict::Unknown). [Checks](crate::Check) of your own are called, on a copy of the
    /// extensions.
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
        self.policy().config.explain(head.clone(), &mut explanation);
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
            Detected::Ordinary | Detected::Any => {
                return explanation.accept("syntax", "it is not an upgrade request, and passes");
            }
        }
        if !self.drains.is_empty() {
            let has_started = self.drains.iter().any(Drain::has_started);
            let rejection = has_started.then(|| RejectionKind::ShuttingDown.into());
            explanation.add("drain", rejection.map_or(Ok("none has started"), Err));
        }
        let mut handshake = match Handshake::parse_for(&mut head, self.subprotocols.as_ref()) {
            Ok(handshake) => handshake,
            Err(rejection) => return explanation.add("syntax", Err::<&str, _>(rejection)),
        };
        explanation.accept("syntax", "the handshake is well-formed");
        self.explain_policies(&mut handshake, explanation);
        self.explain_subprotocol(&handshake, explanation);
        let Some(policy) = &self.token else {
            return self.explain_admission(&head, true, explanation);
        };
        let found = policy.find(&handshake);
        let is_verified = match found {
            Err(rejection) => {
                explanation.add("token", Err::<&str, _>(rejection));
                false
            }
            Ok(token) => match token.verify_now(&mut head) {
                Some(Ok(())) => {
                    explanation.accept("token", "it is valid");
                    true
                }
                Some(Err(rejection)) => {
                    explanation.add("token", Err::<&str, _>(rejection));
                    false
                }
                None => {
                    explanation.unknown("token", "there is one, and its verifier has to wait");
                    false
                }
            },
        };
        self.explain_admission(&head, is_verified, explanation);
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
            explanation.add("check", check.check(handshake).map(|()| "a check of your own passes"));
        }
    }

    fn explain_subprotocol(&self, handshake: &Handshake<'_>, explanation: &mut Explanation) {
        let negotiated = self.negotiate(handshake, &mut Report::default());
        explanation.add(
            "subprotocol",
            negotiated.map(|(selected, _)| match selected.value() {
                _ if !handshake.offers_subprotocols() => "none is offered".to_owned(),
                Some(selected) => {
                    format!("`{}` is selected", selected.to_str().unwrap_or_default())
                }
                None if self.subprotocols.is_some() => "none is selected".to_owned(),
                None => "the handler selects one".to_owned(),
            }),
        );
    }

    /// `is_verified`: the claims that there can be are in the extensions.
    fn explain_admission(&self, head: &Parts, is_verified: bool, explanation: &mut Explanation) {
        if !self.authorizations.is_empty() {
            explanation.unknown("authorization", "it has to wait");
        }
        if let Some(limit) = &self.limit {
            if is_verified {
                explanation.add("limit", limit.peek(head).map(|()| "there is a slot"));
            } else {
                explanation.unknown("limit", "its key may depend on the token");
            }
        }
    }
}
