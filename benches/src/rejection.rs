use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Empty;
use tokio_tungstenite::tungstenite;
use tower::{Layer, service_fn};
use tower_http::validate_request::ValidateRequestHeaderLayer;
use tower_ws_guard::{GuardLayer, PlainText, ProblemJson};

use crate::{
    Case, Operation, app, case, floor,
    input::{self, HANDSHAKE, TOKEN},
    service::{OK, call, call_axum},
};

pub const ORIGIN: &str = "Rejection of a foreign origin";
const VERSION: &str = "Rejection of an unsupported version";
const NO_TOKEN: &str = "Rejection without a token";

pub(crate) const CASES: &[Case] = &[
    case(ORIGIN, "`GuardLayer`", || call(app::guard().layer(OK), input::foreign_origin(), 403)),
    case(ORIGIN, "floor, written by hand", || {
        call(service_fn(floor::respond::<()>), input::foreign_origin(), 403)
    }),
    case(ORIGIN, "`GuardLayer` with `PlainText`", || {
        call_axum(
            app::guard().reject_with(PlainText).layer(app::axum()),
            input::foreign_origin(),
            403,
        )
    }),
    case(ORIGIN, "`GuardLayer` with `ProblemJson`", || {
        call_axum(
            app::guard().reject_with(ProblemJson::new()).layer(app::axum()),
            input::foreign_origin(),
            403,
        )
    }),
    case(ORIGIN, "tower-http's `ValidateRequestHeaderLayer`", validate_origin),
    case(ORIGIN, "`GuardLayer` around an axum router", || {
        call_axum(app::guard().layer(app::axum()), input::foreign_origin(), 403)
    }),
    case(ORIGIN, "`GuardLayer` on an axum route", || {
        call_axum(app::axum_guard(), input::foreign_origin(), 403)
    }),
    case(ORIGIN, "axum, in a `from_fn` on the route", || {
        call_axum(app::axum_origin_from_fn_on_route(), input::foreign_origin(), 403)
    }),
    case(ORIGIN, "axum, in a `from_fn` by `Router::layer`", || {
        call_axum(app::axum_origin_from_fn(), input::foreign_origin(), 403)
    }),
    case(ORIGIN, "axum, in the handler", || {
        call_axum(app::axum_origin_in_handler(), input::foreign_origin(), 403)
    }),
    case(VERSION, "`GuardLayer`", || call(app::guard().layer(OK), version_8(), 426)),
    case(VERSION, "tungstenite's `create_response`", || {
        fails(|request| tungstenite::handshake::server::create_response(&request).err().map(drop))
    }),
    case(VERSION, "hyper-tungstenite", || {
        fails(|request| hyper_tungstenite::upgrade(request, None).err().map(drop))
    }),
    case(VERSION, "fastwebsockets", || {
        fails(|request| fastwebsockets::upgrade::upgrade(request).err().map(drop))
    }),
    case(VERSION, "axum's `WebSocketUpgrade`", || call_axum(app::axum(), version_8(), 400)),
    case(NO_TOKEN, "`GuardLayer` with a bearer token", || call(bearer().layer(OK), HANDSHAKE, 401)),
    case(NO_TOKEN, "tower-http's `ValidateRequestHeaderLayer`", validate_token),
    case(NO_TOKEN, "tower-http's `ValidateRequestHeaderLayer::bearer`", || {
        #[expect(deprecated, reason = "as too basic: it is what there is")]
        let layer = ValidateRequestHeaderLayer::bearer(TOKEN);
        call(layer.layer(empty()), HANDSHAKE, 401)
    }),
];

fn version_8() -> String {
    input::with("Sec-WebSocket-Version", "8")
}

fn bearer() -> GuardLayer {
    app::guard().token(app::bearer()).unwrap()
}

fn validate_origin() -> Box<dyn Operation> {
    let validate = |request: &mut Request<()>| match app::is_allowed(request.headers()) {
        true => Ok(()),
        false => Err(floor::status_only(StatusCode::FORBIDDEN)),
    };
    call(ValidateRequestHeaderLayer::custom(validate).layer(OK), input::foreign_origin(), 403)
}

fn validate_token() -> Box<dyn Operation> {
    let validate = |request: &mut Request<()>| match request.headers().get(AUTHORIZATION) {
        Some(_) => Ok(()),
        None => Err(floor::status_only(StatusCode::UNAUTHORIZED)),
    };
    call(ValidateRequestHeaderLayer::custom(validate).layer(OK), HANDSHAKE, 401)
}

/// A peer that is not a service and makes no response: an empty one costs least.
fn fails(reject: fn(Request<()>) -> Option<()>) -> Box<dyn Operation> {
    let service = service_fn(move |request| {
        reject(request).expect("a rejection");
        std::future::ready(Ok::<Response<()>, Infallible>(floor::status_only(
            StatusCode::BAD_REQUEST,
        )))
    });
    call(service, version_8(), 400)
}

fn empty() -> impl tower::Service<Request<()>, Response = Response<Empty<Bytes>>, Error = Infallible>
{
    service_fn(|_: Request<()>| std::future::ready(Ok(Response::new(Empty::new()))))
}
