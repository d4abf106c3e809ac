//! The configuration of a layer, and the steps that it decides. `examine` runs the steps before the
//! verification in order. `Admission` runs all of them.

use std::{fmt, sync::Arc, time::Duration};

use http::{Extensions, HeaderValue, Request, header::SEC_WEBSOCKET_EXTENSIONS, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::{
    AcceptThenClose, Check,
    authorize::Authorization,
    normalize::{Offer, normalize},
};
use crate::{
    connection::{AcquireSession, ConnectionLimit, Drain, Held, Permit, Validity},
    context::{GuardContext, OriginChecked, Outer},
    extension::{AgreedExtensions, PermessageDeflate},
    handshake::{AlreadyNormalized, Handshake, Supported},
    head::RequestHead,
    host::AllowHost,
    http::{field::set_header, is_upgrade_request},
    origin::AllowOrigin,
    random::random_below,
    rejection::{Rejection, RejectionKind},
    subprotocol::Subprotocols,
    token::{FoundToken, TokenCheck, TokenSource},
    upgrade::{
        ConnectionInfo, Handover, PendingDecision, PendingUpgrade, UPGRADE_TIMEOUT, Upgrade,
    },
};

/// The configuration of a layer, and the response to the handshakes that it rejects.
pub(crate) struct Policy<R> {
    pub(crate) config: GuardConfig,
    pub(crate) reject_with: Arc<R>,
}

/// The configuration. It has no type parameters, so the steps are compiled once.
#[derive(Clone)]
pub(crate) struct GuardConfig {
    pub(crate) drains: Vec<Drain>,
    pub(crate) hosts: Option<AllowHost>,
    pub(crate) origins: Option<AllowOrigin>,
    pub(crate) checks: Vec<Arc<dyn Check + Send + Sync>>,
    pub(crate) subprotocols: Option<Subprotocols>,
    pub(crate) accept_unmatched_subprotocols: bool,
    pub(crate) extensions: Option<PermessageDeflate>,
    pub(crate) token: Option<TokenCheck>,
    pub(crate) authorizations: Vec<Authorization>,
    pub(crate) check_timeout: Duration,
    pub(crate) limits: Vec<ConnectionLimit>,
    pub(crate) sessions: Vec<Arc<dyn AcquireSession>>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) completion: Completion,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) accept_then_close: Option<AcceptThenClose>,
    pub(crate) without_origin_check: bool,
    pub(crate) require_websocket: bool,
    /// Check nothing but the host and the origin, of every request.
    pub(crate) every_request: bool,
    pub(crate) keep_connection: bool,
    pub(crate) report_only: bool,
}

/// Who completes the handshake.
#[derive(Clone)]
pub(crate) enum Completion {
    /// The inner service.
    Forward,
    /// The layer, if the inner service accepts the `PendingUpgrade`.
    Pending,
    /// The layer, which gives the connection to a callback.
    Callback(Arc<SpawnCallback>),
}

/// Reads the head of the request, and spawns the callback.
pub(crate) type SpawnCallback = dyn Fn(Upgrade, &Parts) + Send + Sync;

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            drains: Vec::new(),
            hosts: None,
            origins: None,
            checks: Vec::new(),
            subprotocols: None,
            accept_unmatched_subprotocols: false,
            extensions: None,
            token: None,
            authorizations: Vec::new(),
            check_timeout: Duration::from_secs(10),
            limits: Vec::new(),
            sessions: Vec::new(),
            max_age: None,
            completion: Completion::Forward,
            upgrade_timeout: UPGRADE_TIMEOUT,
            accept_then_close: None,
            without_origin_check: false,
            require_websocket: false,
            every_request: false,
            keep_connection: false,
            report_only: false,
        }
    }
}

impl<R> Clone for Policy<R> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), reject_with: Arc::clone(&self.reject_with) }
    }
}

impl fmt::Debug for GuardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardConfig")
            .field("drains", &self.drains.len())
            .field("hosts", &self.hosts)
            .field("origins", &self.origins)
            .field("checks", &self.checks.len())
            .field("subprotocols", &self.subprotocols)
            .field("extensions", &self.extensions)
            .field("token", &self.token)
            .field("authorizations", &self.authorizations.len())
            .field("limits", &self.limits)
            .field("sessions", &self.sessions.len())
            .field("max_age", &self.max_age)
            .field("accept_then_close", &self.accept_then_close)
            .field("without_origin_check", &self.without_origin_check)
            .field("keep_connection", &self.keep_connection)
            .field("report_only", &self.report_only)
            .finish_non_exhaustive()
    }
}

/// What a request is to a layer.
pub(super) enum Detected {
    UpgradeRequest,
    /// Not an upgrade request, but the layer requires one.
    NotWebsocket,
    /// The layer checks the host and the origin of every request.
    EveryRequest,
    Ordinary,
}

/// What the layer and the client agreed to.
#[derive(Default)]
pub(super) struct Negotiated {
    pub(super) key: Option<[u8; 24]>,
    pub(super) subprotocol: Selected,
    pub(super) agreed: AgreedExtensions,
    /// The offer that inner services see. Their response may name nothing else.
    pub(super) offered_extensions: Option<HeaderValue>,
}

/// The selected subprotocol.
#[derive(Default)]
pub(super) enum Selected {
    /// The layer leaves the selection to the inner service.
    #[default]
    ByHandler,
    /// The layer selected one, or none.
    ByLayer(Option<HeaderValue>),
    /// The inner service selects. If it selects none, the response names this one: the marker that
    /// came with the token, or the selection of an outer layer.
    Fallback(HeaderValue),
}

impl Selected {
    pub(super) fn value(&self) -> Option<&HeaderValue> {
        match self {
            Self::ByHandler => None,
            Self::ByLayer(selected) => selected.as_ref(),
            Self::Fallback(marker) => Some(marker),
        }
    }
}

/// Collects the rejections that report-only mode does not make. The first one counts.
/// Boxed, because it is rare and every handshake carries its size.
#[derive(Default)]
pub(super) struct Report(pub(super) Option<Box<Rejection>>);

impl GuardConfig {
    /// Step 1: is it an upgrade request at all?
    #[inline]
    pub(super) fn detect<B>(&self, request: &Request<B>) -> Detected {
        if self.every_request {
            return Detected::EveryRequest;
        }
        if is_upgrade_request(request) {
            return Detected::UpgradeRequest;
        }
        // Report-only mode must not break a page at the same path.
        if self.require_websocket && !self.report_only {
            return Detected::NotWebsocket;
        }
        Detected::Ordinary
    }

    /// Steps 2 to 6. A drain rejects before all of them.
    ///
    /// Returns the credential, or `None` without a token policy. A rejection because of it waits
    /// until it is removed from the request, so that no response can show it.
    #[inline]
    pub(super) fn examine(
        &self,
        request: &mut Parts,
        negotiated: &mut Negotiated,
        report: &mut Report,
    ) -> Result<Option<Result<FoundToken, Rejection>>, Rejection> {
        if let Some(token) = &self.token {
            // First of all, so that no `Debug` of a rejected request shows a credential.
            token.hide_credentials(&mut request.headers);
        }
        if self.drains.iter().any(Drain::has_started) {
            return Err(RejectionKind::ShuttingDown.into());
        }
        let mut handshake = self.parse(request)?;
        self.check_policies(&mut handshake, report)?;
        let (subprotocol, offer) = self.negotiate(&handshake, report)?;
        let token = self.take_credential(&handshake);
        let (agreed, offered_extensions) = self.negotiate_extensions(&handshake);
        let (key, normalized) = (handshake.key(), handshake.normalized());
        let found = token.as_ref().and_then(|token| token.as_ref().ok());
        self.normalize(request, normalized, key, offer, found)?;
        if self.extensions.is_some() {
            set_header(&mut request.headers, SEC_WEBSOCKET_EXTENSIONS, offered_extensions.clone());
        }
        self.insert_context(request, &subprotocol);
        *negotiated = Negotiated { key, subprotocol, agreed, offered_extensions };
        Ok(token)
    }

    /// Step 2: the syntax.
    #[inline]
    pub(super) fn parse<'a>(&self, request: &'a mut Parts) -> Result<Handshake<'a>, Rejection> {
        let supported = Supported {
            subprotocols: self.subprotocols.as_ref(),
            extensions: self.extensions.as_ref(),
            only_websocket: !self.forwards(),
        };
        Handshake::parse_for(request, &supported)
    }

    /// Step 3: Host, Origin and the user's checks.
    #[inline]
    fn check_policies(
        &self,
        handshake: &mut Handshake<'_>,
        report: &mut Report,
    ) -> Result<(), Rejection> {
        if let Some(hosts) = &self.hosts {
            self.enforce(hosts.check(&handshake.head()), report)?;
        }
        if let Some(origins) = &self.origins {
            self.enforce(origins.check(&handshake.head()), report)?;
        }
        for check in &self.checks {
            self.enforce(check.check(handshake), report)?;
        }
        Ok(())
    }

    /// Checks the host and the origin of any request.
    pub(super) fn check_head(&self, request: &Parts) -> Result<(), Rejection> {
        let head = RequestHead::new(request)?;
        self.hosts.as_ref().map_or(Ok(()), |hosts| hosts.check(&head))?;
        self.origins.as_ref().map_or(Ok(()), |origins| origins.check(&head))
    }

    /// Step 4: selects a subprotocol, and decides which offer inner services see.
    ///
    /// Without a list of the layer the inner service selects, and only an offer of nothing but
    /// credentials is rejected.
    pub(super) fn negotiate(
        &self,
        handshake: &Handshake<'_>,
        report: &mut Report,
    ) -> Result<(Selected, Offer), Rejection> {
        if handshake.offered().is_empty() {
            let selected = match self.subprotocols {
                Some(_) => Selected::ByLayer(None),
                None => Selected::ByHandler,
            };
            return Ok((selected, Offer::Unchanged));
        }
        let sources = self.token.as_ref().map_or(&[][..], TokenCheck::sources);
        let offered = || without_credentials(handshake.offered().iter(), sources);
        let is_offered = |candidate: &&HeaderValue| offered().any(|offer| **candidate == *offer);
        let by_outer_layer = || handshake.extensions().get::<GuardContext>()?.subprotocol.as_ref();
        let marker = || {
            let is_marker = |offer: &&[u8]| sources.iter().any(|source| source.is_marker(offer));
            offered().find(is_marker).and_then(|marker| HeaderValue::from_bytes(marker).ok())
        };

        let selected = self
            .subprotocols
            .as_ref()
            .and_then(|subprotocols| subprotocols.select(offered()))
            .or_else(|| by_outer_layer().filter(is_offered))
            .cloned()
            .or_else(marker);
        let is_supported = match self.subprotocols {
            Some(_) => selected.is_some(),
            None => offered().next().is_some(),
        };
        if !is_supported && !self.accept_unmatched_subprotocols {
            let unsupported = Rejection::new(RejectionKind::SubprotocolUnsupported)
                .with_value(shown_offer(offered()));
            self.enforce::<()>(Err(unsupported), report)?;
            // Reported only: the inner service selects.
            return Ok((Selected::ByHandler, without_credentials_in(handshake, offered)));
        }
        Ok(match (&self.subprotocols, selected) {
            (Some(_), selected) => {
                // Most clients offer one, and nothing has to be written.
                let is_all =
                    selected.is_some() && selected.as_ref() == handshake.subprotocol_line();
                let offer = if is_all { Offer::Unchanged } else { Offer::Only(selected.clone()) };
                (Selected::ByLayer(selected), offer)
            }
            (None, selected) => {
                let selected = selected.map_or(Selected::ByHandler, Selected::Fallback);
                (selected, without_credentials_in(handshake, offered))
            }
        })
    }

    /// Step 4, too: what the layer agrees to, and the offer of extensions that inner services see.
    #[inline]
    fn negotiate_extensions(
        &self,
        handshake: &Handshake<'_>,
    ) -> (AgreedExtensions, Option<HeaderValue>) {
        if self.extensions.is_none() {
            // A handler that does not respond by itself may name none.
            let offered = if self.forwards() { handshake.offered_extensions() } else { None };
            return (AgreedExtensions::default(), offered);
        }
        let agreement = handshake.agreement();
        let permessage_deflate = agreement.map(|agreement| agreement.agreed);
        (AgreedExtensions { permessage_deflate }, agreement.map(|agreement| agreement.offer()))
    }

    /// Step 5: finds the one credential. `None` without a token policy.
    pub(super) fn take_credential(
        &self,
        handshake: &Handshake<'_>,
    ) -> Option<Result<FoundToken, Rejection>> {
        self.token.as_ref().map(|token| token.find(handshake))
    }

    /// Step 6: the one form of each field, without the credential.
    #[inline]
    pub(super) fn normalize(
        &self,
        request: &mut Parts,
        normalized: Option<AlreadyNormalized>,
        key: Option<[u8; 24]>,
        offer: Offer,
        found: Option<&FoundToken>,
    ) -> Result<(), Rejection> {
        normalize(&mut request.headers, normalized, key, offer);
        self.token.as_ref().map_or(Ok(()), |token| token.strip(request, found))
    }

    /// Leaves what inner layers and extractors need in the extensions of the request.
    #[inline]
    fn insert_context(&self, request: &mut Parts, subprotocol: &Selected) {
        if !self.forwards() {
            // The inner service gets a `PendingUpgrade` and needs no context.
            return;
        }
        let extensions = &mut request.extensions;
        if let Some(selected) = subprotocol.value() {
            GuardContext::get_or_insert(extensions).subprotocol = Some(selected.clone());
        }
        if self.origins.is_none() && !Outer::new(extensions).has_guard {
            // Inner layers must know that there is an outer one.
            GuardContext::get_or_insert(extensions).only_confirms = false;
        }
        if self.satisfies_extractors() {
            extensions.insert(OriginChecked);
        }
    }

    /// Whether a connection has a permit.
    pub(super) fn has_permits(&self) -> bool {
        !self.limits.is_empty()
            || !self.sessions.is_empty()
            || !self.drains.is_empty()
            || self.max_age.is_some()
    }

    /// Step 8, at first: acquires a slot under each limit.
    pub(super) fn acquire_slots(&self, report: &mut Report) -> Result<Option<Permit>, Rejection> {
        let slots = self.limits.iter().try_fold(None, |held, limit| {
            let slot = limit.acquire().map_err(Rejection::from)?;
            Ok(Some(Permit::new(Held::Slot(slot), held)))
        });
        Ok(self.enforce(slots, report)?.flatten())
    }

    /// Step 8, after the sessions: counts the connection in each drain.
    pub(super) fn acquire(&self, mut held: Option<Permit>) -> Result<Permit, Rejection> {
        for drain in &self.drains {
            held = Some(Permit::new(Held::Drain(drain.enter()?), held));
        }
        // So that sockets of the same age do not end at once.
        let random_age = |age: Duration| age - age / 10_000 * random_below(1000);
        if let Some(ends_at) =
            self.max_age.and_then(|age| Instant::now().checked_add(random_age(age)))
        {
            held = Some(Permit::new(Held::Age(ends_at), held));
        }
        // Report-only mode may have acquired nothing.
        Ok(held.unwrap_or_else(|| Permit::without_limit(Validity::default())))
    }

    /// Withholds the upgrade and the permit until the handler takes them. Returns the upgrade, too,
    /// if it goes to a callback and no outer layer decides about it.
    pub(super) fn withhold(
        &self,
        extensions: &mut Extensions,
        is_outermost: bool,
        permit: Option<Permit>,
        info: ConnectionInfo,
    ) -> Result<(Acquired, Option<Upgrade>), Rejection> {
        let has_permit = permit.is_some();
        let outer = if is_outermost { None } else { self.outer_handover(extensions) };
        if self.forwards() && !has_permit {
            return Ok((Acquired { handover: outer, ..Acquired::default() }, None));
        }
        // In report-only mode a handler may take the upgrade without the permit.
        let on_upgrade = if self.forwards() && self.report_only {
            None
        } else {
            extensions.remove::<OnUpgrade>()
        };
        if is_outermost && matches!(self.completion, Completion::Callback(_)) {
            // The response of this layer completes the handshake, so there is nothing to decide.
            let upgrade = on_upgrade
                .map(|on_upgrade| Upgrade::decided(on_upgrade, permit, info, self.upgrade_timeout));
            return Ok((Acquired::default(), upgrade));
        }
        if let Some(handover) = outer {
            // The outer layer decides whether the connection is handed over.
            if !handover.add(on_upgrade, permit) {
                return Err(Rejection::new(RejectionKind::NotUpgradable)
                    .with_source("something outside of this layer has taken the connection"));
            }
            let has_upgrade = handover.has_upgrade();
            let handover = if self.forwards() { handover } else { handover.with_info(info) };
            let handover = Some(handover);
            return Ok((Acquired { handover, decision: None, has_permit, has_upgrade }, None));
        }
        let has_upgrade = on_upgrade.is_some();
        let handover = Handover::withhold(on_upgrade, permit, info);
        if self.forwards() {
            GuardContext::get_or_insert(extensions).handover = Some(handover.clone());
        }
        let decision = Some(PendingDecision::new(handover.clone()));
        Ok((Acquired { handover: Some(handover), decision, has_permit, has_upgrade }, None))
    }

    /// The connection that an outer layer withholds.
    fn outer_handover(&self, extensions: &mut Extensions) -> Option<Handover> {
        let context = extensions.get_mut::<GuardContext>();
        let outer = context.and_then(|context| {
            // A `PendingUpgrade` takes the place of the context.
            if self.forwards() { context.handover.clone() } else { context.handover.take() }
        });
        outer.or_else(|| extensions.get().map(PendingUpgrade::handover).cloned())
    }

    pub(super) fn satisfies_extractors(&self) -> bool {
        self.origins.is_some() || self.without_origin_check
    }

    pub(super) fn forwards(&self) -> bool {
        matches!(self.completion, Completion::Forward)
    }

    /// Passes on the result of a policy. In report-only mode a rejection becomes a report.
    #[inline]
    pub(super) fn enforce<T>(
        &self,
        result: Result<T, Rejection>,
        report: &mut Report,
    ) -> Result<Option<T>, Rejection> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(rejection) if self.report_only => {
                report.0.get_or_insert_with(|| Box::new(rejection));
                Ok(None)
            }
            Err(rejection) => Err(rejection),
        }
    }
}

/// What step 8 acquired and withholds from the handler.
#[derive(Default)]
pub(super) struct Acquired {
    pub(super) handover: Option<Handover>,
    /// Of the layer that withholds first.
    pub(super) decision: Option<PendingDecision>,
    pub(super) has_permit: bool,
    pub(super) has_upgrade: bool,
}

fn without_credentials<'a>(
    offered: impl Iterator<Item = &'a [u8]>,
    sources: &[TokenSource],
) -> impl Iterator<Item = &'a [u8]> {
    let mut previous = None;
    offered.filter(move |offer| {
        let is_carrier = sources.iter().any(|source| source.is_carrier(previous, offer));
        previous = Some(*offer);
        !is_carrier
    })
}

/// An offer for the log. An element can be a credential that no source knows, so only what looks
/// like a name is shown in full.
fn shown_offer<'a>(offered: impl Iterator<Item = &'a [u8]>) -> String {
    let is_name = |offer: &str| {
        let digits = offer.bytes().filter(u8::is_ascii_digit).count();
        let is_lower_case = !offer.bytes().any(|byte| byte.is_ascii_uppercase());
        offer.len() <= 12 || (offer.len() <= 40 && digits <= 3 && is_lower_case)
    };
    let names = offered.filter_map(|offer| str::from_utf8(offer).ok());
    let shown = names.take(8).map(|offer| match offer.get(..4) {
        Some(start) if !is_name(offer) => format!("{start}... ({} bytes)", offer.len()),
        _ => offer.to_owned(),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    if shown.is_empty() { "nothing but a credential".to_owned() } else { shown }
}

/// The offer without the credentials in it.
fn without_credentials_in<'a, I>(handshake: &Handshake<'_>, offered: impl Fn() -> I) -> Offer
where
    I: Iterator<Item = &'a [u8]>,
{
    if offered().count() == handshake.offered().len() {
        return Offer::Unchanged;
    }
    let joined = offered().collect::<Vec<_>>().join(&b", "[..]);
    // Elements of a valid value are a valid value.
    Offer::Only(HeaderValue::from_bytes(&joined).ok().filter(|value| !value.is_empty()))
}
