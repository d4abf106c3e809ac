//! The settings of a guard from a TOML file. Environment variables override its keys.
//!
//! `WS_GUARD_ORIGINS='https://a.example, https://b.example' cargo run --example settings_toml`. The
//! path of another file can be its argument. With `WS_GUARD_ORIGINS=https://a.example/` it exits
//! with an error that names the key and the value.

use std::{env, error::Error, ffi::OsString, fs, process::exit};

use axum::{Router, extract::ws::Message, response::Response, routing::any};
use tower_ws_guard::{
    Claims, ConfigError, GuardLayer, ProblemJson, Settings, StaticTokens, axum::GuardedUpgrade,
};

/// The variable `WS_GUARD_MAX_CONNECTIONS` overrides the key `max_connections`.
const PREFIX: &str = "WS_GUARD_";

pub(crate) fn settings(
    file: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, toml::de::Error> {
    let mut keys: toml::Table = file.parse()?;
    for (name, value) in variables {
        if let Some(key) = name.strip_prefix(PREFIX) {
            // `Settings` accepts a text for any value, such as a number or a list.
            keys.insert(key.to_ascii_lowercase(), value.into());
        }
    }
    keys.try_into()
}

pub(crate) fn guard(settings: &Settings) -> Result<GuardLayer<ProblemJson>, ConfigError> {
    let tokens = StaticTokens::new([("s3cr3t", "alice")])?;
    Ok(settings.guard_with_token(tokens)?.reject_with(ProblemJson::new()))
}

pub(crate) fn app(guard: GuardLayer<ProblemJson>) -> Router {
    Router::new().route("/ws", any(handler).layer(guard))
}

async fn handler(upgrade: GuardedUpgrade<Claims<&'static str>>) -> Response {
    upgrade.on_upgrade(async |mut socket, Claims(user)| {
        let _ = socket.send(Message::text(format!("hello {user}"))).await;
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).unwrap_or_else(|| "examples/settings.toml".to_owned());
    let file = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // Not `env::vars`, which panics if some other variable is not UTF-8.
    let text = |value: OsString| value.to_string_lossy().into_owned();
    let variables = env::vars_os().map(|(name, value)| (text(name), text(value)));
    let settings = settings(&file, variables).unwrap_or_else(|error| {
        eprintln!("{path}: {error}");
        exit(2)
    });
    let guard = guard(&settings)?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let address = listener.local_addr()?;
    for lint in guard.lint(Some(address)) {
        eprintln!("{lint}");
    }
    println!("listening on http://{address}");
    Ok(axum::serve(listener, app(guard)).await?)
}
