//! One-time tickets for several servers that share a Redis: each server redeems the tickets of all.
//!
//! `cargo run --example tickets_redis -- redis://127.0.0.1:6379`, then open both addresses that it
//! prints.

#[path = "tickets.rs"]
#[expect(dead_code, reason = "it is a separate program")]
mod tickets;

use tower_ws_guard::{Redis, token::ticket::RedisTicketStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let serve = async |port: u16| -> Result<(), Box<dyn std::error::Error>> {
        // Each server has its own connection, as on separate machines.
        let store = RedisTicketStore::new(&Redis::new(&url)?.prefix("chat:"));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        Ok(axum::serve(listener, tickets::app(store)?).await?)
    };
    tokio::try_join!(serve(3000), serve(3001))?;
    Ok(())
}
