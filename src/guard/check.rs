use std::sync::Arc;

use crate::{handshake::Handshake, rejection::Rejection};

/// A check of your own on a well-formed handshake whose host and origin are allowed.
///
/// Functions and closures implement it; wrap a closure in [`check_fn`]. `Arc` and `Option` of a
/// check implement it, too.
///
/// A check must not block. Work that waits goes into
/// [`GuardLayer::authorize`](crate::GuardLayer::authorize), or into a
/// [`VerifyToken`](crate::VerifyToken).
///
/// ```
/// use http::StatusCode;
/// use tower_ws_guard::{AllowOrigin, GuardLayer, Rejection, check_fn};
///
/// let guard = GuardLayer::new(AllowOrigin::same_origin()).check(check_fn(|handshake| {
///     if handshake.headers().contains_key("x-tenant") {
///         return Ok(());
///     }
///     Err(Rejection::custom("tenant-missing", StatusCode::BAD_REQUEST))
/// }));
/// # let _ = guard;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot check handshakes",
    note = "a check is `check_fn(|handshake| …)`, a function `fn(&mut Handshake<'_>) -> Result<(), \
            Rejection>`, or a type that implements `Check`"
)]
pub trait Check {
    /// Accepts or rejects the handshake.
    ///
    /// # Errors
    ///
    /// The rejection, usually a [`Rejection::custom`].
    fn check(&self, handshake: &mut Handshake<'_>) -> Result<(), Rejection>;
}

#[diagnostic::do_not_recommend]
impl<F> Check for F
where
    F: Fn(&mut Handshake<'_>) -> Result<(), Rejection>,
{
    fn check(&self, handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
        self(handshake)
    }
}

/// A [`Check`] from a closure, which then needs no type annotations.
pub fn check_fn<F>(check: F) -> F
where
    F: Fn(&mut Handshake<'_>) -> Result<(), Rejection>,
{
    check
}

impl<C: Check + ?Sized> Check for Arc<C> {
    fn check(&self, handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
        C::check(self, handshake)
    }
}

impl<C: Check> Check for Option<C> {
    fn check(&self, handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
        self.as_ref().map_or(Ok(()), |check| check.check(handshake))
    }
}
