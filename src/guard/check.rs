use std::sync::Arc;

use crate::{handshake::Handshake, rejection::Rejection};

/// A check of your own on a well-formed handshake whose host and origin are allowed.
///
/// Implemented by functions and closures, which are best wrapped in [`check_fn`]; by tuples of up to four checks, which are made
/// in order; and by `Arc` and `Option` of a check.
///
/// It must not block: what has to wait belongs in a [`VerifyToken`](crate::VerifyToken).
///
/// ```
/// use http::StatusCode;
/// use tower_ws_guard::{AllowOrigin, GuardLayer, Rejection, check_fn};
///
/// let guard = GuardLayer::new(AllowOrigin::same_origin()).check(check_fn(|handshake| {
///     match handshake.headers().contains_key("x-tenant") {
///         true => Ok(()),
///         false => Err(Rejection::custom("tenant-missing", StatusCode::BAD_REQUEST)),
///     }
/// }));
/// # let _ = guard;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot check handshakes",
    note = "a check is `check_fn(|handshake| …)`, a function `fn(&mut Handshake<'_>) -> Result<(), Rejection>`, a tuple of checks, or \
            a type that implements `Check`"
)]
pub trait Check {
    /// Lets the handshake pass, or says why not.
    ///
    /// # Errors
    ///
    /// The refusal, as a rule a [`Rejection::custom`].
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

/// A [`Check`] from a closure, which then needs no annotations.
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

macro_rules! check_tuple {
    ($($check:ident),*) => {
        impl<$($check: Check),*> Check for ($($check,)*) {
            #[allow(non_snake_case, unused_variables)]
            fn check(&self, handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
                let ($($check,)*) = self;
                $($check.check(handshake)?;)*
                Ok(())
            }
        }
    };
}

check_tuple!();
check_tuple!(A);
check_tuple!(A, B);
check_tuple!(A, B, C);
check_tuple!(A, B, C, D);
