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
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, ProblemJson, RequestCheckLayer, StaticTokens, Token,
    VerifyToken,
};

use crate::{
    accounts::NO_STORE,
    attempts::Attempts,
    options::{Options, WrongFlag, at},
    policy,
};

const MAX_ATTEMPT: usize = 16 * 1024;

/// Only scripts of the page can send it.
const PAGE_TOKEN: HeaderName = HeaderName::from_static("page-token");

#[derive(Clone)]
pub(crate) struct Page(Arc<Inner>);

struct Inner {
    is_private: bool,
    /// Has the token of the page.
    description: Value,
    tokens: StaticTokens<()>,
    drain: Drain,
    limit: Option<ConnectionLimit>,
    attempts: Attempts,
}

impl Page {
    pub(crate) fn new(
        options: &Options,
        warnings: &[String],
        drain: &Drain,
        attempts: Attempts,
    ) -> Result<Self, WrongFlag> {
        let token = new_token();
        let mut description = policy::describe(options, warnings);
        description["token"] = token.clone().into();
        Ok(Self(Arc::new(Inner {
            is_private: options.is_private(),
            description,
            tokens: StaticTokens::new([(token, ())]).map_err(at("the page"))?,
            drain: drain.clone(),
            limit: options.max_connections.as_ref().map(|limit| limit.connections.clone()),
            attempts,
        })))
    }
}

/// 256 random bits.
fn new_token() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn routes(page: Page) -> Router {
    // An attempt has the server's own token, so no page of another site may make one, and none may
    // show this page in a frame, to make the user click on its buttons.
    let own = AllowOrigin::same_origin().allow_missing();
    let own = RequestCheckLayer::origins(own).reject_with(ProblemJson::new());
    let make = Router::new()
        .route("/attempts", post(make_own))
        .route("/attempts/{id}", post(make))
        .layer(DefaultBodyLimit::max(MAX_ATTEMPT))
        .layer(from_fn_with_state(page.clone(), require_page_token));
    let mut api = Router::new().route("/policy", get(describe));
    // Attempts name the policy.
    if page.0.is_private {
        api = api.route("/status", get(status)).route("/attempts", get(list)).merge(make);
    }
    api.layer(own)
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
    let (head, body) = request.into_parts();
    let token = head.headers.get(PAGE_TOKEN).and_then(|token| token.to_str().ok());
    match page.tokens.verify(Token::new(token.unwrap_or_default()), &head).await {
        Ok(_) => next.run(Request::from_parts(head, body)).await,
        Err(_) => failure(StatusCode::FORBIDDEN, "this page is not of this server: reload it"),
    }
}

async fn describe(State(Page(page)): State<Page>) -> impl IntoResponse {
    (NO_STORE, Json(page.description.clone()))
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
