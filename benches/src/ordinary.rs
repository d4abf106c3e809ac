use std::convert::identity;

use axum::{body::Body, middleware::from_fn};
use http::{HeaderValue, Request, Response, StatusCode, header::UPGRADE};
use tower::{Layer, ServiceBuilder};
use tower_http::{cors::CorsLayer, validate_request::ValidateRequestHeaderLayer};
use tower_ws_guard::{OriginCheckLayer, ResponderLayer, TokenCheckLayer, VersionCheckLayer};

use crate::{
    Case, Operation, app, case, floor,
    input::{ORDINARY, ORIGIN},
    service::{OK, Pass, call, call_axum},
};

pub const SERVICE: &str = "Ordinary request through a bare service";
pub const ROUTER: &str = "Ordinary request through an axum router";

pub(crate) const CASES: &[Case] = &[
    case(SERVICE, "the service alone", || call(OK, ORDINARY, 200)),
    case(SERVICE, "a layer that does nothing", || call(Pass.layer(OK), ORDINARY, 200)),
    case(SERVICE, "tower's `MapResponseLayer` that does nothing", || {
        call(
            ServiceBuilder::new().map_response(identity::<Response<()>>).service(OK),
            ORDINARY,
            200,
        )
    }),
    case(SERVICE, "`GuardLayer`", || call(app::guard().layer(OK), ORDINARY, 200)),
    case(SERVICE, "`GuardLayer` with token and subprotocols", full_guard),
    case(SERVICE, "tower-http's `ValidateRequestHeaderLayer` that looks at one header", || {
        let validate = |request: &mut Request<()>| match request.headers().get(UPGRADE) {
            None => Ok(()),
            Some(_) => Err(floor::status_only::<()>(StatusCode::UPGRADE_REQUIRED)),
        };
        call(ValidateRequestHeaderLayer::custom(validate).layer(OK), ORDINARY, 200)
    }),
    case(SERVICE, "tower-http's `CorsLayer`", || call(cors().layer(OK), ORDINARY, 200)),
    case(SERVICE, "four layers that do nothing", || {
        call(
            ServiceBuilder::new().layer(Pass).layer(Pass).layer(Pass).layer(Pass).service(OK),
            ORDINARY,
            200,
        )
    }),
    case(SERVICE, "four of tower's `MapResponseLayer` that do nothing", || {
        let layers = ServiceBuilder::new()
            .map_response(identity::<Response<()>>)
            .map_response(identity::<Response<()>>)
            .map_response(identity::<Response<()>>)
            .map_response(identity::<Response<()>>);
        call(layers.service(OK), ORDINARY, 200)
    }),
    case(SERVICE, "four separate layers instead of `GuardLayer`", four_layers),
    case(ROUTER, "the router alone", || call_axum(app::axum(), ORDINARY, 200)),
    case(ROUTER, "a layer that does nothing, around the router", || {
        call_axum(Pass.layer(app::axum()), ORDINARY, 200)
    }),
    case(ROUTER, "`GuardLayer` around the router", || {
        call_axum(app::guard().layer(app::axum()), ORDINARY, 200)
    }),
    case(ROUTER, "a layer that does nothing, by `Router::layer`", || {
        call_axum(app::axum().layer(Pass), ORDINARY, 200)
    }),
    case(ROUTER, "`GuardLayer` by `Router::layer`", || {
        call_axum(app::axum().layer(app::guard()), ORDINARY, 200)
    }),
    case(ROUTER, "`ValidateRequestHeaderLayer` by `Router::layer`", || {
        let validate = |_: &mut Request<Body>| Ok::<(), Response<Body>>(());
        call_axum(app::axum().layer(ValidateRequestHeaderLayer::custom(validate)), ORDINARY, 200)
    }),
    case(ROUTER, "axum's `from_fn` that checks the origin, by `Router::layer`", || {
        call_axum(app::axum_origin_from_fn(), ORDINARY, 200)
    }),
    case(ROUTER, "`from_fn` that does nothing, by `Router::layer`", || {
        let pass = async |request: axum::extract::Request, next: axum::middleware::Next| {
            next.run(request).await
        };
        call_axum(app::axum().layer(from_fn(pass)), ORDINARY, 200)
    }),
    case(ROUTER, "`CorsLayer` by `Router::layer`", || {
        call_axum(app::axum().layer(cors()), ORDINARY, 200)
    }),
];

fn cors() -> CorsLayer {
    CorsLayer::new().allow_origin(HeaderValue::from_static(ORIGIN))
}

fn full_guard() -> Box<dyn Operation> {
    call(
        app::guard().token(app::token()).unwrap().subprotocols(app::subprotocols()).layer(OK),
        ORDINARY,
        200,
    )
}

fn four_layers() -> Box<dyn Operation> {
    let layers = ServiceBuilder::new()
        .layer(VersionCheckLayer::new())
        .layer(OriginCheckLayer::new(app::origins()))
        .layer(TokenCheckLayer::new(app::token()))
        .layer(ResponderLayer::new());
    call(layers.service(OK), ORDINARY, 200)
}
