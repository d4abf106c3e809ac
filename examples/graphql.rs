//! GraphQL subscriptions with async-graphql: a resolver reads the claims that the guard verified.
//!
//! ```console
//! $ cargo run --example graphql
//! $ websocat --protocol graphql-transport-ws -H='Authorization: Bearer s3cr3t' \
//!     ws://127.0.0.1:3000/ws
//! {"type":"connection_init"}
//! {"type":"subscribe","id":"1","payload":{"query":"subscription { greetings }"}}
//! ```

use async_graphql::{Context, Data, EmptyMutation, Object, Result, Schema, Subscription};
use async_graphql_axum::{GraphQLProtocol, GraphQLWebSocket};
use axum::{Router, extract::State, response::Response, routing::any};
use futures_util::{Stream, StreamExt, stream};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, ConfigError, GuardLayer, ProblemJson, StaticTokens,
    Subprotocols, TokenPolicy, axum::GuardedUpgrade,
};

type Api = Schema<Queries, EmptyMutation, Subscriptions>;

struct Queries;

#[Object]
impl Queries {
    async fn version(&self) -> &'static str {
        "1.0"
    }
}

struct Subscriptions;

#[Subscription]
impl Subscriptions {
    /// Greets the user of the connection.
    async fn greetings(&self, context: &Context<'_>) -> Result<impl Stream<Item = String>> {
        let Claims(user) = *context.data::<Claims<&'static str>>()?;
        Ok(stream::iter(["hello", "goodbye"]).map(move |greeting| format!("{greeting} {user}")))
    }
}

pub(crate) fn app() -> Result<Router, ConfigError> {
    let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
    // Clients other than browsers send no Origin; these authenticate with a token and not with a
    // cookie.
    let guard = GuardLayer::new(AllowOrigin::same_origin().allow_missing())
        .allow_host(AllowHost::loopback())
        // `graphql-transport-ws` is the protocol of the npm package graphql-ws, and `graphql-ws`
        // that of its predecessor subscriptions-transport-ws.
        .subprotocols(Subprotocols::list(["graphql-transport-ws", "graphql-ws"])?)
        .token(TokenPolicy::bearer(tokens))?
        .reject_with(ProblemJson::new());
    let api = Schema::new(Queries, EmptyMutation, Subscriptions);
    Ok(Router::new().route("/ws", any(subscribe).layer(guard)).with_state(api))
}

/// `GraphQLProtocol` reads the subprotocol that the guard selected, and responds with 400 if the
/// client offers none.
async fn subscribe(
    State(api): State<Api>,
    protocol: GraphQLProtocol,
    upgrade: GuardedUpgrade<Claims<&'static str>>,
) -> Response {
    upgrade.on_upgrade(async move |socket, claims| {
        let mut data = Data::default();
        data.insert(claims);
        GraphQLWebSocket::new(socket, api, protocol).with_data(data).serve().await;
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()?).await?)
}
