//! The rooms of this server, and the messages between servers by publish/subscribe.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::extract::ws::Utf8Bytes;
use futures_util::StreamExt;
use redis::{
    AsyncCommands, Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{sync::broadcast, time::sleep};

const CHANNELS: &str = "chat:room:";

/// The messages that wait for a slow member. Then the oldest is dropped, and the member told.
const BACKLOG: usize = 64;

/// Clones share the rooms.
#[derive(Clone)]
pub(crate) struct Rooms {
    members: Members,
    /// `None` for one server.
    publisher: Option<ConnectionManager>,
    is_subscribed: Arc<AtomicBool>,
}

/// A room is here as long as this server has a member of it.
type Members = Arc<Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>>;

impl Rooms {
    pub(crate) fn in_memory() -> Self {
        Self { members: Arc::default(), publisher: None, is_subscribed: Arc::default() }
    }

    /// Begins to listen to the other servers. Redis need not run yet.
    pub(crate) fn on_redis(client: Client) -> Result<Self, RedisError> {
        // A message that cannot be sent is the user's to repeat.
        let config = ConnectionManagerConfig::new().set_number_of_retries(1);
        let publisher = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let rooms = Self { publisher: Some(publisher), ..Self::in_memory() };
        tokio::spawn(rooms.clone().listen(client));
        Ok(rooms)
    }

    /// Whether messages of other servers arrive.
    pub(crate) fn are_connected(&self) -> bool {
        self.publisher.is_none() || self.is_subscribed.load(Relaxed)
    }

    /// Publish/subscribe keeps nothing: what others send meanwhile is lost for this server.
    async fn listen(self, client: Client) {
        loop {
            let error = self.listen_once(&client).await.err();
            self.is_subscribed.store(false, Relaxed);
            tracing::warn!(?error, "messages of other servers do not arrive");
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Returns when the connection ends. Each server hears all rooms; with many servers, subscribe
    /// to those that have a member.
    async fn listen_once(&self, client: &Client) -> Result<(), RedisError> {
        let mut redis = client.get_async_pubsub().await?;
        redis.psubscribe(format!("{CHANNELS}*")).await?;
        self.is_subscribed.store(true, Relaxed);
        tracing::info!("messages of other servers arrive");
        let mut messages = redis.on_message();
        while let Some(message) = messages.next().await {
            if let Some(room) = message.get_channel_name().strip_prefix(CHANNELS) {
                self.deliver(room, message.get_payload::<String>()?.into());
            }
        }
        Ok(())
    }

    /// Sends a message to all members of a room, the sender among them, on all servers.
    pub(crate) async fn send(&self, room: &str, message: String) -> Result<(), RedisError> {
        match &self.publisher {
            Some(redis) => redis.clone().publish(format!("{CHANNELS}{room}"), message).await,
            None => {
                self.deliver(room, message.into());
                Ok(())
            }
        }
    }

    fn deliver(&self, room: &str, message: Utf8Bytes) {
        if let Some(room) = self.members().get(room) {
            // All members may be about to leave.
            room.send(message).ok();
        }
    }

    pub(crate) fn join(&self, room: &str) -> Membership {
        let mut members = self.members();
        let sender =
            members.entry(room.to_owned()).or_insert_with(|| broadcast::Sender::new(BACKLOG));
        let inbox = sender.subscribe();
        Membership { rooms: self.clone(), room: room.to_owned(), inbox }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<String, broadcast::Sender<Utf8Bytes>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member leaves the room when this is dropped.
pub(crate) struct Membership {
    rooms: Rooms,
    room: String,
    inbox: broadcast::Receiver<Utf8Bytes>,
}

impl Membership {
    /// `None` if the member has missed messages.
    pub(crate) async fn next(&mut self) -> Option<Utf8Bytes> {
        self.inbox.recv().await.ok()
    }

    pub(crate) async fn send(&self, message: String) -> Result<(), RedisError> {
        self.rooms.send(&self.room, message).await
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.rooms.members();
        if members.get(&self.room).is_some_and(|room| room.receiver_count() == 1) {
            members.remove(&self.room);
        }
    }
}
