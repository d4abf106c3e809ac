//! The page, and what it asks the server.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{
        HeaderName, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_ws_guard::{AllowOrigin, ConnectionLimit, Drain, ProblemJson, RequestCheckLayer};

use crate::{accounts::NO_STORE, attempts::Attempts, options::Options, policy};

const MAX_ATTEMPT: usize = 16 * 1024;

/// Only scripts of the page can send it.
const PAGE_TOKEN: HeaderName = HeaderName::from_static("page-token");

#[derive(Clone)]
pub(crate) struct Page(Arc<Inner>);

struct Inner {
    token: String,
    policy: Value,
    drain: Drain,
    limit: Option<ConnectionLimit>,
    attempts: Attempts,
}

impl Page {
    pub(crate) fn new(
        options: &Options,
        lints: &[String],
        drain: &Drain,
        attempts: Attempts,
    ) -> Self {
        let mut token = [0; 16];
        getrandom::fill(&mut token).expect("the operating system has random numbers");
        Self(Arc::new(Inner {
            token: URL_SAFE_NO_PAD.encode(token),
            policy: policy::describe(options, lints),
            drain: drain.clone(),
            limit: options.max_connections.as_ref().map(|limit| limit.connections.clone()),
            attempts,
        }))
    }
}

pub(crate) fn routes(page: Page) -> Router {
    // A page of another site must not make attempts, or a clickjacker let the user make them.
    let own = AllowOrigin::same_origin().allow_missing();
    let own = RequestCheckLayer::origins(own).reject_with(ProblemJson::new());
    let make = Router::new()
        .route("/attempts", post(make_own))
        .route("/attempts/{id}", post(make))
        .layer(DefaultBodyLimit::max(MAX_ATTEMPT))
        .layer(from_fn_with_state(page.clone(), require_page_token));
    Router::new()
        .route("/policy", get(describe))
        .route("/status", get(status))
        .route("/attempts", get(list))
        .merge(make)
        .layer(own)
        .route("/", file("text/html", include_str!("page/index.html")))
        .route("/page.css", file("text/css", include_str!("page/page.css")))
        .route("/page.js", file("text/javascript", include_str!("page/page.js")))
        .with_state(page)
}

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(content_type: &'static str, content: &'static str) -> MethodRouter<Page> {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    get(async move || (headers, content))
}

async fn require_page_token(
    State(Page(page)): State<Page>,
    request: Request,
    next: Next,
) -> Response {
    let token = request.headers().get(PAGE_TOKEN);
    if token.is_some_and(|token| token.as_bytes() == page.token.as_bytes()) {
        next.run(request).await
    } else {
        failure(StatusCode::FORBIDDEN, "the server was started anew: reload the page")
    }
}

async fn describe(State(Page(page)): State<Page>) -> impl IntoResponse {
    let mut policy = page.policy.clone();
    policy["token"] = page.token.clone().into();
    (NO_STORE, Json(policy))
}

async fn status(State(Page(page)): State<Page>) -> impl IntoResponse {
    let connections = match &page.limit {
        Some(limit) => limit.connections(),
        None => page.drain.connections(),
    };
    let status = json!({ "connections": connections, "draining": page.drain.has_started() });
    (NO_STORE, Json(status))
}

async fn list(State(Page(page)): State<Page>) -> Json<Value> {
    Json(page.attempts.list())
}

async fn make(State(Page(page)): State<Page>, Path(id): Path<String>) -> Response {
    match page.attempts.make(&id).await {
        Some(report) => reply(report),
        None => failure(StatusCode::NOT_FOUND, "there is no such attempt"),
    }
}

async fn make_own(State(Page(page)): State<Page>, text: String) -> Response {
    reply(page.attempts.make_own(text).await)
}

fn reply(report: std::io::Result<Value>) -> Response {
    match report {
        Ok(report) => (NO_STORE, Json(report)).into_response(),
        Err(error) => failure(StatusCode::BAD_GATEWAY, &format!("no response: {error}")),
    }
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, NO_STORE, Json(json!({ "error": error }))).into_response()
}
