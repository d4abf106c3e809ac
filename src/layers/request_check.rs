use tower_layer::Layer;

use crate::{
    guard::{Guard, GuardConfig, GuardLayer},
    host::AllowHost,
    origin::AllowOrigin,
    rejection::EmptyBody,
};

/// Applies [`RequestCheck`], which checks the host and the origin of every request, and not only of
/// upgrade requests.
///
/// It protects ordinary endpoints beside a WebSocket: an API, server-sent events, long polling, an
/// MCP endpoint, or a page on the user's machine. Handshakes need a [`GuardLayer`] as well.
///
/// A browser sends no `Origin` on a `GET` of the same origin, so an origin policy for such requests
/// must [allow a missing `Origin`](AllowOrigin::allow_missing); then `Sec-Fetch-Site: cross-site`
/// still rejects. Do not put an origin policy on pages that other sites link to: a browser marks
/// the first request after such a link as `cross-site`. Check only the host there.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ws_guard::{AllowHost, RequestCheckLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(RequestCheckLayer::hosts(AllowHost::loopback()))
///     .service(service_fn(async |_: Request<()>| {
///         Ok::<_, std::convert::Infallible>(Response::new("the page"))
///     }));
///
/// let page = |host: &str| Request::get("/").header("host", host).body(()).unwrap();
/// let own = service.clone().oneshot(page("localhost:3000")).await.unwrap();
/// assert_eq!(*own.body(), "the page");
/// let rebound = service.oneshot(page("evil.example:3000")).await.unwrap();
/// assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct RequestCheckLayer<R = EmptyBody>(GuardLayer<R>);

impl RequestCheckLayer {
    /// Accepts requests from the origins that `origins` allows.
    pub fn origins(origins: AllowOrigin) -> Self {
        Self::new(Some(origins))
    }

    /// Accepts requests to these hosts only, from every origin.
    pub fn hosts(hosts: AllowHost) -> Self {
        Self::new(None).allow_host(hosts)
    }

    fn new(origins: Option<AllowOrigin>) -> Self {
        Self(GuardLayer::from_config(GuardConfig {
            origins,
            every_request: true,
            ..GuardConfig::default()
        }))
    }
}

impl<R> RequestCheckLayer<R> {
    /// Accepts requests to these hosts only. A second call adds hosts. See
    /// [`GuardLayer::allow_host`].
    pub fn allow_host(self, hosts: AllowHost) -> Self {
        Self(self.0.allow_host(hosts))
    }

    /// Sets the response to rejected requests. A later call replaces an earlier one. See
    /// [`GuardLayer::reject_with`].
    pub fn reject_with<T>(self, response: T) -> RequestCheckLayer<T> {
        RequestCheckLayer(self.0.reject_with(response))
    }
}

impl<R> Clone for RequestCheckLayer<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R> Layer<S> for RequestCheckLayer<R> {
    type Service = RequestCheck<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// Accepts requests to allowed hosts, from allowed origins.
pub type RequestCheck<S, R = EmptyBody> = Guard<S, R>;
