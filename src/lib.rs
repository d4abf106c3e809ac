//! Placeholder
#![cfg_attr(docsrs, feature(doc_cfg))]

#[macro_use]
mod macros;

#[cfg(feature = "axum")]
pub mod axum;
mod config;
pub mod guard;
pub mod handshake;
pub mod origin;
pub mod rejection;
#[cfg(feature = "responder")]
pub mod responder;
mod subprotocol;
pub mod token;
pub mod version;

#[cfg(feature = "responder")]
pub use self::{
    handshake::accept_key,
    responder::{PendingUpgrade, Responder, ResponderLayer, Upgrade, UpgradeError, Upgraded},
};

pub use self::{
    config::ConfigError,
    guard::{Check, Guard, GuardLayer},
    handshake::{Handshake, Host, Transport, is_attempt},
    origin::{AllowHost, AllowOrigin, InvalidOrigin, Origin, OriginCheck, OriginCheckLayer, RequestOrigin},
    rejection::{EmptyBody, PlainText, ProblemJson, Rejection, RejectionKind, RespondRejection},
    subprotocol::Subprotocols,
    token::{Claims, NoToken, StaticTokens, Token, TokenCheck, TokenCheckLayer, TokenPolicy, TokenSource, VerifyToken},
    version::{VersionCheck, VersionCheckLayer},
};
