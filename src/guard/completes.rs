/// The inner service completes the handshake. See [`GuardLayer::new`](super::GuardLayer::new).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Forward;

/// The layer completes the handshake. See [`GuardLayer::respond`](super::GuardLayer::respond) and
/// [`GuardLayer::on_upgraded`](super::GuardLayer::on_upgraded).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Respond;

/// Who completes the handshake: [`Forward`] or [`Respond`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "a 101 has an empty body, so the body `{B}` of the inner service must implement \
               `Default`"
)]
pub trait Completes<B>: sealed::Sealed {
    /// The body of a 101. `None` if the layer never sends one.
    #[doc(hidden)]
    fn empty_body() -> Option<B>;
}

impl<B> Completes<B> for Forward {
    fn empty_body() -> Option<B> {
        None
    }
}

impl<B: Default> Completes<B> for Respond {
    fn empty_body() -> Option<B> {
        Some(B::default())
    }
}

mod sealed {
    #[expect(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl Sealed for super::Forward {}
    impl Sealed for super::Respond {}
}
