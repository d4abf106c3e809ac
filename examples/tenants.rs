//! Tenants from a database: each host has its own list of origins, and a change applies to the next
//! handshake.
//!
//! `cargo run --example tenants`, then
//! `curl -d https://shop.example http://127.0.0.1:3000/tenants/red.localhost`, and open a socket to
//! ws://red.localhost:3000/ws from a page of that origin.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State, ws::Message},
    http::StatusCode,
    response::Response,
    routing::{any, post},
};
use tower_ws_guard::{
    AllowHost, AllowOrigin, GuardLayer, Host, ProblemJson, Replaceable, RequestCheckLayer,
    axum::GuardedUpgrade,
};

/// A stand-in for a table of your database: the origins of each host.
#[derive(Clone, Default)]
pub(crate) struct Database(Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>);

impl Database {
    async fn tenants(&self) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
        Ok(self.0.lock().expect("nobody panics while holding it").clone())
    }

    pub(crate) async fn add(&self, host: &str, origin: &str) -> io::Result<()> {
        let mut tenants = self.0.lock().expect("nobody panics while holding it");
        tenants.entry(host.to_owned()).or_default().insert(origin.to_owned());
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Tenants {
    database: Database,
    /// By host. A handshake never waits for them, and copies no patterns.
    policies: Replaceable<HashMap<String, AllowOrigin>>,
    /// Held while the policies are read and replaced, so that older ones never replace newer ones.
    refreshing: Arc<tokio::sync::Mutex<()>>,
}

impl Tenants {
    pub(crate) async fn load(database: Database) -> io::Result<Self> {
        let policies = Replaceable::new(HashMap::new());
        let tenants = Self { database, policies, refreshing: Arc::default() };
        tenants.refresh().await?;
        Ok(tenants)
    }

    async fn refresh(&self) -> io::Result<()> {
        let _refreshing = self.refreshing.lock().await;
        let mut policies = HashMap::new();
        for (host, origins) in self.database.tenants().await? {
            match AllowOrigin::list(origins) {
                Ok(policy) => drop(policies.insert(host, policy)),
                // A mistake in one row must not affect the other tenants.
                Err(error) => eprintln!("{host}: {error}"),
            }
        }
        self.policies.replace(policies);
        Ok(())
    }

    /// Picks up changes that other servers have written.
    async fn refresh_every(self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            if let Err(error) = self.refresh().await {
                eprintln!("the policies stay as they are: {error}");
            }
        }
    }

    fn policy(&self, host: Host<'_>) -> Option<AllowOrigin> {
        self.policies.get().get(&*host.normal_name()).cloned()
    }
}

pub(crate) fn app(tenants: Tenants) -> Router {
    let (known, origins) = (tenants.clone(), tenants.clone());
    let hosts = AllowHost::predicate(move |host| known.policy(host).is_some());
    let guard = GuardLayer::new(AllowOrigin::per_request(move |head| origins.policy(head.host())))
        .allow_host(hosts)
        .reject_with(ProblemJson::new());
    // Only programs on this machine may change tenants. A public endpoint must authenticate.
    let local = RequestCheckLayer::origins(AllowOrigin::no_browsers())
        .allow_host(AllowHost::loopback())
        .reject_with(ProblemJson::new());
    Router::new()
        .route("/tenants/{host}", post(add).layer(local))
        .with_state(tenants)
        .route("/ws", any(handler).layer(guard))
}

/// Allows pages of the origin in the body.
async fn add(
    State(tenants): State<Tenants>,
    Path(host): Path<String>,
    origin: String,
) -> Result<StatusCode, (StatusCode, String)> {
    let failed = |error: io::Error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    // The error names the mistake in the pattern.
    let invalid = |error: tower_ws_guard::ConfigError| (StatusCode::BAD_REQUEST, error.to_string());
    AllowOrigin::list([&origin]).map(drop).map_err(invalid)?;
    tenants.database.add(&host, &origin).await.map_err(failed)?;
    tenants.refresh().await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

async fn handler(upgrade: GuardedUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket, ()| {
        let _ = socket.send(Message::text("welcome")).await;
    })
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let database = Database::default();
    database.add("red.localhost", "http://red.localhost:3000").await?;
    database.add("blue.localhost", "http://blue.localhost:3000").await?;
    let tenants = Tenants::load(database).await?;
    tokio::spawn(tenants.clone().refresh_every(Duration::from_secs(60)));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(tenants)).await
}
