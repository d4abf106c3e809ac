//! Layers around a service that decides by the path, for the tests of telemetry.

use std::future::{Ready, ready};

use http::{Request, Response, StatusCode, Version};
use tower::{
    Layer, Service, service_fn,
    util::{BoxCloneSyncService, ServiceFn},
};
use tower_ws_guard::{AllowHost, AllowOrigin, GuardLayer, PendingUpgrade, Subprotocols};

use crate::common::{HOST, ORIGIN, Raw, handshake};

pub(crate) type ResponseFuture = Ready<Result<Response<()>, &'static str>>;
type Inner = ServiceFn<fn(Request<()>) -> ResponseFuture>;
pub(crate) type App = BoxCloneSyncService<Request<()>, Response<()>, &'static str>;

/// Decides by the path, and accepts by default.
fn inner(request: Request<()>) -> ResponseFuture {
    let (request, ()) = request.into_parts();
    let completed = if request.version < Version::HTTP_2 {
        StatusCode::SWITCHING_PROTOCOLS
    } else {
        StatusCode::OK
    };
    let status = match (request.uri.path(), request.extensions.get::<PendingUpgrade>()) {
        ("/fail", _) => return ready(Err("out of order")),
        ("/decline", _) => StatusCode::NOT_FOUND,
        ("/claim", _) => completed,
        (_, Some(pending)) => {
            drop(pending.accept());
            StatusCode::OK
        }
        (_, None) => completed,
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    ready(Ok(response))
}

pub(crate) fn app<L>(layer: L) -> App
where
    L: Layer<Inner>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = &'static str>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<Request<()>>>::Future: Send,
{
    BoxCloneSyncService::new(layer.layer(service_fn(inner)))
}

pub(crate) fn origins() -> AllowOrigin {
    AllowOrigin::list([ORIGIN]).unwrap()
}

pub(crate) fn hosts() -> AllowHost {
    AllowHost::list([HOST]).unwrap()
}

pub(crate) fn chat() -> Subprotocols {
    Subprotocols::list(["chat"]).unwrap()
}

pub(crate) fn guard() -> GuardLayer {
    GuardLayer::new(origins()).allow_host(hosts()).subprotocols(chat())
}

pub(crate) fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}
