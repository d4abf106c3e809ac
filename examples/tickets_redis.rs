//! One-time tickets for several servers that share a Redis: each server redeems the tickets of all.
//!
//! `cargo run --example tickets_redis -- redis://127.0.0.1:6379`, then open both addresses that it
//! prints.

#[path = "tickets.rs"]
#[expect(dead_code, reason = "it is a separate program")]
mod tickets;

use std::error::Error;

use tokio::net::TcpListener;
use tower_ws_guard::{Redis, token::ticket::RedisTicketStore};

/// Each server has its own connection, as on separate machines.
pub(crate) async fn serve(listener: TcpListener, url: &str) -> Result<(), Box<dyn Error>> {
    let store = RedisTicketStore::new(&Redis::new(url)?.prefix("chat:"));
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, tickets::app(store)?).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let first = TcpListener::bind("127.0.0.1:3000").await?;
    let second = TcpListener::bind("127.0.0.1:3001").await?;
    tokio::try_join!(serve(first, &url), serve(second, &url))?;
    Ok(())
}
