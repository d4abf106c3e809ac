use std::{future::Future, pin::Pin, sync::Arc};

use http::request::Parts;

use crate::rejection::Rejection;

/// An asynchronous check of the request's head, after the token and before the limit. See
/// [`GuardLayer::authorize`](crate::GuardLayer::authorize).
///
/// Functions, and closures `async |head: &Parts| …` that capture nothing, implement it. So do
/// closures that return an `async` block. Implement it for a type to borrow from that type and from
/// the head:
///
/// ```
/// use http::{StatusCode, request::Parts};
/// use tower_ws_guard::{AllowOrigin, Authorize, Claims, GuardLayer, Rejection};
///
/// struct Members {
///     room: String,
/// }
///
/// impl<'a> Authorize<'a> for Members {
///     async fn authorize(&'a self, head: &'a Parts) -> Result<(), Rejection> {
///         let user = head.extensions.get::<Claims<String>>();
///         if user.is_some_and(|Claims(user)| user.starts_with(&self.room)) {
///             return Ok(());
///         }
///         Err(Rejection::custom("not-a-member", StatusCode::FORBIDDEN))
///     }
/// }
///
/// let guard = GuardLayer::new(AllowOrigin::same_origin())
///     .authorize(Members { room: "red".to_owned() });
/// # let _ = guard;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot authorize handshakes",
    note = "it is a function or a closure `async |head: &Parts| -> Result<(), Rejection>`, or a type \
            that implements `Authorize<'_>`",
    note = "a closure that uses captured values clones them and returns an `async move` block; its \
            future must be `Send`"
)]
pub trait Authorize<'a> {
    /// Accepts or rejects the handshake.
    fn authorize(
        &'a self,
        head: &'a Parts,
    ) -> impl Future<Output = Result<(), Rejection>> + Send + 'a;
}

#[diagnostic::do_not_recommend]
impl<'a, F, Fut> Authorize<'a> for F
where
    F: Fn(&'a Parts) -> Fut + 'a,
    Fut: Future<Output = Result<(), Rejection>> + Send + 'a,
{
    fn authorize(
        &'a self,
        head: &'a Parts,
    ) -> impl Future<Output = Result<(), Rejection>> + Send + 'a {
        self(head)
    }
}

/// An [`Authorize`] without its type.
pub(crate) type Authorization = Arc<dyn DynAuthorize + Send + Sync>;

pub(crate) trait DynAuthorize {
    fn authorize<'a>(
        &'a self,
        head: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Result<(), Rejection>> + Send + 'a>>;
}

impl<A: for<'a> Authorize<'a>> DynAuthorize for A {
    fn authorize<'a>(
        &'a self,
        head: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Result<(), Rejection>> + Send + 'a>> {
        Box::pin(Authorize::authorize(self, head))
    }
}
