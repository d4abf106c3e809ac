//! What a layer leaves in the extensions of a request, for the layers and extractors inside it.

use http::{Extensions, HeaderValue};

use crate::{
    connection::{Permit, Validity},
    upgrade::{Handover, PendingUpgrade},
};

/// In the extensions of a request that a layer forwards after its origin check.
///
/// The extractors of this crate require an origin check, because a handler without one is open to
/// cross-site WebSocket hijacking. Behind a layer that completes handshakes the
/// [`PendingUpgrade`](crate::PendingUpgrade) takes its place.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OriginChecked;

/// The claims of a verified token. They are in the extensions of the request, and with the feature
/// `axum` they are an extractor. Without it axum's `Handler` is not satisfied by a function that
/// takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a wrapper to match on, as `Claims(user)`")]
pub struct Claims<T>(pub T);

/// The only private type in the extensions of a request.
#[derive(Clone, Default)]
pub(crate) struct GuardContext {
    /// The subprotocol that a layer selected.
    pub(crate) subprotocol: Option<HeaderValue>,
    /// Only a [`ConfirmUpgradeLayer`](crate::ConfirmUpgradeLayer) has seen the request. It rejects
    /// and records nothing.
    pub(crate) only_confirms: bool,
    /// The connection, until somebody takes it.
    pub(crate) handover: Option<Handover>,
    /// Whether somebody has claimed the permit.
    pub(crate) is_claimed: bool,
    /// The permit, while [`GuardedUpgrade`](crate::axum::GuardedUpgrade) runs the extractors inside
    /// it.
    #[cfg_attr(
        not(feature = "axum-ws"),
        expect(dead_code, reason = "only `GuardedUpgrade` has it")
    )]
    pub(crate) permit: Option<Permit>,
}

impl GuardContext {
    pub(crate) fn get_or_insert(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_default()
    }

    /// Whether an origin check has accepted the request.
    pub(crate) fn is_origin_checked(extensions: &Extensions) -> bool {
        extensions.get::<OriginChecked>().is_some()
            || extensions.get().is_some_and(PendingUpgrade::is_origin_checked)
    }

    /// Whether a layer of this crate has seen the request.
    pub(crate) fn is_inside_layer(extensions: &Extensions) -> bool {
        Outer::new(extensions).has_layer
    }
}

/// What is outside of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Outer {
    /// A layer that decides whether the connection is handed over.
    pub(crate) has_layer: bool,
    /// A layer that rejects and records, too.
    pub(crate) has_guard: bool,
}

impl Outer {
    pub(crate) fn new(extensions: &Extensions) -> Self {
        let context = extensions.get::<GuardContext>();
        let has_guard = context.is_some_and(|context| !context.only_confirms)
            || extensions.get::<OriginChecked>().is_some()
            || extensions.get::<PendingUpgrade>().is_some();
        Self { has_layer: has_guard || context.is_some(), has_guard }
    }
}

// Here, because `connection` does not depend on `upgrade`.
impl Permit {
    /// Claims the permit, and puts `OnUpgrade` back into the extensions, so that
    /// `hyper::upgrade::on` and everything that is built on it works again.
    ///
    /// Use it in services that complete handshakes by themselves. axum's
    /// [`GuardedUpgrade`](crate::axum::GuardedUpgrade) and
    /// [`PendingUpgrade`](crate::PendingUpgrade) do it for you. The result is `None` if the
    /// connection need not be counted and never has to end: no layer has a limit, sessions, a
    /// drain or a maximum age, and the claims never expire; or if the permit was claimed before.
    /// Claim it only to accept: hyper hands over the connection to whoever waits for it, even if
    /// the response is another one in the end.
    pub fn claim(extensions: &mut Extensions) -> Option<Self> {
        let handover = match extensions.get_mut::<GuardContext>() {
            Some(context) if context.is_claimed => return None,
            Some(context) => {
                context.is_claimed = context.handover.is_some();
                context.handover.take()
            }
            None => None,
        };
        let permit = match handover {
            Some(handover) => {
                let (on_upgrade, permit) = handover.take()?;
                if let Some(on_upgrade) = on_upgrade {
                    extensions.insert(on_upgrade);
                }
                permit
            }
            None => None,
        };
        // Without a limit the connection has a permit only to tell when the claims end.
        let validity = extensions.get::<Validity>().cloned();
        match (permit, validity) {
            (Some(permit), Some(validity)) => Some(permit.valid_while(validity)),
            (None, validity) => validity.map(Self::without_limit),
            (permit, None) => permit,
        }
    }
}
